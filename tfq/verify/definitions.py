"""What the layers of a prepared graph compute, in real arithmetic: their definitions, in NumPy float64.

Nothing of TensorFlow, of the simulation or of the export stands behind these; a convolution is a sum over its
window. Shapes have the batch axis, of size 1. Axes, paddings and weights are Keras' own (channels last, kernels
[height, width, inputs, outputs]).

Sources: Keras' documentation of its layers; Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016 (GELU); Howard et
al., "Searching for MobileNetV3", 2019, eq. 5 (hard-swish); Klambauer et al., "Self-Normalizing Neural Networks", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.pooling import place_factors

_Array = np.ndarray
_Config = Mapping[str, Any]
# The axes of a kernel in a .tflite [outputs, rows, columns, inputs], in the order in which Keras has them. A depthwise
# one is [1, rows, columns, channels * multiplier] there.
FILE_ORDER = {"Conv2D": (1, 2, 3, 0), "Conv2DTranspose": (1, 2, 0, 3), "Dense": (1, 0)}
CHANNEL_AXIS = {"Conv2D": 3, "Conv2DTranspose": 2, "Dense": 1, "DepthwiseConv2D": 2}  # of the outputs, in Keras
_HALFWAY = 1e-3  # of a step: float32 tells no better
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _erf(x: _Array) -> _Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def define(
    node: Node, inputs: Sequence[_Array], weights: Mapping[str, _Array], at: _Array | None = None
) -> _Array | None:
    """The output of `node`, fused clamp included; None where its kind or function is not defined here.

    Args:
      node: kind, configuration and clamp; its own weights are not read.
      inputs: float64 arrays [1, ...].
      weights: by Keras variable name, in the Keras layout; a subset of the output channels of a dense layer or a
        convolution gives those channels.
      at: for the kinds in WINDOWED: int [n, 2], the rows and columns of the output that are wanted. The result is
        then [n, channels].
    """
    if node.kind in WINDOWED:
        value = _windowed(node, inputs[0], weights, at)
    elif node.kind in _PLAIN:
        value = _PLAIN[node.kind](node.config, [np.asarray(x) for x in inputs], weights)
    elif node.kind == "Unary" and node.config["function"] in _UNARY:
        with np.errstate(all="ignore"):
            value = _UNARY[node.config["function"]](inputs[0])
    else:
        return None
    return value if node.activation is None else np.clip(value, 0.0, {"relu": np.inf, "relu6": 6.0}[node.activation])


def rounded(node: Node, x: _Array, *, symmetric: bool) -> tuple[_Array, _Array]:
    """(what a kernel with integer weights reads of float `x` [1, ...], a step where it may have rounded the other way).

    A row, of a convolution the whole sample, lies on a grid of its own: asymmetric over [min(0, x), max(0, x)] in 255
    steps, or `symmetric` over [-max |x|, max |x|] in 254, as the builtin kernel for INT4 weights has it.
    """
    axes = -1 if node.kind == "Dense" else tuple(range(1, x.ndim))
    low, high = (np.asarray(f(x, axis=axes, keepdims=True, initial=0.0), np.float32) for f in (np.min, np.max))
    if symmetric:
        reach = np.maximum(high, -low)
        step, zero_point = _step(reach / np.float32(127)), np.zeros_like(reach)
        limits = -127, 127
    else:
        step = _step((high - low) / np.float32(255))
        nearer = low + high > step  # the end by which the zero-point errs less
        zero_point = np.rint(np.where(nearer, -128 - low / step, 127 - high / step))
        limits = -128, 127
    steps = np.float32(x) / step
    codes = np.clip(np.rint(steps) + zero_point, *limits)
    halfway = np.abs(np.abs(steps - np.floor(steps)) - 0.5) < _HALFWAY
    return (codes - zero_point) * np.float64(step), np.where(halfway, np.float64(step), 0.0)


def _step(sizes: _Array) -> _Array:
    """Of a row of zeros: 1."""
    return np.where(sizes > 0, sizes, np.float32(1))


# --- windows -----------------------------------------------------------------------------------------------------


def output_size(node: Node, shape: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """Rows and columns that a node of WINDOWED gives for an input [1, rows, columns, channels]."""
    strides, rates, same = _geometry(node)
    found = []
    for n, k, s, d in zip(shape[1:3], kernel, strides, rates, strict=True):
        if node.kind == "Conv2DTranspose":
            found.append(n * s if same else n * s + max(k - s, 0))
        else:
            found.append(-(-n // s) if same else (n - (k - 1) * d - 1) // s + 1)
    extra = node.config.get("output_padding")
    if node.kind == "Conv2DTranspose" and extra is not None:  # Keras then counts the rows anew
        margins = [2 * (k // 2) if same else 0 for k in kernel]
        sizes = zip(shape[1:3], kernel, strides, margins, _pair(extra), strict=True)
        found = [(n - 1) * s + k - margin + e for n, k, s, margin, e in sizes]
    return found[0], found[1]


def window_of(node: Node, weights: Mapping[str, _Array]) -> tuple[int, int]:
    """Rows and columns of the window of a node of WINDOWED."""
    kernel = weights.get("kernel", weights.get("depthwise_kernel"))
    return _pair(node.config.get("pool_size", 2)) if kernel is None else (kernel.shape[0], kernel.shape[1])


def _windowed(node: Node, x: _Array, weights: Mapping[str, _Array], at: _Array | None) -> _Array:
    size = output_size(node, x.shape, window_of(node, weights))
    everywhere = at is None
    if at is None:
        at = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 2)
    outside = np.nan if "Pooling" in node.kind else 0.0  # a pooling leaves out what lies outside
    value = WINDOWED[node.kind](_patches(node, x[0], at, window_of(node, weights), size, outside), weights)
    if "bias" in weights:
        value = value + weights["bias"]
    return value.reshape(1, *size, -1) if everywhere else value


def _patches(node: Node, x: _Array, at: _Array, window: Sequence[int], size: Sequence[int], outside: float) -> _Array:
    """What the taps of the window read for each output: [n, rows, columns, channels], `outside` beyond the image."""
    strides, rates, same = _geometry(node)
    taken = []
    for axis in (0, 1):
        n, k, s, d, out = x.shape[axis], window[axis], strides[axis], rates[axis], size[axis]
        o, tap = at[:, axis, None], np.arange(k)[None]
        if node.kind == "Conv2DTranspose":  # input i adds to output i * s + tap - low
            low = max((n - 1) * s + k - out, 0) // 2 if same else 0
            whole, rest = np.divmod(o + low - tap, s)
            index = np.where((rest == 0) & (whole < n), whole, -1)
        else:
            low = max((out - 1) * s + (k - 1) * d + 1 - n, 0) // 2 if same else 0
            index = o * s + tap * d - low
            index = np.where(index < n, index, -1)
        taken.append(index)
    rows, columns = taken[0][:, :, None], taken[1][:, None, :]
    return np.where(((rows < 0) | (columns < 0))[..., None], outside, x[rows, columns])


def _geometry(node: Node) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """Strides, dilation, and whether the padding is "same"."""
    config = node.config
    default = config.get("pool_size", 2) if node.kind in ("MaxPooling2D", "AveragePooling2D") else 1
    strides = config.get("strides")
    rates = _pair(config.get("dilation_rate", 1))
    return _pair(default if strides is None else strides), rates, config.get("padding", "valid") == "same"


def _convolution(patches: _Array, weights: Mapping[str, _Array]) -> _Array:
    return patches.reshape(len(patches), -1) @ _flat(weights["kernel"])


def _transposed(patches: _Array, weights: Mapping[str, _Array]) -> _Array:
    kernel = np.swapaxes(weights["kernel"], 2, 3)  # [h, w, outputs, inputs]
    return patches.reshape(len(patches), -1) @ _flat(kernel)


def _flat(kernel: _Array) -> _Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _depthwise(patches: _Array, weights: Mapping[str, _Array]) -> _Array:
    products = patches[..., None] * weights["depthwise_kernel"]
    return products.sum((1, 2)).reshape(len(patches), -1)  # [n, channels, multiplier]: a channel's outputs lie together


WINDOWED: dict[str, Callable[[_Array, Mapping[str, _Array]], _Array]] = {
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "DepthwiseConv2D": _depthwise,
    "MaxPooling2D": lambda patches, _: np.nanmax(patches, (1, 2)),
    "AveragePooling2D": lambda patches, _: np.nanmean(patches, (1, 2)),
}


# --- all others --------------------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[int, int]:
    found = tuple(value) if isinstance(value, (list, tuple, np.ndarray)) else (value, value)
    return int(found[0]), int(found[1])


def _sides(value: Any) -> list[tuple[int, int]]:
    """Padding or cropping (before, after) of all four axes."""
    rows, columns = value if isinstance(value, (list, tuple)) else (value, value)
    return [(0, 0), _pair(rows), _pair(columns), (0, 0)]


def _cropping(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    sides = _sides(config.get("cropping", 0))
    return x[0][tuple(slice(low, n - high) for (low, high), n in zip(sides, x[0].shape, strict=True))]


def _slice(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    triples = zip(config["begin"], config["end"], config["strides"], strict=True)
    return x[0][(slice(None), *(slice(*triple) for triple in triples))]


def _matmul(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    a, b = x
    a = np.swapaxes(a, -1, -2) if config.get("transpose_a") else a
    return np.matmul(a, np.swapaxes(b, -1, -2) if config.get("transpose_b") else b)


def _dense(_: _Config, x: Sequence[_Array], weights: Mapping[str, _Array]) -> _Array:
    return x[0] @ weights["kernel"] + weights.get("bias", 0.0)


def _relu(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    limit = config.get("max_value")
    return np.clip(x[0], 0.0, np.inf if limit is None else limit)


def _average(axes: Sequence[int], keepdims: Any, x: _Array) -> _Array:
    return x.mean(tuple(axes), keepdims=bool(keepdims))


def _softmax(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    powers = _powers(x[0], config.get("axis", -1))
    return powers / powers.sum(config.get("axis", -1), keepdims=True)


def _powers(x: _Array, axis: int) -> _Array:
    return np.exp(x - x.max(axis, keepdims=True))


def _gelu(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    if config.get("approximate"):
        return 0.5 * x[0] * (1 + np.tanh(math.sqrt(2 / math.pi) * (x[0] + 0.044715 * x[0] ** 3)))
    return 0.5 * x[0] * (1 + _erf(x[0] / math.sqrt(2)))


def _upsampling(config: _Config, x: Sequence[_Array], _: Any) -> _Array:
    rows, columns = _pair(config.get("size", 2))
    if config.get("interpolation", "nearest") == "bilinear":
        return _resized(x[0], (x[0].shape[1] * rows, x[0].shape[2] * columns), "bilinear")
    return x[0].repeat(rows, 1).repeat(columns, 2)


def _resized(x: _Array, size: tuple[int, int], method: str, aligned: str = "centres") -> _Array:
    """Pixels are squares and their values lie in the middle ("half-pixel centres"); beyond the edge lies the edge.

    `aligned`: as in `tfq.models.layers.Resizing`.
    """
    for axis, wanted in zip((1, 2), size, strict=True):
        n = x.shape[axis]
        ratio = (n - 1) / max(wanted - 1, 1) if aligned == "corners" else np.float32(n) / np.float32(wanted)
        # the place is found in float32, as in Keras: where it falls between two pixels that decides
        place = (np.arange(wanted, dtype=np.float32) + np.float32(0.5 * (aligned == "centres"))) * np.float32(ratio)
        if method == "nearest":
            found = np.floor(place + np.float32(0.5 * (aligned == "corners"))).astype(int)
            x = np.take(x, np.clip(found, 0, n - 1), axis)
            continue
        place = place.astype(np.float64) - 0.5 * (aligned == "centres")
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1 if i == axis else 1 for i in range(4)])
        before, after = (np.take(x, np.clip(index, 0, n - 1), axis) for index in (low, low + 1))
        x = before * (1 - share) + after * share
    return x


def _layer_normalization(config: _Config, x: Sequence[_Array], weights: Mapping[str, _Array]) -> _Array:
    axes = tuple(int(a) for a in np.atleast_1d(config.get("axis", -1)))
    centred = x[0] - x[0].mean(axes, keepdims=True)
    value = centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + config.get("epsilon", 1e-3))
    shape = [n if i - x[0].ndim in axes or i in axes else 1 for i, n in enumerate(x[0].shape)]
    gamma, beta = (np.asarray(weights[n]).reshape(shape) if n in weights else None for n in ("gamma", "beta"))
    return value * (1.0 if gamma is None else gamma) + (0.0 if beta is None else beta)


def _sigmoid(_: _Config, x: Sequence[_Array], __: Any) -> _Array:
    return 1 / (1 + np.exp(-x[0]))


def _divide(_: _Config, x: Sequence[_Array], __: Any) -> _Array:
    with np.errstate(all="ignore"):
        return x[0] / x[1]


_PLAIN: dict[str, Callable[[_Config, Sequence[_Array], Mapping[str, _Array]], _Array]] = {
    "Dense": _dense,
    "Embedding": lambda _, x, w: w["embeddings"][x[0].astype(int)],
    "Add": lambda _, x, __: x[0] + x[1],
    "Subtract": lambda _, x, __: x[0] - x[1],
    "Multiply": lambda _, x, __: x[0] * x[1],
    "AddConstant": lambda c, x, _: x[0] + c["constant"],
    "MultiplyConstant": lambda c, x, _: x[0] * c["constant"],
    "MultiplyPlaces": lambda c, x, _: x[0] * place_factors(c),
    "Divide": _divide,
    "MatMul": _matmul,
    "Maximum": lambda _, x, __: np.maximum(x[0], x[1]),
    "Minimum": lambda _, x, __: np.minimum(x[0], x[1]),
    "GlobalAveragePooling2D": lambda c, x, _: _average((1, 2), c.get("keepdims"), x[0]),
    "GlobalMaxPooling2D": lambda c, x, _: x[0].max((1, 2), keepdims=bool(c.get("keepdims"))),
    "Mean": lambda c, x, _: _average(c["axes"], c.get("keepdims"), x[0]),
    "Requantize": lambda _, x, __: x[0],
    "ReLU": _relu,
    "LeakyReLU": lambda c, x, _: np.where(x[0] >= 0, x[0], x[0] * c.get("alpha", 0.3)),
    "PReLU": lambda _, x, w: np.where(x[0] >= 0, x[0], x[0] * w["alpha"]),
    "ELU": lambda c, x, _: np.where(x[0] > 0, x[0], c.get("alpha", 1.0) * np.expm1(np.minimum(x[0], 0))),
    "HardSwish": lambda _, x, __: x[0] * np.clip(x[0] + 3, 0, 6) / 6,
    "Gelu": _gelu,
    "FloatGelu": _gelu,
    "Sigmoid": _sigmoid,
    "FloatSigmoid": _sigmoid,
    "Tanh": lambda _, x, __: np.tanh(x[0]),
    "Softmax": _softmax,
    "FloatSoftmax": _softmax,
    "Concatenate": lambda c, x, _: np.concatenate(x, c.get("axis", -1)),
    "FloatConcatenate": lambda c, x, _: np.concatenate(x, c.get("axis", -1)),
    "Reshape": lambda c, x, _: x[0].reshape(1, *c["target_shape"]),
    "Flatten": lambda _, x, __: x[0].reshape(1, -1),
    "Permute": lambda c, x, _: np.transpose(x[0], (0, *c["dims"])),
    "ZeroPadding2D": lambda c, x, _: np.pad(x[0], _sides(c.get("padding", 1))),
    "Cropping2D": _cropping,
    "Slice": _slice,
    "UpSampling2D": _upsampling,
    "Resizing": lambda c, x, _: _resized(
        x[0], (c["height"], c["width"]), c.get("interpolation", "bilinear"), c.get("aligned", "centres")
    ),
    "LayerNormalization": _layer_normalization,
    "FloatAffine": lambda _, x, w: x[0] * w["scale"] + w["offset"],
    "Cast": lambda _, x, __: np.trunc(x[0]),
}

_UNARY: dict[str, Callable[[_Array], _Array]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": _erf,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log1p": np.log1p,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "log_softmax": lambda x: x - x.max(-1, keepdims=True) - np.log(_powers(x, -1).sum(-1, keepdims=True)),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "selu": lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "sign": np.sign,
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sqrt": np.sqrt,
    "square": np.square,
}
