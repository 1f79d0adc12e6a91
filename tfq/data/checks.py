"""Checks where data enters, and the warnings a person should read before trusting a calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError

FEW_SAMPLES = 100
_ENOUGH = 8  # samples that show what is usual
_FAR = 100.0  # times the usual largest value: a sample that reaches it is taken for spoiled
_MANY_BLANK = 0.1
_COMPARED = 1024  # elements of a sample by which it is known again
_NUMERIC = "fiub"
_MOST_FLOAT = 2.0**63  # float32 holds the squares of all that is smaller


def check_dtype(dtype: np.dtype, signature: InputSignature, where: str) -> None:
    """UserError unless values of `dtype` can be numbers of the input's dtype."""
    if dtype.kind not in _NUMERIC:
        raise UserError(f"{where} has dtype {dtype}; input {signature.name!r} expects {signature.dtype}")
    if dtype.kind == "f" and np.dtype(signature.dtype).kind in "iu":
        raise UserError(
            f"{where} has dtype {dtype}; input {signature.name!r} expects whole numbers: store it as {signature.dtype}"
        )


def check_label_dtype(dtype: np.dtype, where: str) -> None:
    """UserError unless values of `dtype` can be labels."""
    if dtype.kind not in _NUMERIC:
        raise UserError(f"the label of {where} has dtype {dtype}; expected a number (for a class its index)")


def check_shape(shape: tuple[int, ...], signature: InputSignature, where: str) -> None:
    """UserError unless a sample of `shape` (without a batch axis) fits the input."""
    expected = tuple(signature.shape)
    if shape == expected:
        return
    hint = ""
    if (*shape, 1) == expected:
        hint = "; add the channel axis: x[..., None]"
    elif shape == (*expected, 1):
        hint = "; drop the last axis: x[..., 0]"
    elif shape[1:] == expected:
        hint = f"; this is a batch of {shape[0]}: give single samples"
    elif len(shape) == 3 and (shape[1], shape[2], shape[0]) == expected:
        hint = "; channels come last: np.moveaxis(x, 1, -1)"
    elif math.prod(shape) == math.prod(expected):
        hint = "; reshape or transpose it"
    raise UserError(f"{where} has the shape {shape} a sample; input {signature.name!r} expects {expected}{hint}")


def check_finite(array: np.ndarray, signature: InputSignature, where: str) -> None:
    """UserError where a value is NaN, infinite or so large that its square is infinite in float32."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        kind = "NaN" if np.isnan(array).any() else "infinite values"
        raise UserError(f"{where} has {kind} (input {signature.name!r}); repair or remove such samples")
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())
        if max(-low, high) >= _MOST_FLOAT:
            raise UserError(
                f"{where} has values in {low:.4g}..{high:.4g} (input {signature.name!r}), whose squares float32 cannot"
                " hold; scale the data, or repair such samples"
            )


def converted(array: np.ndarray, signature: InputSignature, where: str) -> np.ndarray:
    """The array in the input's dtype; UserError where a value does not fit into it."""
    dtype = np.dtype(signature.dtype)
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise UserError(f"{where} has values in {array.min()}..{array.max()}; {dtype} cannot hold them")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    check_finite(result, signature, where)
    return result


def checked_label(label: np.ndarray, where: str) -> np.ndarray:
    """The label as a number: int64 for integers, a single one without axes; UserError for anything else."""
    check_label_dtype(label.dtype, where)
    if label.dtype.kind in "iub":
        label = label.astype(np.int64).reshape(() if label.size == 1 else label.shape)
    elif not np.isfinite(label).all():
        raise UserError(f"the label of {where} is not finite; repair or remove such samples")
    return label


class InputWatch:
    """What went by of one input, as stored: dtype, smallest and largest value, whether anything varied.

    `blank` counts the samples that are one value throughout, `peaks` are the largest magnitudes of all.
    """

    def __init__(self) -> None:
        self.dtype: np.dtype | None = None
        self.low, self.high = np.inf, -np.inf
        self.all_alike = True
        self.blank, self.peaks = 0, list[float]()
        self._first: np.ndarray | None = None

    def see(self, stored: np.ndarray) -> None:
        """Take note of one sample."""
        if self._first is None:
            self._first, self.dtype = stored, stored.dtype
        elif self.all_alike:
            self.all_alike = np.array_equal(self._first, stored)
        if stored.size:
            low, high = float(stored.min()), float(stored.max())
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.blank += low == high
            self.peaks.append(max(-low, high))


def input_warnings(
    watches: Mapping[str, InputWatch], signatures: Sequence[InputSignature], normalized: frozenset[str], count: int
) -> list[str]:
    """Doubts about the values: constant, always the same sample, spoiled, pixels where none or others are expected.

    `watches` say what went by of each input; those `normalized` were preprocessed as 0..255.
    """
    warnings = []
    for signature in signatures:
        name, watch = signature.name, watches[signature.name]
        if watch.low == watch.high:
            warnings.append(f"input {name!r} is {watch.low:g} in every sample; is this the right data?")
        elif watch.all_alike and count > 1:
            warnings.append(f"all {count} samples of input {name!r} are identical; is this the right data?")
        else:
            warnings += _spoiled(signature, watch, count)
        if name in normalized:
            doubt = f"input {name!r} lies in {watch.low:g}..{watch.high:g} before `preprocess`, which expects 0..255"
            if watch.high <= 1.0:
                warnings.append(f"{doubt}; is it preprocessed already?")
            elif watch.low < 0 or watch.high > 255:
                warnings.append(doubt)
        elif watch.dtype == np.uint8 and np.dtype(signature.dtype).kind == "f":
            warnings.append(
                f"input {name!r} is stored as uint8 ({watch.low:g}..{watch.high:g}) and given to the model unscaled"
                f" as {signature.dtype}; if the model expects another range choose `preprocess`"
            )
    return warnings


def _spoiled(signature: InputSignature, watch: InputWatch, count: int) -> list[str]:
    """Doubts about single samples of an input that varies: empty pictures, and values far beyond the usual."""
    found, is_picture = [], len(signature.shape) > 1 and np.dtype(signature.dtype).kind == "f"
    if is_picture and watch.blank >= _MANY_BLANK * count:
        found.append(
            f"{watch.blank} of the {count} samples of input {signature.name!r} are one value throughout; take them out"
            " if they are spoiled"
        )
    usual = float(np.median(watch.peaks)) if len(watch.peaks) >= _ENOUGH else math.inf
    if max(watch.peaks, default=0.0) > _FAR * usual > 0:
        found.append(
            f"input {signature.name!r} reaches {max(watch.peaks):.4g}, and half of the samples stay within {usual:.4g};"
            " take out samples that are spoiled, for their values set the range of all"
        )
    return found


def calibration_warnings(samples: Samples, *, exhausted: bool) -> list[str]:
    """Doubts about the choice: too few, the same ones, most of one class, or all unless the source has no others."""
    warnings = []
    if len(samples) < FEW_SAMPLES:
        few = f"only {len(samples)} calibration sample{'s' * (len(samples) > 1)}"
        warnings.append(f"{few}; with fewer than {FEW_SAMPLES} ranges are uncertain")
    different = len({_fingerprint(samples, position) for position in range(len(samples))})
    if 1 < different <= len(samples) / 2:
        warnings.append(
            f"only {different} of the {len(samples)} calibration samples are different ones; give others, the copies"
            " show nothing new"
        )
    labels = samples.labels
    if not exhausted and len(samples) > 1 and labels is not None and labels.ndim == 1 and (labels == labels[0]).all():
        warnings.append(
            f"all {len(samples)} calibration samples have the label {labels[0]};"
            " `selection='random'` or balanced takes others too"
        )
    return warnings + _lopsided(
        labels, "give more of the others" if exhausted else "`selection='balanced'` evens it out"
    )


def _lopsided(labels: np.ndarray | None, remedy: str) -> list[str]:
    """A warning where one of several classes has its even share and more than half of all the rest."""
    if labels is None or not _are_classes(labels):
        return []
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1 or counts.max() <= len(labels) * (1 + 1 / len(classes)) / 2:
        return []
    return [
        f"{counts.max()} of the {len(labels)} calibration samples have the label {classes[counts.argmax()]}, and the"
        f" model is fitted to that class before all others; {remedy}"
    ]


def _are_classes(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and labels.dtype.kind in "iu"


def compare_samples(calibration: Samples, evaluation: Samples) -> tuple[str, ...]:
    """Warnings where evaluation data are calibration data too, of one class, or of classes that those do not have."""
    labels = evaluation.labels
    return (*_shared(calibration, evaluation), *_absent_classes(calibration.labels, labels), *_single_class(labels))


def _shared(calibration: Samples, evaluation: Samples) -> list[str]:
    known = {_fingerprint(calibration, position) for position in range(len(calibration))}
    count = sum(_fingerprint(evaluation, position) in known for position in range(len(evaluation)))
    if not count:
        return []
    return [
        f"{count} of the {len(evaluation)} evaluation samples are calibration samples too, to which the model is"
        " fitted; what is measured on them flatters it: give others for evaluation"
    ]


def without(samples: Samples, others: Sequence[Samples]) -> Samples:
    """Those of the samples that are none of the others."""
    known = {_fingerprint(found, position) for found in others for position in range(len(found))}
    return samples.take([p for p in range(len(samples)) if _fingerprint(samples, p) not in known])


def _fingerprint(samples: Samples, position: int) -> bytes:
    """Up to _COMPARED elements of every input of a sample, at even distances."""
    rows = (np.ravel(samples.arrays[name][position]) for name in sorted(samples.arrays))
    return b"".join(row[:: -(-row.size // _COMPARED) or 1].tobytes() for row in rows)


def _absent_classes(calibration: np.ndarray | None, evaluation: np.ndarray | None) -> list[str]:
    if calibration is None or evaluation is None or not (_are_classes(calibration) and _are_classes(evaluation)):
        return []
    found, wanted = np.unique(calibration), np.unique(evaluation)
    present = int(np.isin(wanted, found).sum())
    if 2 * present >= len(wanted) or len(calibration) < 2 * len(wanted):
        return []
    return [
        f"the calibration samples have {present} of the {len(wanted)} classes of the evaluation data; are they sorted?"
        " `selection='random'` or balanced takes others too"
    ]


def _single_class(evaluation: np.ndarray | None) -> list[str]:
    if evaluation is None or not _are_classes(evaluation) or len(evaluation) < _ENOUGH:
        return []
    if (evaluation != evaluation[0]).any():
        return []
    return [
        f"all {len(evaluation)} evaluation samples have the label {evaluation[0]}, so that a model which always gives"
        " it is right; give samples of the others too"
    ]


def compare_ranges(calibration: Samples, others: Samples, *, what: str = "evaluation") -> tuple[str, ...]:
    """Warnings where calibration data and others, which are called `what`, seem to be scaled differently.

    Compared are the intervals mean +- 2 standard deviations of each input, which single outliers do
    not move; a warning is given where their intersection is under two thirds of their union (0..1 against -1..1
    gives a half, two samples of the same data nearly one).
    """
    warnings = []
    for name in calibration.arrays:
        (low, high), (other_low, other_high) = (_bulk(s, name) for s in (calibration, others))
        union = max(high, other_high) - min(low, other_low)
        if union > 0 and min(high, other_high) - max(low, other_low) < union * 2 / 3:
            warnings.append(
                f"input {name!r} lies in about {low:.4g}..{high:.4g} in the calibration data and in"
                f" {other_low:.4g}..{other_high:.4g} in the {what} data; are both preprocessed alike?"
            )
    return tuple(warnings)


def _bulk(samples: Samples, name: str) -> tuple[float, float]:
    """mean -+ 2 standard deviations over all values, one sample in memory at a time."""
    array = samples.arrays[name]
    means = np.array([np.mean(row, dtype=np.float64) for row in array])
    squares = np.array([np.mean(np.square(row, dtype=np.float64)) for row in array])
    mean = means.mean()
    deviation = np.sqrt(max(0.0, squares.mean() - mean**2))
    return float(mean - 2 * deviation), float(mean + 2 * deviation)
