"""Keras 3 models as flat graphs: its functional calls, its `keras.ops` operations, its configurations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras.src.activations import activations
from keras.src.models.functional import Functional
from keras.src.ops import core as ops_core
from keras.src.ops import image as ops_image
from keras.src.ops import linalg as ops_linalg
from keras.src.ops import math as ops_math
from keras.src.ops import nn as ops_nn
from keras.src.ops import numpy as ops_numpy
from keras.src.ops.operation import Operation

from tfq.models import lstm, operators
from tfq.models import operations as op
from tfq.models.calls import SourceCall, mapped
from tfq.models.carried import carry, leaves
from tfq.models.flatten import Call, Tensor
from tfq.models.frontend import OWN, Frontend
from tfq.models.keras_layers import LAYERS
from tfq.models.refusals import UNSAFE

_A, _O = keras.activations, keras.ops


def _place(function: Any, operation: Any, x: Any) -> Any:
    found = function(x, operation.axis, tf.int32)
    return tf.expand_dims(found, operation.axis) if operation.keepdims else found


# Of operations that Keras writes in more than TFLite has: they tell -0.0 from 0.0.
_PLAIN = {
    "Argmax": lambda operation: functools.partial(_place, tf.argmax, operation),
    "Argmin": lambda operation: functools.partial(_place, tf.argmin, operation),
}
_OF_SHAPES = ("FullLike", "OnesLike", "ZerosLike")


def _inputs(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {name: _inputs(part, dtype) for name, part in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.Input(tuple(shape[1:]), dtype=dtype)
    return [_inputs(part, dtype) for part in shape]


class Keras3Frontend(Frontend):
    library = keras
    functional_class = Functional
    tree = keras.tree
    tensor_types = (keras.KerasTensor,)
    mask_options: ClassVar = {"by_argument": True, "takes_away": ("MultiHeadAttention",)}
    kept_activations: ClassVar = {
        _A.linear: "linear", _A.relu: "relu", _A.softmax: "softmax", _A.elu: "elu", _A.selu: "selu",
        _A.softplus: "softplus", _A.softsign: "softsign", _A.silu: "swish", _A.gelu: "gelu", _A.tanh: "tanh",
        _A.sigmoid: "sigmoid", _A.exponential: "exponential", _A.mish: "mish",
        _O.relu: "relu", _O.softmax: "softmax", _O.elu: "elu", _O.selu: "selu", _O.softplus: "softplus",
        _O.softsign: "softsign", _O.silu: "swish", _O.tanh: "tanh", _O.sigmoid: "sigmoid",
        tf.nn.relu: "relu", tf.nn.softmax: "softmax", tf.nn.elu: "elu", tf.nn.selu: "selu",
        tf.nn.softplus: "softplus", tf.nn.softsign: "softsign", tf.nn.silu: "swish", tf.nn.gelu: "gelu",
        tf.nn.tanh: "tanh", tf.nn.sigmoid: "sigmoid",
    }  # fmt: skip
    other_activations: ClassVar = {
        _A.relu6: op.relu6, _A.leaky_relu: op.leaky_relu, _A.hard_silu: op.named("HardSwish"),
        _A.hard_sigmoid: op.hard_sigmoid_sixth, _A.log_softmax: op.log_softmax,
        _A.log_sigmoid: op.unary("log_sigmoid"),
        _O.relu6: op.relu6, _O.leaky_relu: op.leaky_relu, _O.hard_silu: op.named("HardSwish"),
        _O.hard_sigmoid: op.hard_sigmoid_sixth, _O.log_softmax: op.log_softmax,
        _O.gelu: op.named("Gelu", approximate=True),  # unlike the activation of that name
        tf.nn.relu6: op.relu6, tf.nn.leaky_relu: op.leaky_relu, tf.nn.log_softmax: op.log_softmax,
    }  # fmt: skip

    @classmethod
    def inside(cls, model: Any) -> Any | None:
        return model._functional if model.built else None

    @classmethod
    def inputs_of(cls, model: Any) -> Any | None:
        shapes = getattr(model, "_build_shapes_dict", None)
        if not shapes:
            return None
        first = next(iter(shapes.values()))  # a tuple of numbers, or such tuples in lists and dicts
        embeds = any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers())
        return _inputs(first, "int32" if embeds else "float32")

    def source_call(self, node: Any) -> SourceCall:
        # a model called with training=False hands that to every layer, whatever the call recorded
        kwargs = {key: value for key, value in node.arguments.kwargs.items() if key != "training"}
        return SourceCall(node.operation, node.arguments.args, kwargs, node.outputs)

    def mask(
        self,
        path: tuple[str, ...],
        layer: Any,  # noqa: ARG002
        function: Callable[..., Any],
        args: list[Any],
    ) -> Any:
        # as the operations that the model records where a layer has read the mask, which are then the same nodes
        inputs = list(dict.fromkeys(value for value in leaves(args) if isinstance(value, Tensor)))
        return self._run(self._trace(function, inputs, (args, {}), {}, None), inputs, path)

    def structures(self, model: Any) -> tuple[Any, Any]:
        return model._inputs_struct, model._outputs_struct

    def input_names(self, model: Any) -> list[str]:
        return [tensor._keras_history.operation.name for tensor in model.inputs]

    def operator(self, call: Call, source: SourceCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        operation = source.layer
        if not isinstance(operation, Operation) or isinstance(operation, keras.layers.Layer):
            return NotImplemented
        kind = type(operation).__name__
        if type(operation).__module__.split(".")[0] not in OWN and not self._unsafe:
            raise call.forbid(f"{kind} is a custom class", UNSAFE)
        if not any(isinstance(value, Tensor) for value in leaves([args, kwargs])) or kind in _OF_SHAPES:
            return self._constant(operation, args, kwargs)
        data_format = getattr(operation, "data_format", "channels_last")
        if data_format != "channels_last":
            raise call.forbid(f"its data_format is {data_format}", "build the model again with channels_last")
        bound = inspect.signature(operation.call).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments

        if kind == "Cast" and isinstance(given["x"], Tensor) and given["x"].dtype == operation.dtype:
            return given["x"]

        def rule() -> Any:
            return operators.add_nodes(
                call, operators.KERAS[kind], lambda name: given[name] if name in given else getattr(operation, name)
            )

        def carried() -> Any:
            options = {key: value for key, value in vars(operation).items() if key[0] != "_" and key != "name"}
            return carry(
                call, f"keras.ops.{kind}", _PLAIN.get(kind, lambda _: operation.call)(operation), args, kwargs,
                identity=repr(sorted(options.items())),
            )  # fmt: skip

        has_rule = kind in operators.KERAS and (kind in operators.READ_MASKS or not self.counts(args, kwargs))
        return self._flattener.first_of(call, [rule, carried] if has_rule else [carried])

    def _constant(self, operation: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """An operation on numbers known now, or on the shape of a tensor alone."""
        args, kwargs = mapped(lambda v: np.zeros((1, *v.shape[1:]), v.dtype) if isinstance(v, Tensor) else v,
                              (args, kwargs))  # fmt: skip
        return mapped(lambda v: v.numpy() if hasattr(v, "numpy") else v, operation.call(*args, **kwargs))

    def carried_form(self, layer: Any, begins: bool) -> Any:
        return (None if begins else lstm.as_tf_keras(layer)) or super().carried_form(layer, begins)

    def variables(self, layer: Any) -> list[tf.Variable]:
        return [v.value if isinstance(v, keras.Variable) else v for v in layer.weights]

    def renamed(self, kind: str, key: str) -> str:
        return LAYERS[kind].renamed.get(key, key)

    def variable_names(self, layer: Any) -> list[str]:
        paths = [variable.path.split("/") for variable in layer.weights]
        short = [path[-1] for path in paths]
        return ["/".join(p[-2:]) if short.count(p[-1]) > 1 else p[-1] for p in paths]


def operation_class(name: str) -> type[Operation] | None:
    """The class of a keras.ops operation by its name."""
    for module in (ops_numpy, ops_nn, ops_core, ops_math, ops_image, ops_linalg, activations):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Operation) and not issubclass(found, keras.layers.Layer):
            return found
    return None
