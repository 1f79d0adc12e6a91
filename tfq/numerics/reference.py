"""Quantisers in NumPy: the meaning of every integer in a .tflite file.

Equation: real = scale * (code - zero_point);  code = round(clip(real) / scale) + zero_point.

`quantize` repeats the float32 arithmetic of `tf.quantization.fake_quant_*`, which rounds halves up
and, with one scale per channel, multiplies by the reciprocal where it divides with a single scale.
TFLiteConverter passes weights through those very kernels before it stores them, so the codes are
those of the .tflite file, to the bit. Biases are rounded half away from zero in float64, as TFLite
does.

Scales made here have so few significant bits that scale * (code - zero_point) is exact in float32.
The [min, max] handed to a fake-quant op is then exactly the grid's, and the op and the converter both
derive the same scale and zero-point from it, to the bit. The bits left out are zeros in the file, in
every weight's scale and in every bias', which is the product of two: small nets have a tenth of their
download in these. So few are kept as moves the largest code by 1/16 of a step (weights, symmetric) or
1/4 (activations: a scale of 1 / 255 still gives a pixel its own number) at most.

Sources: tensorflow/core/kernels/fake_quant_ops_functor.h; in tensorflow/lite/kernels/internal:
quantization_util.cc;
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_NARROW_BITS = 8  # and more: symmetric grids have as many codes below 0 as above it
_SIGNIFICAND_BITS = 24  # of float32, the leading one included
_WEIGHT_SCALE_BITS, _ACTIVATION_SCALE_BITS = 4, 3  # significant ones beside those of the codes
_SMALLEST_SCALE = np.float32(2.0**-100)  # keeps the products of scales normal numbers


def integer_range(bits: int, *, symmetric: bool, narrow: bool = False) -> tuple[int, int]:
    """Smallest and largest code: [-2^(bits-1), 2^(bits-1) - 1]; of 8 bits or more symmetric grids lack the lowest.

    TFLite demands -127..127 of 8-bit weights. With fewer bits no code can be spared: of 3 bits it is one in eight.
    `narrow`: it lacks the lowest all the same.
    """
    half = 2 ** (bits - 1)
    return (-half + 1 if symmetric and (narrow or bits >= _NARROW_BITS) else -half), half - 1


def round_half_away(x: np.ndarray | float) -> np.ndarray:
    """C's `round`: to the nearest integer, halves away from zero; float64."""
    x = np.asarray(x, np.float64)
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= 0.5, np.copysign(1.0, x), 0.0)


def along_axis(values: np.ndarray | float, ndim: int, axis: int | None) -> np.ndarray:
    """`values` (one, or one per channel of `axis`) shaped to broadcast against an array of `ndim` axes."""
    values = np.asarray(values)
    if axis is None:
        return values.reshape(())
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def quantize(
    x: np.ndarray,
    scale: np.ndarray | float,
    zero_point: np.ndarray | int,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> np.ndarray:
    """Real values -> int32 codes in [qmin, qmax]; `scale` and `zero_point` hold one value per channel of `axis`."""
    x = np.asarray(x, np.float32)
    step = along_axis(np.asarray(scale, np.float32), x.ndim, axis)
    zero = np.asarray(zero_point, np.float32)
    zero = along_axis(zero, x.ndim, axis if zero.size > 1 else None)
    low, high = step * (np.float32(qmin) - zero), step * (np.float32(qmax) - zero)
    shifted = np.clip(x, low, high) - low
    steps = shifted / step if axis is None else shifted * (np.float32(1) / step)
    codes = np.floor(steps - (zero - np.float32(qmin)) + np.float32(0.5)) + zero
    return np.clip(codes, qmin, qmax).astype(np.int32)


def dequantize(
    codes: np.ndarray, scale: np.ndarray | float, zero_point: np.ndarray | int, axis: int | None = None
) -> np.ndarray:
    """Codes -> float32 real values."""
    codes = np.asarray(codes)
    zero = np.asarray(zero_point, np.int32)
    zero = along_axis(zero, codes.ndim, axis if zero.size > 1 else None)
    step = along_axis(np.asarray(scale, np.float32), codes.ndim, axis)
    return (codes.astype(np.promote_types(codes.dtype, np.int32)) - zero).astype(np.float32) * step


def fake_quantize(
    x: np.ndarray,
    scale: np.ndarray | float,
    zero_point: np.ndarray | int,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> np.ndarray:
    """The nearest float32 values on the grid."""
    return dequantize(quantize(x, scale, zero_point, qmin, qmax, axis), scale, zero_point, axis)


def activation_scale(scale: np.ndarray | float, bits: int) -> np.ndarray:
    """The next scale of bits + 3 significant bits."""
    return _of_few_bits(scale, bits, _ACTIVATION_SCALE_BITS, np.ceil)


def weight_scale(scale: np.ndarray | float, bits: int) -> np.ndarray:
    """The next scale of bits + 4 significant bits, at most 2^-(3+bits) of it larger."""
    return _of_few_bits(scale, bits, _WEIGHT_SCALE_BITS, np.ceil)


def nearest_weight_scale(scale: np.ndarray | float, bits: int) -> np.ndarray:
    """The nearest such scale, at most 2^-(4+bits) away: where the codes are found for it or are fixed already."""
    return _of_few_bits(scale, bits, _WEIGHT_SCALE_BITS, np.rint)


def _of_few_bits(
    scale: np.ndarray | float, bits: int, more: int, rounded: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A scale of bits + more significant bits, or as many as leave its multiples by codes of `bits` exact."""
    significant = min(bits + more, _SIGNIFICAND_BITS - bits)
    fraction, exponent = np.frexp(np.maximum(np.asarray(scale, np.float64), _SMALLEST_SCALE))
    return np.ldexp(rounded(np.ldexp(fraction, significant)), exponent - significant).astype(np.float32)


def asymmetric_grids(low: np.ndarray, high: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale float32 [n] and zero-point int32 [n] of the asymmetric grid for each range [low, high].

    The range is widened to contain 0; the zero-point is rounded, so that 0.0 has a code, and the
    range moves by up to half a step ("nudging"). A range of width 0 becomes [0, 1].

    Args:
      low, high: real ranges [n]; finite, low <= high.
      bits: grid bits; codes are [-2^(bits-1), 2^(bits-1) - 1].
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise ValueError(f"a range must be finite and ordered, got {low} to {high}")
    qmin, qmax = integer_range(bits, symmetric=False)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    high = np.where(high > low, high, 1.0)
    scale = activation_scale((high - low) / (qmax - qmin), bits)
    zero_point = np.clip(round_half_away(qmin - low / scale.astype(np.float64)), qmin, qmax)
    return scale, zero_point.astype(np.int32)


def asymmetric_parameters(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale (a float32 value) and zero-point of the grid for one range: see `asymmetric_grids`."""
    scale, zero_point = asymmetric_grids(np.array([low]), np.array([high]), bits)
    return float(scale[0]), int(zero_point[0])


def real_range(scale: np.ndarray | float, zero_point: int, qmin: int, qmax: int) -> tuple[np.ndarray, np.ndarray]:
    """[min, max] of the grid in float32: what a fake-quant op takes. Exact for scales made by this module."""
    step = np.asarray(scale, np.float32)
    return step * np.float32(qmin - zero_point), step * np.float32(qmax - zero_point)


def symmetric_scales(weights: np.ndarray, bits: int, axis: int | None = None, *, narrow: bool = False) -> np.ndarray:
    """Scales float32 [channels] (or [1] without axis), rounded up to exact ones, for which no weight is clipped.

    s = max(max w / high, min w / low)    for codes of [low, high]; of 8 bits absmax / 127

    A channel of zeros only gets the largest scale found in the tensor, so that its bias, whose scale is
    s_input * s_weight, still fits into int32.
    """
    weights, (low, high) = np.asarray(weights, np.float64), integer_range(bits, symmetric=True, narrow=narrow)
    other = tuple(i for i in range(weights.ndim) if axis is None or i != axis % weights.ndim)
    scales = np.atleast_1d(np.maximum(weights.max(axis=other) / high, weights.min(axis=other) / low))
    return weight_scale(np.where(scales > 0, scales, scales.max() or 1.0 / high), bits)


def bias_scale(input_scale: float, weight_scales: np.ndarray) -> np.ndarray:
    """s_x * s_w in float32, the scale TFLite demands of an int32 bias."""
    return np.float32(input_scale) * np.asarray(weight_scales, np.float32)
