"""Operators (`a + b`, `tf.nn.relu6`, `keras.ops.reshape`, ...) as nodes of the graph.

Each function adds the nodes of one operator to a `Call` and returns its output. An operand is a
`Tensor` or a constant, which becomes an `Affine` node. `ROWS` say what either framework calls them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfq.models.flatten import Call, OperatorRow, Tensor

Value = Any  # a Tensor, a number or an array
_LARGEST_EPSILON = 1e-6  # of a norm
_NOTHING = -1e30  # as good as -inf, of which some masks are made


def _constant(call: Call, value: Any, like: Tensor) -> np.ndarray:
    """A constant operand with as many axes as a sample of `like` has."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise call.refuse(f"its operand is {value!r}, not a tensor or a number")
    if not like.is_float:
        raise call.refuse(f"it computes on {like.dtype} values", "cast them to float32 first")
    shape = (1,) * (like.rank - array.ndim) + array.shape
    if (
        like.rank < 2
        or len(shape) > like.rank
        or any(s not in (1, n) for s, n in zip(shape, (1, *like.sample), strict=True))
    ):
        raise call.refuse(f"its constant of shape {list(array.shape)} does not fit {list(like.shape)}", "reshape it")
    return array.reshape(shape[1:])


def affine(call: Call, x: Tensor, scale: Any = 1.0, offset: Any = 0.0) -> Tensor:
    """x * scale + offset; no node for x * 1 + 0. A constant that differs between positions: on the flattened sample."""
    arrays = {"scale": _constant(call, scale, x), "offset": _constant(call, offset, x)}
    arrays["offset"] = np.where(np.isneginf(arrays["offset"]), _NOTHING, arrays["offset"])
    if (arrays["scale"] == 1).all() and not arrays["offset"].any():
        return x
    everywhere = all(a.size == a.shape[-1] for a in arrays.values())
    shape = x.sample[-1:] if everywhere else x.sample
    weights = {n: np.broadcast_to(a.reshape(-1) if everywhere else a, shape).astype("float32").reshape(-1)
               for n, a in arrays.items()}  # fmt: skip
    if everywhere:
        return call.add("Affine", {}, [x], weights=weights, shape=x.shape)
    line = reshape(call, x, (None, x.sample_size))
    return reshape(call, call.add("Affine", {}, [line], weights=weights, shape=line.shape), x.shape)


def _layer(call: Call, kind: str, a: Tensor, b: Tensor) -> Tensor:
    if a.rank != b.rank:
        raise call.refuse(f"its operands have the ranks {a.rank} and {b.rank}", "reshape them to one rank")
    try:
        shape = np.broadcast_shapes(a.sample, b.sample)
    except ValueError:
        raise call.refuse(f"its operands have the shapes {list(a.shape)} and {list(b.shape)}") from None
    return call.add(kind, {}, [a, b], shape=(None, *shape))


def add(call: Call, a: Value, b: Value) -> Tensor:
    if not isinstance(a, Tensor):
        a, b = b, a
    return _layer(call, "Add", a, b) if isinstance(b, Tensor) else affine(call, a, 1.0, b)


def add_all(call: Call, xs: Sequence[Tensor]) -> Tensor:
    return call.add("Add", {}, xs, shape=xs[0].shape)


def negative(call: Call, x: Tensor) -> Tensor:
    return affine(call, x, -1.0)


def subtract(call: Call, a: Value, b: Value) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _layer(call, "Subtract", a, b)
    return affine(call, a, 1.0, -np.asarray(b)) if isinstance(a, Tensor) else affine(call, b, -1.0, a)


def multiply(call: Call, a: Value, b: Value) -> Tensor:
    if not isinstance(a, Tensor):
        a, b = b, a
    return _layer(call, "Multiply", a, b) if isinstance(b, Tensor) else affine(call, a, b)


def divide(call: Call, a: Value, b: Value) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _layer(call, "Divide", a, b)
    if isinstance(a, Tensor):
        if not np.all(b):
            raise call.refuse("it divides by zero")
        return affine(call, a, 1.0 / np.asarray(b, "float64"))
    return affine(call, unary("reciprocal")(call, b), a)


def power(call: Call, a: Value, b: Value) -> Tensor:
    """a ** b for the constant exponents 1, 2, 0.5, -0.5 and -1."""
    functions = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if isinstance(a, Tensor) and not isinstance(b, Tensor) and np.size(b) == 1:
        exponent = float(np.asarray(b).reshape(()))
        if exponent == 1.0:
            return a
        if exponent in functions:
            return unary(functions[exponent])(call, a)
    raise call.refuse(f"no rule is known for the exponent {b if not isinstance(b, Tensor) else 'tensor'}")


def _ordered(a: Value, b: Value) -> tuple[Tensor, Any]:
    return (a, b) if isinstance(a, Tensor) else (b, a)


def maximum(call: Call, a: Value, b: Value) -> Tensor:
    """max(a, b); with a constant c: relu(x - c) + c; x itself where c is minus infinity."""
    a, b = _ordered(a, b)
    if isinstance(b, Tensor):
        return _layer(call, "Maximum", a, b)
    if np.all(np.asarray(b) < _NOTHING):
        return a
    return affine(call, relu(call, affine(call, a, 1.0, -np.asarray(b))), 1.0, b)


def minimum(call: Call, a: Value, b: Value) -> Tensor:
    """min(a, b); with a constant c: c - relu(c - x); x itself where c is infinity."""
    a, b = _ordered(a, b)
    if isinstance(b, Tensor):
        return _layer(call, "Minimum", a, b)
    if np.all(np.asarray(b) > -_NOTHING):
        return a
    return affine(call, relu(call, affine(call, a, -1.0, b)), -1.0, b)


def clip(call: Call, x: Tensor, low: Any, high: Any) -> Tensor:
    """min(max(x, low), high) for numbers low < high."""
    if isinstance(low, Tensor) or isinstance(high, Tensor) or np.size(low) != 1 or np.size(high) != 1:
        raise call.refuse("its limits are not numbers", "clip to two numbers")
    low, high = float(np.asarray(low).reshape(())), float(np.asarray(high).reshape(()))
    if not low < high:
        raise call.refuse(f"it clips to [{low}, {high}]")
    return affine(call, relu(call, affine(call, x, 1.0, -low), high - low), 1.0, low)


def relu(call: Call, x: Tensor, max_value: float | None = None, slope: float = 0.0, threshold: float = 0.0) -> Tensor:
    config = {"max_value": max_value, "negative_slope": slope, "threshold": threshold}
    return call.add("ReLU", config, [x], shape=x.shape)


def relu6(call: Call, x: Tensor) -> Tensor:
    return relu(call, x, 6.0)


def hard_sigmoid_sixth(call: Call, x: Tensor) -> Tensor:
    """relu6(x + 3) / 6: Keras 3's hard_sigmoid."""
    return affine(call, relu6(call, affine(call, x, 1.0, 3.0)), 1.0 / 6.0)


def hard_sigmoid_fifth(call: Call, x: Tensor) -> Tensor:
    """clip(0.2 x + 0.5, 0, 1): tf_keras' hard_sigmoid."""
    return relu(call, affine(call, x, 0.2, 0.5), 1.0)


def named(kind: str, **config: Any) -> Callable[..., Tensor]:
    """An element-wise layer of fixed configuration."""

    def operation(call: Call, x: Tensor) -> Tensor:
        if not x.is_float:
            raise call.refuse(f"it computes on {x.dtype} values", "cast them to float32 first")
        return call.add(kind, config, [x], shape=x.shape)

    return operation


def unary(function: str) -> Callable[..., Tensor]:
    return named("Unary", function=function)


def activation(name: str) -> Callable[..., Tensor]:
    return named("Activation", activation=name)


def silu(call: Call, x: Tensor, beta: float = 1.0) -> Tensor:
    if beta != 1.0:
        raise call.refuse(f"silu with beta={beta}", "use beta=1")
    return activation("swish")(call, x)


def leaky_relu(call: Call, x: Tensor, slope: float = 0.2) -> Tensor:
    return named("LeakyReLU", alpha=float(slope))(call, x)


def elu(call: Call, x: Tensor, alpha: float = 1.0) -> Tensor:
    return named("ELU", alpha=float(alpha))(call, x)


def gelu(call: Call, x: Tensor, approximate: bool = False) -> Tensor:
    return named("Gelu", approximate=bool(approximate))(call, x)


def softmax(call: Call, x: Tensor, axis: int | None = -1) -> Tensor:
    axis = -1 if axis is None else axis
    positive_axis(call, x, axis)
    return named("Softmax", axis=axis)(call, x)


def log_softmax(call: Call, x: Tensor, axis: int | None = -1) -> Tensor:
    if axis not in (None, -1, x.rank - 1):
        raise call.refuse(f"log_softmax over axis {axis}", "use the last axis")
    return unary("log_softmax")(call, x)


def l2_normalize(call: Call, x: Tensor, axis: Any, epsilon: float | None, order: int = 2) -> Tensor:
    """x / |x|; an `epsilon` that keeps a norm of 0 from dividing is as good as another."""
    if order != 2 or (epsilon or 0.0) > _LARGEST_EPSILON:
        raise call.refuse(f"it normalises to order {order} with epsilon={epsilon}", "use order 2 and a small epsilon")
    return named("UnitNormalization", axis=list(_axes(call, x, axis)))(call, x)


def positive_axis(call: Call, x: Tensor, axis: int, rank: int | None = None) -> int:
    """`axis` counted from the front; the batch axis is refused."""
    rank = x.rank if rank is None else rank
    found = int(axis) + rank if axis < 0 else int(axis)
    if not 0 < found < rank:
        raise call.forbid(f"it works along axis {axis}, the batch axis or none", "keep the samples of a batch apart")
    return found


def reshape(call: Call, x: Tensor, target: Sequence[Any]) -> Tensor:
    """`target` has the batch axis; its first entry (None, -1 or the batch size) must keep the samples apart."""
    sizes = [-1 if size is None else int(size) for size in target]
    rest = sizes[1:]
    if rest.count(-1) == 1:
        rest[rest.index(-1)] = x.sample_size // max(1, -math.prod(rest))
    first = sizes[0] if sizes else 0
    if first not in (-1, call.flattener.batch) or math.prod(rest) != x.sample_size or min(rest, default=0) < 0:
        raise call.forbid(
            f"it reshapes {list(x.shape)} to {list(target)}, which mixes the samples of a batch",
            "keep the batch axis first",
        )
    if (None, *rest) == x.shape:
        return x
    return call.add("Reshape", {"target_shape": tuple(rest)}, [x], shape=(None, *rest))


def _axes(call: Call, x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        raise call.forbid("it reduces over the batch axis", "name the axes, without axis 0")
    return tuple(sorted(positive_axis(call, x, int(a)) for a in np.reshape(axis, -1)))


def _reduced(x: Tensor, axes: Sequence[int], keepdims: bool) -> tuple[int | None, ...]:
    return tuple(1 if i in axes else size for i, size in enumerate(x.shape) if keepdims or i not in axes)


def mean(call: Call, x: Tensor, axis: Any, keepdims: bool = False) -> Tensor:
    axes, keepdims = _axes(call, x, axis), bool(keepdims)
    return call.add("Mean", {"axes": axes, "keepdims": keepdims}, [x], shape=_reduced(x, axes, keepdims))


def total(call: Call, x: Tensor, axis: Any, keepdims: bool = False) -> Tensor:
    """The sum: mean times count."""
    count = math.prod(x.shape[a] or 1 for a in _axes(call, x, axis))
    return affine(call, mean(call, x, axis, keepdims), float(count))


def largest(call: Call, x: Tensor, axis: Any, keepdims: bool = False) -> Tensor:
    """The maximum; over other axes than height and width, of an image in which they are the width."""
    axes, keepdims = _axes(call, x, axis), bool(keepdims)
    shape = _reduced(x, axes, keepdims)
    if axes == tuple(range(1, x.rank - 1)) and x.rank in (3, 4):
        return call.add(f"GlobalMaxPooling{x.rank - 2}D", {"keepdims": keepdims}, [x], shape=shape)
    first, end = axes[0] - 1, axes[-1]
    if axes != tuple(range(first + 1, end + 1)):
        raise call.refuse(f"it takes the maximum over axes {list(axes)} of {list(x.shape)}", "take neighbouring axes")
    rows, size, channels = (math.prod(part) for part in (x.sample[:first], x.sample[first:end], x.sample[end:]))
    image = reshape(call, x, (None, rows, size, channels))
    window = {"pool_size": (1, size), "strides": (1, size), "padding": "valid"}
    pooled = call.add("MaxPooling2D", window, [image], shape=(None, rows, 1, channels))
    return reshape(call, pooled, shape)


def identity(call: Call, x: Tensor) -> Tensor:  # noqa: ARG001
    return x


def cast(call: Call, x: Tensor, dtype: str) -> Tensor:
    """To the same kind of number: nothing; integers to float: Rescaling by 1."""
    if dtype == x.dtype or (dtype.startswith(("float", "bfloat")) and x.is_float):
        return x
    if not dtype.startswith(("float", "bfloat")):
        raise call.refuse(f"it casts {x.dtype} to {dtype}", "let the model's input have that dtype")
    return call.add("Rescaling", {"scale": 1.0}, [x], shape=x.shape, dtype="float32")


def matmul(call: Call, a: Value, b: Value, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """a @ b; by a constant matrix: a Dense layer."""
    if isinstance(a, Tensor) and not isinstance(b, Tensor) and np.ndim(b) == 2 and not transpose_a:
        kernel = np.asarray(b, "float32")
        kernel = kernel.T if transpose_b else kernel
        config = {"units": kernel.shape[1], "activation": "linear", "use_bias": False}
        return call.add("Dense", config, [a], weights={"kernel": kernel}, shape=(*a.shape[:-1], kernel.shape[1]))
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        raise call.refuse("it multiplies by a constant that is not a matrix on the right", "use a Dense layer")
    if a.rank != b.rank or a.rank < 3:
        raise call.refuse(f"it multiplies {list(a.shape)} by {list(b.shape)}", "give both the same rank, 3 or more")
    rows, columns = a.shape[-1 if transpose_a else -2], b.shape[-2 if transpose_b else -1]
    outer = np.broadcast_shapes(a.sample[:-2], b.sample[:-2])
    config = {"transpose_a": bool(transpose_a), "transpose_b": bool(transpose_b)}
    return call.add("MatMul", config, [a, b], shape=(None, *outer, rows, columns))


_STRANGE = "adjoint_a adjoint_b a_is_sparse b_is_sparse output_type"


def plain_matmul(call: Call, a: Value, b: Value, transpose_a: bool, transpose_b: bool, *strange: Any) -> Tensor:
    """tf.linalg.matmul; `strange` are its options of the names above."""
    for name, value in zip(_STRANGE.split(), strange, strict=True):
        if value:
            raise call.refuse(f"matmul with {name}", "use transpose_a and transpose_b")
    return matmul(call, a, b, transpose_a, transpose_b)


def resize(
    call: Call, x: Tensor, size: Any, method: str | int, keeps_ratio: bool | None, antialias: bool | None
) -> Tensor:
    """tf.image.resize; TensorFlow 1 counts its methods."""
    if keeps_ratio or antialias:
        raise call.refuse("it resizes with antialias or preserve_aspect_ratio", "use tf.image.resize without them")
    interpolation = {"0": "bilinear", "1": "nearest"}.get(str(method), str(method).lower())
    if x.rank != 4 or interpolation not in ("nearest", "bilinear"):
        raise call.refuse(f"it resizes {list(x.shape)} by {interpolation}", "use bilinear or nearest")
    height, width = (int(s) for s in np.reshape(size, -1))
    config = {"height": height, "width": width, "interpolation": interpolation}
    return call.add("Resizing", config, [x], shape=(None, height, width, x.shape[-1]))


def pool(kind: str) -> Callable[..., Tensor]:
    """Of "MaxPooling2D" or "AveragePooling2D"."""

    def operation(call: Call, x: Tensor, size: Any, strides: Any, padding: str) -> Tensor:
        pair = [tuple(int(v) for v in np.broadcast_to(np.reshape(p, -1)[-3:-1] if np.size(p) == 4 else p, 2))
                for p in (size, size if strides is None else strides)]  # fmt: skip
        return call.add(kind, {"pool_size": pair[0], "strides": pair[1], "padding": padding.lower()}, [x])

    return operation


_UNARY = "ceil cos erf exp expm1 floor log log_sigmoid reciprocal rsqrt sign sin sqrt square"
_RESIZE = "images size method preserve_aspect_ratio antialias"
_POOL = "input ksize strides padding"
ROWS = (
    OperatorRow(add, {"Add": "x1 x2"}, {"math.add": "x y", "__operators__.add": "x y", "nn.bias_add": "value bias"}),
    OperatorRow(add_all, {}, {"math.add_n": "inputs"}),
    OperatorRow(subtract, {"Subtract": "x1 x2"}, {"math.subtract": "x y"}),
    OperatorRow(multiply, {"Multiply": "x1 x2"}, {"math.multiply": "x y"}),
    OperatorRow(divide, {"Divide": "x1 x2", "TrueDivide": "x1 x2"}, {"math.divide": "x y", "math.truediv": "x y"}),
    OperatorRow(power, {"Power": "x1 x2"}, {"math.pow": "x y"}),
    OperatorRow(negative, {"Negative": "x"}, {"math.negative": "x"}),
    OperatorRow(maximum, {"Maximum": "x1 x2"}, {"math.maximum": "x y"}),
    OperatorRow(minimum, {"Minimum": "x1 x2"}, {"math.minimum": "x y"}),
    OperatorRow(clip, {"Clip": "x x_min x_max"}, {"clip_by_value": "t clip_value_min clip_value_max"}),
    OperatorRow(matmul, {"Matmul": "x1 x2"}, {}),
    OperatorRow(plain_matmul, {}, {"linalg.matmul": f"a b transpose_a transpose_b {_STRANGE}"}),
    OperatorRow(relu, {"Relu": "x", "ReLU": "x max_value negative_slope threshold"}, {"nn.relu": "features"}),
    OperatorRow(relu6, {"Relu6": "x"}, {"nn.relu6": "features"}),
    OperatorRow(leaky_relu, {"LeakyRelu": "x negative_slope"}, {"nn.leaky_relu": "features alpha"}),
    OperatorRow(elu, {"Elu": "x alpha"}, {"nn.elu": "features"}),
    OperatorRow(activation("selu"), {"Selu": "x"}, {"nn.selu": "features"}),
    OperatorRow(activation("mish"), {"Mish": "x"}, {}),
    OperatorRow(silu, {"Silu": "x"}, {"nn.silu": "features beta"}),
    OperatorRow(named("HardSwish"), {"HardSilu": "x"}, {}),
    OperatorRow(hard_sigmoid_sixth, {"HardSigmoid": "x"}, {}),
    OperatorRow(gelu, {"Gelu": "x approximate"}, {"nn.gelu": "features approximate"}),
    OperatorRow(named("Sigmoid"), {"Sigmoid": "x"}, {"math.sigmoid": "x"}),
    OperatorRow(named("Tanh"), {"Tanh": "x"}, {"math.tanh": "x"}),
    OperatorRow(softmax, {"Softmax": "x axis"}, {"nn.softmax": "logits axis"}),
    OperatorRow(log_softmax, {"LogSoftmax": "x axis"}, {"nn.log_softmax": "logits axis"}),
    OperatorRow(l2_normalize, {"Normalize": "x axis epsilon order"}, {"math.l2_normalize": "x axis|dim epsilon"}),
    OperatorRow(unary("abs"), {"Abs": "x", "Absolute": "x"}, {"math.abs": "x"}),
    OperatorRow(unary("log1p"), {"Log1p": "x"}, {"math.log1p": "x"}),
    OperatorRow(unary("softplus"), {"Softplus": "x"}, {"math.softplus": "features", "nn.softplus": "features"}),
    OperatorRow(unary("softsign"), {"Softsign": "x"}, {"math.softsign": "features", "nn.softsign": "features"}),
    *(OperatorRow(unary(f), {f.title().replace("_", ""): "x"}, {f"math.{f}": "x"}) for f in _UNARY.split()),
    OperatorRow(reshape, {"Reshape": "x newshape"}, {"reshape": "tensor shape"}),
    OperatorRow(mean, {"Mean": "x axis keepdims"}, {"math.reduce_mean": "input_tensor axis keepdims"}),
    OperatorRow(total, {"Sum": "x axis keepdims"}, {"math.reduce_sum": "input_tensor axis keepdims"}),
    OperatorRow(
        largest,
        {"Max": "x axis keepdims", "Amax": "x axis keepdims"},
        {"math.reduce_max": "input_tensor axis keepdims"},
    ),
    OperatorRow(identity, {"StopGradient": "variable", "Copy": "x"}, {"identity": "input", "stop_gradient": "input"}),
    OperatorRow(cast, {"Cast": "x dtype"}, {"cast": "x dtype"}),
    OperatorRow(resize, {}, {"image.resize": _RESIZE, "compat.v1.image.resize": _RESIZE}),
    OperatorRow(pool("MaxPooling2D"), {}, {"nn.max_pool2d": _POOL}),
    OperatorRow(pool("AveragePooling2D"), {}, {"nn.avg_pool2d": _POOL}),
)
