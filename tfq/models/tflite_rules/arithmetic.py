"""Element-wise operators, reductions, activations and softmax of a .tflite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfq.models import operations
from tfq.models.flatten import Call, Tensor
from tfq.models.tflite_files import DTYPES
from tfq.models.tflite_rules.operation import Operation, Rule, Shape, Value
from tfq.models.tflite_rules.shapes import widened

_FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


def elementwise(function: Callable[..., Tensor], **given: Any) -> Callable[[Operation], Value]:
    """An operator that maps each element of its first input by itself."""

    def rule(op: Operation) -> Value:
        x = op.value(0)
        return Value(function(op.call, x.tensor, **given), x.shape)

    return rule


def binary(function: Callable[[Call, Any, Any], Tensor]) -> Rule:
    """An operator on two inputs, either of them constant; they broadcast as in NumPy."""

    def rule(op: Operation) -> Value:
        rank = max(1, *(np.ndim(x) if isinstance(x, np.ndarray) else x.rank for x in op.inputs if x is not None))
        operands: list[Any] = [
            op.shaped(x, _padded(x.shape, rank)) if isinstance(x, Value) else x for x in op.inputs
        ]  # fmt: skip
        constants = [_padded(x.shape, rank) for x in operands if isinstance(x, np.ndarray)]
        for place, x in enumerate(operands):
            if constants and isinstance(x, Value):  # it must be as large as the result
                operands[place] = widened(op, x, np.broadcast_shapes(x.shape, *constants))
        values = [x for x in operands if isinstance(x, Value)]
        tensors, front = op.along(values, free=all(shape[:1] == (1,) for shape in constants))
        left = iter(tensors)
        return op.made(function(op.call, *(next(left) if isinstance(x, Value) else x for x in operands)), front)

    return rule


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)


def squared_difference(call: Call, a: Any, b: Any) -> Tensor:
    return operations.unary("square")(call, operations.subtract(call, a, b))


def over_axes(function: Callable[[Call, Tensor, Any, bool], Tensor]) -> Rule:
    """A reduction over constant axes."""

    def rule(op: Operation) -> Value:
        x, keep = op.value(0), bool(op.option("keepDims", False))
        axes = {int(axis) % x.rank for axis in np.reshape(op.constant(1), -1)}
        (tensor,), front = op.along([x], free=0 not in axes)
        made = function(op.call, tensor, sorted(axis + front for axis in axes), keep)
        return op.made(made, front)

    return rule


def mean(call: Call, x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Over height and width it is what Keras calls global pooling."""
    if axes != [1, 2] or x.rank != 4:
        return operations.mean(call, x, axes, keepdims)
    return call.add("GlobalAveragePooling2D", {"keepdims": keepdims}, [x])


def softmax(op: Operation) -> Value:
    """softmax(beta x) over the last axis."""
    x = op.value(0)
    (tensor,), front = op.along([x], free=x.rank > 1)
    return op.made(operations.softmax(op.call, operations.affine(op.call, tensor, op.option("beta", 1.0))), front)


def over_last(function: Callable[..., Tensor], **given: Any) -> Rule:
    """An operator along the last axis."""

    def rule(op: Operation) -> Value:
        x = op.value(0)
        (tensor,), front = op.along([x], free=x.rank > 1)
        return op.made(function(op.call, tensor, **given), front)

    return rule


def leaky_relu(op: Operation) -> Value:
    return elementwise(operations.leaky_relu, slope=op.option("alpha"))(op)


def gelu(op: Operation) -> Value:
    return elementwise(operations.gelu, approximate=op.option("approximate", False))(op)


def prelu(op: Operation) -> Value:
    """One slope for every element, shared along the axes where the constant has size 1."""
    x = op.value(0)
    shape = _padded(op.constant(1).shape, x.rank)
    (tensor,), front = op.along([x], free=shape[:1] == (1,))
    slopes = op.constant(1).reshape(shape[1 - front :])
    shared = [axis for axis, size in enumerate(slopes.shape, 1) if size == 1]
    made = op.call.add("PReLU", {"shared_axes": shared}, [tensor], weights={"alpha": slopes}, shape=tensor.shape)
    return op.made(made, front)


def add_n(op: Operation) -> Value:
    tensors, front = op.along([op.value(place) for place in range(len(op.inputs))], free=True)
    return op.made(operations.add_all(op.call, tensors), front)


def cast(op: Operation) -> Value:
    """Between kinds of whole numbers: nothing; of others to whole numbers: what lies behind the point is cut off."""
    x, dtype = op.value(0), DTYPES[op.option("outDataType")]
    if x.tensor.dtype == "bool":
        raise op.refuse("it casts truth values")
    if dtype.startswith("float"):
        if op.call.flattener.is_count(x.tensor):
            raise op.refuse("it makes quantities of computed integers")
        return Value(operations.cast(op.call, x.tensor, "float32"), x.shape)
    if not dtype.startswith("int"):
        raise op.refuse(f"it casts to {dtype}")
    if not x.tensor.is_float:
        return x
    return Value(op.call.add("Cast", {}, [x.tensor], shape=x.tensor.shape, dtype="int32"), x.shape)


def activated(op: Operation, value: Value) -> Value:
    """With the activation that the operator's options fuse onto it."""
    name = _FUSED[op.option("fusedActivationFunction")]
    if name == "NONE":
        return value
    if name not in _ACTIVATIONS:
        raise op.refuse(f"no rule is known for its fused activation {name}")
    return dataclasses.replace(value, tensor=_ACTIVATIONS[name](op.call, value.tensor))


def _clip(low: float, high: float) -> Callable[[Call, Tensor], Tensor]:
    return lambda call, x: operations.clip(call, x, low, high)


_ACTIVATIONS: Mapping[str, Callable[[Call, Tensor], Tensor]] = {
    "RELU": operations.relu,
    "RELU6": operations.relu6,
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "RELU_0_TO_1": _clip(0.0, 1.0),
    "TANH": operations.named("Tanh"),
}
_FUNCTIONS = "ABS CEIL COS EXP FLOOR LOG RSQRT SIGN SIN SQRT SQUARE"
RULES: Mapping[str, Rule] = {
    **{name: elementwise(function) for name, function in _ACTIVATIONS.items()},
    **{name: elementwise(operations.unary(name.lower())) for name in _FUNCTIONS.split()},
    "ADD": binary(operations.add),
    "SUB": binary(operations.subtract),
    "MUL": binary(operations.multiply),
    "DIV": binary(operations.divide),
    "POW": binary(operations.power),
    "MAXIMUM": binary(operations.maximum),
    "MINIMUM": binary(operations.minimum),
    "SQUARED_DIFFERENCE": binary(squared_difference),
    "ADD_N": add_n,
    "NEG": elementwise(operations.negative),
    "LOGISTIC": elementwise(operations.named("Sigmoid")),
    "HARD_SWISH": elementwise(operations.named("HardSwish")),
    "ELU": elementwise(operations.elu),
    "LEAKY_RELU": leaky_relu,
    "GELU": gelu,
    "PRELU": prelu,
    "SOFTMAX": softmax,
    "LOG_SOFTMAX": over_last(operations.log_softmax),
    "L2_NORMALIZATION": over_last(operations.l2_normalize, axis=-1, epsilon=0.0),
    "MEAN": over_axes(mean),
    "SUM": over_axes(operations.total),
    "REDUCE_MAX": over_axes(operations.largest),
    "CAST": cast,
}
