"""Keras 3 models as flat graphs: its functional calls, its `keras.ops` operations, its configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras.src.activations import activations
from keras.src.models.functional import Functional
from keras.src.ops import core as ops_core
from keras.src.ops import image as ops_image
from keras.src.ops import math as ops_math
from keras.src.ops import nn as ops_nn
from keras.src.ops import numpy as ops_numpy
from keras.src.ops.operation import Operation

from tfq.models import operations as op
from tfq.models import operators
from tfq.models.flatten import Call, Tensor
from tfq.models.frontend import Frontend, SourceCall, flat, mapped
from tfq.models.keras_layers import LAYERS
from tfq.models.refusals import refuse

_A, _O = keras.activations, keras.ops


class Keras3Frontend(Frontend):
    layers = keras.layers
    tensor_types = (keras.KerasTensor,)
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

    def graph_model(self, layer: Any) -> Any | None:
        return functional(layer) if isinstance(layer, keras.Model) else None

    def calls(self, model: Any) -> Iterator[SourceCall]:
        inputs = {id(tensor) for tensor in model.inputs}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input or all(id(tensor) in inputs for tensor in node.outputs):
                    continue
                # a model called with training=False hands that to every layer, whatever the call recorded
                kwargs = {key: value for key, value in node.arguments.kwargs.items() if key != "training"}
                yield SourceCall(node.operation, node.arguments.args, kwargs, node.outputs)

    def input_names(self, model: Any) -> list[str]:
        return [tensor._keras_history.operation.name for tensor in model.inputs]

    def output_names(self, model: Any) -> list[str]:
        structure = model._outputs_struct
        if isinstance(structure, dict) and len(structure) == len(model.outputs):
            return sorted(structure)
        return list(model.output_names)

    def nested_inputs(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        given = args[0] if args else kwargs["inputs"]
        if isinstance(given, dict) and not isinstance(model._inputs_struct, dict):
            return [given[name] for name in self.input_names(model)]
        return flat(given)

    def operator(self, call: Call, source: SourceCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        operation = source.layer
        if not isinstance(operation, Operation) or isinstance(operation, keras.layers.Layer):
            return NotImplemented
        kind = type(operation).__name__
        if kind not in operators.KERAS:
            raise call.refuse(f"no rule is known for the operator {kind}", "replace it by standard layers")
        data_format = getattr(operation, "data_format", "channels_last")
        if data_format != "channels_last":
            raise call.refuse(f"its data_format is {data_format}", "build the model again with channels_last")
        bound = inspect.signature(operation.call).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        return operators.add_nodes(
            call, operators.KERAS[kind], lambda name: given[name] if name in given else getattr(operation, name)
        )

    def renamed(self, kind: str, key: str) -> str:
        return LAYERS[kind].renamed.get(key, key)

    def variable_names(self, layer: Any) -> list[str]:
        paths = [variable.path.split("/") for variable in layer.weights]
        short = [path[-1] for path in paths]
        return ["/".join(p[-2:]) if short.count(p[-1]) > 1 else p[-1] for p in paths]

    def trace(self, function: Callable[..., Any], inputs: Sequence[Tensor], structure: Any) -> Any:
        symbols = {t.name: keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in inputs}
        args, kwargs = mapped(lambda v: symbols[v.name] if isinstance(v, Tensor) else v, structure)
        return keras.Model([symbols[t.name] for t in inputs], function(*args, **kwargs))


def operation_class(name: str) -> type[Operation] | None:
    """The class of a keras.ops operation by its name."""
    for module in (ops_numpy, ops_nn, ops_core, ops_math, ops_image, activations):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Operation) and not issubclass(found, keras.layers.Layer):
            return found
    return None


def functional(model: Any) -> Any:
    """The functional model inside a Keras 3 model; UserError for a subclassed or unbuilt one."""
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise refuse(
                f"Model {model.name!r}", "it is a Sequential without a known input shape", "add an Input layer first"
            )
        return model._functional
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        raise refuse(
            f"Model {model.name!r}",
            f"it is a subclassed model ({type(model).__name__}), whose layers' order only its code knows",
            "build it with the functional API: keras.Model(inputs, outputs)",
        )
    return model


def make_predict(model: Any, names: Sequence[str]) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """`model` on one batch of arrays by input name; its outputs in order."""
    inner = functional(model)

    def run(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        packed = keras.tree.pack_sequence_as(inner._inputs_struct, [arrays[name] for name in names])
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(packed, training=False))]

    return run
