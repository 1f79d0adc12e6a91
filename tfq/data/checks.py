"""Checks where data enters, and the warnings a person should read before trusting a calibration."""

from __future__ import annotations

import numpy as np

from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError

FEW_SAMPLES = 100
_NUMERIC = "fiub"


def check_dtype(dtype: np.dtype, signature: InputSignature, where: str) -> None:
    """UserError unless values of `dtype` can be numbers of the input's dtype."""
    if dtype.kind not in _NUMERIC:
        raise UserError(f"{where} has dtype {dtype}; input {signature.name!r} expects {signature.dtype}")
    if dtype.kind == "f" and np.dtype(signature.dtype).kind in "iu":
        raise UserError(
            f"{where} has dtype {dtype}; input {signature.name!r} expects whole numbers: store it as {signature.dtype}"
        )


def check_shape(shape: tuple[int, ...], signature: InputSignature, where: str) -> None:
    """UserError unless a sample of `shape` (without a batch axis) fits the input."""
    expected = signature.shape
    if tuple(shape) == expected:
        return
    hint = ""
    if (*shape, 1) == expected:
        hint = "; add the channel axis: x[..., None]"
    elif len(shape) == 3 and (shape[1], shape[2], shape[0]) == expected:
        hint = "; channels come last: np.moveaxis(x, 1, -1)"
    elif sorted(d for d in shape if d != 1) == sorted(d for d in expected if d != 1):
        hint = "; reshape or transpose it"
    raise UserError(
        f"{where} has samples of shape {tuple(shape)}; input {signature.name!r} expects {expected}{hint}"
    )


def convert(array: np.ndarray, signature: InputSignature, where: str) -> np.ndarray:
    """The array in the input's dtype; UserError where a value is NaN, infinite or does not fit."""
    dtype = np.dtype(signature.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise UserError(f"{where} has values in {array.min()}..{array.max()}; {dtype} cannot hold them")
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        kind = "NaN" if np.isnan(converted).any() else "infinite values"
        raise UserError(f"{where} has {kind} (input {signature.name!r}); remove or repair such samples")
    return converted


def warn_about(samples: Samples) -> tuple[str, ...]:
    """What makes these samples doubtful for calibration: too few, constant, or all the same."""
    warnings = []
    if len(samples) < FEW_SAMPLES:
        warnings.append(f"only {len(samples)} calibration samples; ranges are uncertain below {FEW_SAMPLES}")
    for name, array in samples.arrays.items():
        if all((row == row.flat[0]).all() for row in array) and _all_same(array):
            warnings.append(f"input {name!r} is {float(array.flat[0]):g} in every sample; is this the right data?")
        elif len(samples) > 1 and _all_same(array):
            warnings.append(f"all {len(samples)} samples of input {name!r} are identical; is this the right data?")
    return tuple(warnings)


def _all_same(array: np.ndarray) -> bool:
    return all(np.array_equal(row, array[0]) for row in array)


def compare_ranges(calibration: Samples, evaluation: Samples) -> tuple[str, ...]:
    """Warnings where calibration and evaluation data seem to be scaled differently.

    Compared are the intervals mean +- 2 standard deviations of each input, which single outliers do
    not move; a warning is given where their intersection is under half of their union.
    """
    warnings = []
    for name in calibration.arrays:
        (low, high), (other_low, other_high) = (_bulk(s.arrays[name]) for s in (calibration, evaluation))
        union = max(high, other_high) - min(low, other_low)
        if union > 0 and min(high, other_high) - max(low, other_low) < 0.5 * union:
            warnings.append(
                f"input {name!r} lies in about {low:.4g}..{high:.4g} in the calibration data and in"
                f" {other_low:.4g}..{other_high:.4g} in the evaluation data; are both preprocessed alike?"
            )
    return tuple(warnings)


def _bulk(array: np.ndarray) -> tuple[float, float]:
    """mean -+ 2 standard deviations, one row in memory at a time."""
    means = np.array([np.mean(row, dtype=np.float64) for row in array])
    squares = np.array([np.mean(np.square(row, dtype=np.float64)) for row in array])
    mean = means.mean()
    deviation = np.sqrt(max(0.0, squares.mean() - mean**2))
    return float(mean - 2 * deviation), float(mean + 2 * deviation)
