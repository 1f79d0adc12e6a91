"""tf_keras models as flat graphs: its functional calls, its TensorFlow operator layers, its configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src.engine.functional import Functional
from tf_keras.src.engine.keras_tensor import KerasTensor
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

from tfq.models import operations as op
from tfq.models import shaping
from tfq.models.flatten import Call, Tensor
from tfq.models.frontend import Frontend, SourceCall, flat, mapped
from tfq.models.graph import variable_names
from tfq.models.refusals import refuse

_A = tf_keras.activations
_UNARY = [
    "abs",
    "ceil",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "log",
    "log1p",
    "log_sigmoid",
    "reciprocal",
    "rsqrt",
    "sign",
    "sin",
    "softplus",
    "softsign",
    "sqrt",
    "square",
]


def _axis(given: dict[str, Any]) -> Any:
    return next(
        (given[key] for key in ("axis", "squeeze_dims", "dim", "reduction_indices") if given.get(key) is not None), None
    )


def _keepdims(given: dict[str, Any]) -> bool:
    return bool(given.get("keepdims") or given.get("keep_dims"))


def _plain_nhwc(call: Call, given: dict[str, Any]) -> dict[str, Any]:
    if given.get("data_format") not in (None, "NHWC"):
        raise call.refuse(f"its data_format is {given['data_format']}", "build the model again with NHWC")
    return given


def _pool(kind: str) -> Callable[..., Any]:
    def rule(c: Call, g: dict[str, Any]) -> Tensor:
        _plain_nhwc(c, g)
        return op.pool(c, g["input"], kind, g["ksize"], g["strides"], g["padding"])

    return rule


def _unary(function: str) -> Callable[..., Any]:
    rule = op.unary(function)
    return lambda c, g: rule(c, next(value for value in g.values() if isinstance(value, Tensor)))


def _resize(c: Call, g: dict[str, Any]) -> Tensor:
    if g.get("preserve_aspect_ratio") or g.get("antialias"):
        raise c.refuse("it resizes with antialias or preserve_aspect_ratio", "use tf.image.resize without them")
    return op.resize(c, g["images"], g["size"], str(g.get("method", "bilinear")).lower())


# TensorFlow operators by the public symbol under which tf_keras records them; `g` are the arguments by name.
OPERATORS: dict[str, Callable[[Call, dict[str, Any]], Any]] = {
    **dict.fromkeys(("math.add", "__operators__.add"), lambda c, g: op.add(c, g["x"], g["y"])),
    "math.add_n": lambda c, g: c.add("Add", {}, g["inputs"], shape=g["inputs"][0].shape),
    "math.subtract": lambda c, g: op.subtract(c, g["x"], g["y"]),
    "math.multiply": lambda c, g: op.multiply(c, g["x"], g["y"]),
    **dict.fromkeys(("math.truediv", "math.divide"), lambda c, g: op.divide(c, g["x"], g["y"])),
    "math.pow": lambda c, g: op.power(c, g["x"], g["y"]),
    "math.negative": lambda c, g: op.affine(c, g["x"], -1.0),
    "math.maximum": lambda c, g: op.maximum(c, g["x"], g["y"]),
    "math.minimum": lambda c, g: op.minimum(c, g["x"], g["y"]),
    "clip_by_value": lambda c, g: op.clip(c, g["t"], g["clip_value_min"], g["clip_value_max"]),
    "linalg.matmul": lambda c, g: _matmul(c, g),
    "nn.bias_add": lambda c, g: op.add(c, _plain_nhwc(c, g)["value"], g["bias"]),
    "nn.depth_to_space": lambda c, g: shaping.depth_to_space(c, _plain_nhwc(c, g)["input"], g["block_size"]),
    "nn.space_to_depth": lambda c, g: shaping.space_to_depth(c, _plain_nhwc(c, g)["input"], g["block_size"]),
    "nn.relu": lambda c, g: op.relu(c, g["features"]),
    "nn.relu6": lambda c, g: op.relu6(c, g["features"]),
    "nn.leaky_relu": lambda c, g: op.leaky_relu(c, g["features"], g.get("alpha", 0.2)),
    "nn.elu": lambda c, g: op.elu(c, g["features"]),
    "nn.selu": lambda c, g: op.activation("selu")(c, g["features"]),
    "math.sigmoid": lambda c, g: op.named("Sigmoid")(c, g["x"]),
    "math.tanh": lambda c, g: op.named("Tanh")(c, g["x"]),
    "nn.silu": lambda c, g: _silu(c, g),
    "nn.gelu": lambda c, g: op.gelu(c, g["features"], g.get("approximate", False)),
    "nn.softmax": lambda c, g: op.softmax(c, g["logits"], _axis(g)),
    "nn.log_softmax": lambda c, g: op.log_softmax(c, g["logits"], _axis(g)),
    "reshape": lambda c, g: op.reshape(c, g["tensor"], g["shape"]),
    **dict.fromkeys(("squeeze", "compat.v1.squeeze"), lambda c, g: shaping.squeeze(c, g["input"], _axis(g))),
    **dict.fromkeys(
        ("expand_dims", "compat.v1.expand_dims"), lambda c, g: shaping.expand_dims(c, g["input"], _axis(g))
    ),
    **dict.fromkeys(("transpose", "compat.v1.transpose"), lambda c, g: shaping.transpose(c, g["a"], g.get("perm"))),
    "concat": lambda c, g: shaping.concatenate(c, g["values"], int(g["axis"])),
    "stack": lambda c, g: shaping.stack(c, g["values"], int(g.get("axis", 0))),
    "split": lambda c, g: shaping.split(c, g["value"], g["num_or_size_splits"], int(g.get("axis", 0))),
    "unstack": lambda c, g: shaping.unstack(c, g["value"], int(g.get("axis", 0))),
    "__operators__.getitem": lambda c, g: shaping.get_item(c, g["tensor"], _slices(g["slice_spec"])),
    **dict.fromkeys(
        ("pad", "compat.v1.pad"),
        lambda c, g: shaping.pad(c, g["tensor"], g["paddings"], g.get("mode", "CONSTANT"), g.get("constant_values", 0)),
    ),
    "math.reduce_mean": lambda c, g: op.mean(c, g["input_tensor"], _axis(g), _keepdims(g)),
    "math.reduce_sum": lambda c, g: op.total(c, g["input_tensor"], _axis(g), _keepdims(g)),
    "math.reduce_max": lambda c, g: op.largest(c, g["input_tensor"], _axis(g), _keepdims(g)),
    "cast": lambda c, g: op.cast(c, g["x"], tf.as_dtype(g["dtype"]).name),
    **dict.fromkeys(("identity", "stop_gradient"), lambda c, g: op.identity(c, g["input"])),
    "nn.max_pool2d": _pool("MaxPooling2D"),
    "nn.avg_pool2d": _pool("AveragePooling2D"),
    **dict.fromkeys(("image.resize", "compat.v1.image.resize"), _resize),
    **{f"math.{name}": _unary(name) for name in _UNARY},
    **{f"nn.{name}": _unary(name) for name in ("softplus", "softsign")},
}
# Operators on shapes: the batch size in them is None, every other entry a number.
SHAPES = ("shape", "compat.v1.shape", "shape_v2")


def _matmul(c: Call, g: dict[str, Any]) -> Tensor:
    strange = [key for key in ("adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse", "output_type") if g.get(key)]
    if strange:
        raise c.refuse(f"matmul with {strange[0]}", "use transpose_a and transpose_b")
    return op.matmul(c, g["a"], g["b"], bool(g.get("transpose_a")), bool(g.get("transpose_b")))


def _silu(c: Call, g: dict[str, Any]) -> Tensor:
    if g.get("beta", 1.0) != 1.0:
        raise c.refuse(f"silu with beta={g['beta']}", "use beta=1")
    return op.activation("swish")(c, g["features"])


def _slices(spec: Any) -> Any:
    """The slices of a `SlicingOpLambda`, which records them as dicts."""
    if isinstance(spec, dict):
        return slice(*(None if spec[k] is None else int(spec[k]) for k in ("start", "stop", "step")))
    if isinstance(spec, (list, tuple)):
        return tuple(map(_slices, spec))
    return int(spec) if isinstance(spec, (np.generic, np.ndarray)) else spec


class TFKerasFrontend(Frontend):
    layers = tf_keras.layers
    tensor_types = (KerasTensor,)
    kept_activations: ClassVar = {
        _A.linear: "linear", _A.relu: "relu", _A.softmax: "softmax", _A.elu: "elu", _A.selu: "selu",
        _A.softplus: "softplus", _A.softsign: "softsign", _A.swish: "swish", _A.gelu: "gelu", _A.tanh: "tanh",
        _A.sigmoid: "sigmoid", _A.exponential: "exponential", _A.mish: "mish",
        tf.nn.relu: "relu", tf.nn.softmax: "softmax", tf.nn.elu: "elu", tf.nn.selu: "selu",
        tf.nn.softplus: "softplus", tf.nn.softsign: "softsign", tf.nn.silu: "swish", tf.nn.gelu: "gelu",
        tf.nn.tanh: "tanh", tf.nn.sigmoid: "sigmoid", tf.identity: "linear", tf.exp: "exponential",
    }  # fmt: skip
    other_activations: ClassVar = {
        _A.hard_sigmoid: op.hard_sigmoid_fifth, tf.nn.relu6: op.relu6, tf.nn.leaky_relu: op.leaky_relu,
        tf.nn.log_softmax: op.log_softmax,
    }  # fmt: skip

    def graph_model(self, layer: Any) -> Any | None:
        return functional(layer) if isinstance(layer, tf_keras.Model) else None

    def calls(self, model: Any) -> Iterator[SourceCall]:
        inputs = {id(tensor) for tensor in model.inputs}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input or all(id(tensor) in inputs for tensor in flat(node.outputs)):
                    continue
                yield SourceCall(node.layer, node.call_args, node.call_kwargs, node.outputs)

    def input_names(self, model: Any) -> list[str]:
        return list(model.input_names)

    def output_names(self, model: Any) -> list[str]:
        structure = model._nested_outputs
        if isinstance(structure, dict) and len(structure) == len(model.outputs):
            return sorted(structure)
        return list(model.output_names)

    def nested_inputs(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        given = args[0] if args else kwargs["inputs"]
        if isinstance(given, dict) and not isinstance(model._nested_inputs, dict):
            return [given[name] for name in model.input_names]
        return flat(given)

    def operator(self, call: Call, source: SourceCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        layer = source.layer
        if not isinstance(layer, TFOpLambda):
            if type(layer).__name__ in ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"):
                raise call.refuse(f"no rule is known for {type(layer).__name__}", "replace it by standard layers")
            return NotImplemented
        given = dict(inspect.signature(layer.function).bind(*args, **kwargs).arguments)
        tensors = [value for value in flat([args, list(kwargs.values())]) if isinstance(value, Tensor)]
        if layer.symbol in SHAPES and tensors:
            return list(given["input"].shape)
        if not tensors:
            return self._constant(call, layer, args, kwargs, given)
        if layer.symbol not in OPERATORS:
            raise call.refuse(f"no rule is known for the operator tf.{layer.symbol}", "replace it by standard layers")
        return OPERATORS[layer.symbol](call, given)

    def _constant(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any], given: dict[str, Any]) -> Any:
        """An operator on numbers known now, such as the parts of a shape."""
        if layer.symbol == "__operators__.getitem":
            return given["tensor"][_slices(given["slice_spec"])]
        if layer.symbol in ("stack", "convert_to_tensor"):
            return given.get("values", given.get("value"))
        if layer.symbol == "concat":
            return flat(given["values"])
        if None in flat(args):
            raise call.refuse("it computes with the batch size", "use -1 for the batch axis in reshape")
        if layer.symbol not in OPERATORS:
            raise call.refuse(f"no rule is known for the operator tf.{layer.symbol}", "replace it by standard layers")
        return layer.function(*args, **kwargs).numpy().tolist()

    def renamed(self, kind: str, key: str) -> str:  # noqa: ARG002
        return key

    def variable_names(self, layer: Any) -> list[str]:
        return variable_names(layer)

    def trace(self, function: Callable[..., Any], inputs: Sequence[Tensor], structure: Any) -> Any:
        symbols = {t.name: tf_keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in inputs}
        args, kwargs = mapped(lambda v: symbols[v.name] if isinstance(v, Tensor) else v, structure)
        return tf_keras.Model([symbols[t.name] for t in inputs], function(*args, **kwargs))


def functional(model: Any) -> Any:
    """The model, if it is a functional tf_keras model; UserError for a subclassed or unbuilt one."""
    if isinstance(model, tf_keras.Sequential):
        if not getattr(model, "_nodes_by_depth", None) or not model.inputs:
            raise refuse(
                f"Model {model.name!r}", "it is a Sequential without a known input shape", "add an Input layer first"
            )
        return model
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        raise refuse(
            f"Model {model.name!r}",
            f"it is a subclassed model ({type(model).__name__}), whose layers' order only its code knows",
            "build it with the functional API: tf_keras.Model(inputs, outputs)",
        )
    return model


def make_predict(model: Any, names: Sequence[str]) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """`model` on one batch of arrays by input name; its outputs in order."""

    def run(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        packed = tf.nest.pack_sequence_as(model._nested_inputs, [tf.constant(arrays[name]) for name in names])
        return [np.asarray(y) for y in tf.nest.flatten(model(packed, training=False))]

    return run
