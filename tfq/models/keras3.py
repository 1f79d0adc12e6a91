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
from tfq.models import shaping
from tfq.models.flatten import Call, Tensor
from tfq.models.frontend import Frontend, SourceCall, flat, mapped
from tfq.models.refusals import refuse

_KEYS = {("LeakyReLU", "negative_slope"): "alpha", ("DepthwiseConv2D", "kernel"): "depthwise_kernel"}
_KEYS |= {("DepthwiseConv1D", "kernel"): "depthwise_kernel"}
_A, _O = keras.activations, keras.ops

Rule = Callable[..., Any]
_UNARY = {
    "Abs": "abs", "Absolute": "abs", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp", "Expm1": "expm1",
    "Floor": "floor", "Log": "log", "Log1p": "log1p", "LogSigmoid": "log_sigmoid", "Reciprocal": "reciprocal",
    "Rsqrt": "rsqrt", "Sign": "sign", "Sin": "sin", "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt",
    "Square": "square",
}  # fmt: skip


def _unary(function: str) -> Rule:
    rule = op.unary(function)
    return lambda c, o, x: rule(c, x)  # noqa: ARG005


def _channels_last(call: Call, operation: Any) -> Call:
    if operation.data_format != "channels_last":
        raise call.refuse(f"its data_format is {operation.data_format}", "build the model again with channels_last")
    return call


# Operations of keras.ops by class name; each rule gets the operation's own attributes through `o`.
OPERATIONS: dict[str, Rule] = {
    "Add": lambda c, o, x1, x2: op.add(c, x1, x2),  # noqa: ARG005
    "Subtract": lambda c, o, x1, x2: op.subtract(c, x1, x2),  # noqa: ARG005
    "Multiply": lambda c, o, x1, x2: op.multiply(c, x1, x2),  # noqa: ARG005
    "Divide": lambda c, o, x1, x2: op.divide(c, x1, x2),  # noqa: ARG005
    "TrueDivide": lambda c, o, x1, x2: op.divide(c, x1, x2),  # noqa: ARG005
    "Power": lambda c, o, x1, x2: op.power(c, x1, x2),  # noqa: ARG005
    "Maximum": lambda c, o, x1, x2: op.maximum(c, x1, x2),  # noqa: ARG005
    "Minimum": lambda c, o, x1, x2: op.minimum(c, x1, x2),  # noqa: ARG005
    "Matmul": lambda c, o, x1, x2: op.matmul(c, x1, x2),  # noqa: ARG005
    "Negative": lambda c, o, x: op.affine(c, x, -1.0),  # noqa: ARG005
    "Clip": lambda c, o, x: op.clip(c, x, o.x_min, o.x_max),
    "Relu": lambda c, o, x: op.relu(c, x),  # noqa: ARG005
    "ReLU": lambda c, o, x: op.relu(c, x, o.max_value, o.negative_slope, o.threshold),
    "Mish": lambda c, o, x: op.activation("mish")(c, x),  # noqa: ARG005
    "Relu6": lambda c, o, x: op.relu6(c, x),  # noqa: ARG005
    "LeakyRelu": lambda c, o, x: op.leaky_relu(c, x, o.negative_slope),
    "Elu": lambda c, o, x: op.elu(c, x, o.alpha),
    "Selu": lambda c, o, x: op.activation("selu")(c, x),  # noqa: ARG005
    "Sigmoid": lambda c, o, x: op.named("Sigmoid")(c, x),  # noqa: ARG005
    "Tanh": lambda c, o, x: op.named("Tanh")(c, x),  # noqa: ARG005
    "Silu": lambda c, o, x: op.activation("swish")(c, x),  # noqa: ARG005
    "HardSilu": lambda c, o, x: op.named("HardSwish")(c, x),  # noqa: ARG005
    "HardSigmoid": lambda c, o, x: op.hard_sigmoid_sixth(c, x),  # noqa: ARG005
    "Gelu": lambda c, o, x: op.gelu(c, x, o.approximate),
    "Softmax": lambda c, o, x: op.softmax(c, x, o.axis),
    "LogSoftmax": lambda c, o, x: op.log_softmax(c, x, o.axis),
    "Reshape": lambda c, o, x: op.reshape(c, x, o.newshape),
    "Squeeze": lambda c, o, x: shaping.squeeze(c, x, o.axis),
    "ExpandDims": lambda c, o, x: shaping.expand_dims(c, x, o.axis),
    "Transpose": lambda c, o, x: shaping.transpose(c, x, o.axes),
    "DepthToSpace": lambda c, o, x: shaping.depth_to_space(_channels_last(c, o), x, o.block_size),
    "SpaceToDepth": lambda c, o, x: shaping.space_to_depth(_channels_last(c, o), x, o.block_size),
    "Swapaxes": lambda c, o, x: shaping.swap_axes(c, x, o.axis1, o.axis2),
    "Concatenate": lambda c, o, xs: shaping.concatenate(c, xs, o.axis),
    "Stack": lambda c, o, x: shaping.stack(c, x, o.axis),
    "Split": lambda c, o, x: shaping.split(c, x, o.indices_or_sections, o.axis, at=np.ndim(o.indices_or_sections) == 1),
    "Unstack": lambda c, o, x: shaping.unstack(c, x, o.axis),
    "GetItem": lambda c, o, x, key: shaping.get_item(c, x, key),  # noqa: ARG005
    "Pad": lambda c, o, x, constant_values=None: shaping.pad(c, x, o.pad_width, o.mode, constant_values),
    "Mean": lambda c, o, x: op.mean(c, x, o.axis, o.keepdims),
    "Sum": lambda c, o, x: op.total(c, x, o.axis, o.keepdims),
    "Max": lambda c, o, x: op.largest(c, x, o.axis, o.keepdims),
    "Cast": lambda c, o, x: op.cast(c, x, o.dtype),
    "StopGradient": lambda c, o, variable: op.identity(c, variable),  # noqa: ARG005
    "Copy": lambda c, o, x: op.identity(c, x),  # noqa: ARG005
    **{name: _unary(function) for name, function in _UNARY.items()},
}


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
        if kind not in OPERATIONS:
            raise call.refuse(f"no rule is known for the operator {kind}", "replace it by standard layers")
        given = inspect.signature(operation.call).bind(*args, **kwargs).arguments
        return OPERATIONS[kind](call, operation, **given)

    def renamed(self, kind: str, key: str) -> str:
        return _KEYS.get((kind, key), key)

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
