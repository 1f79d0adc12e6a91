"""TFLite's integer kernels in NumPy, to the bit: the oracle of the tests of the numbers.

Sources, in tensorflow/lite/kernels/internal: quantization_util.cc, common.h, reference/integer_ops/; Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tfq.numerics import reference


def quantize_bias(bias: np.ndarray, input_scale: float, weight_scales: np.ndarray) -> np.ndarray:
    """Float biases [channels] -> int32 codes."""
    limits = np.iinfo(np.int32)
    scale = np.broadcast_to(reference.bias_scale(input_scale, weight_scales), np.shape(bias)).astype(np.float64)
    return np.clip(reference.round_half_away(np.asarray(bias, np.float64) / scale), limits.min, limits.max).astype(
        np.int32
    )


def quantize_multiplier(real: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Real multipliers > 0 -> (int32 multiplier in [2^30, 2^31), shift): real ~ multiplier * 2^(shift - 31)."""
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    multiplier = reference.round_half_away(np.ldexp(fraction, 31)).astype(np.int64)
    carry = multiplier == 2**31
    multiplier, shift = np.where(carry, 2**30, multiplier), shift + carry
    multiplier, shift = np.where(shift < -31, 0, multiplier), np.where(shift < -31, 0, shift)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def multiply_by_quantized_multiplier(accumulator: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """round(accumulator * multiplier * 2^(shift - 31)) in integers, rounding twice as TFLite's kernels do.

    First the high 32 bits of the doubled product, rounded half up (gemmlowp's
    SaturatingRoundingDoublingHighMul), then a right shift, rounded half away from zero.
    """
    left, right = np.maximum(shift, 0).astype(np.int64), np.maximum(-shift, 0).astype(np.int64)
    product = (accumulator.astype(np.int64) << left) * multiplier.astype(np.int64)
    nudge = np.where(product >= 0, 2**30, 1 - 2**30)
    doubled = product + nudge
    high = np.where(doubled >= 0, doubled >> 31, -((-doubled) >> 31))
    remainder = high & ((1 << right) - 1)
    threshold = (((1 << right) - 1) >> 1) + (high < 0)
    return ((high >> right) + (remainder > threshold)).astype(np.int32)


def requantize(
    accumulator: np.ndarray,
    input_scale: float,
    weight_scales: np.ndarray,
    output_scale: float,
    output_zero_point: int,
    qmin: int = -128,
    qmax: int = 127,
) -> np.ndarray:
    """int32 accumulators [..., channels] of scale s_x * s_w -> int8 codes of the output in [qmin, qmax]."""
    real = np.float64(input_scale) * np.asarray(weight_scales, np.float64) / np.float64(output_scale)
    multiplier, shift = quantize_multiplier(real)
    codes = multiply_by_quantized_multiplier(accumulator, multiplier, shift).astype(np.int64) + output_zero_point
    return np.clip(codes, qmin, qmax).astype(np.int8)


def _patches(x: np.ndarray, kernel: tuple[int, int], strides: tuple[int, int], padding: str, fill: int) -> np.ndarray:
    """NHWC codes -> int32 windows [batch, rows, columns, channels, kernel height, kernel width]."""
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding (={padding!r}) must be SAME or VALID")
    margins = [(0, 0)]
    for size, width, stride in zip(x.shape[1:3], kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0) if padding == "SAME" else 0
        margins.append((total // 2, total - total // 2))
    padded = np.pad(x.astype(np.int32), [*margins, (0, 0)], constant_values=fill)
    return sliding_window_view(padded, kernel, axis=(1, 2))[:, :: strides[0], :: strides[1]]


def conv2d_accumulate(
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int,
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
) -> np.ndarray:
    """int32 accumulators of CONV_2D: codes x [N,H,W,I], kernel [h,w,I,O] (Keras layout), bias int32 [O]."""
    windows = _patches(x, kernel.shape[:2], strides, padding, zero_point) - zero_point
    return np.einsum("nhwiab,abio->nhwo", windows, kernel.astype(np.int32)) + bias.astype(np.int32)


def depthwise_accumulate(
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int,
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
) -> np.ndarray:
    """int32 accumulators of DEPTHWISE_CONV_2D: codes x [N,H,W,C], kernel [h,w,C,1] (Keras layout), bias int32 [C]."""
    windows = _patches(x, kernel.shape[:2], strides, padding, zero_point) - zero_point
    return np.einsum("nhwcab,abc->nhwc", windows, kernel[..., 0].astype(np.int32)) + bias.astype(np.int32)


def dense_accumulate(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, *, zero_point: int) -> np.ndarray:
    """int32 accumulators of FULLY_CONNECTED: codes x [N,I], kernel [I,O] (Keras layout), bias int32 [O]."""
    return (x.astype(np.int32) - zero_point) @ kernel.astype(np.int32) + bias.astype(np.int32)
