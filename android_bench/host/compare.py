"""Whether a device computed what this host computes: elements against elements, before a speed is believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfq.errors import UserError
from tfq.evaluation.signals import finite_decibels
from tfq.execution.interpreter import TensorInfo

LEAST_SQNR_DB = 30.0
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Difference:
    """One output of a device against the same of a reference.

    Attributes:
      output: its name.
      exact: every bit is equal.
      elements, differing: their number, and how many are not equal.
      max_lsb, mean_lsb: in steps of the output's grid, over all elements; None for an output without one.
      max_absolute, mean_absolute: in real values; None where either side is not finite.
      sqnr_db: the reference being the signal; None where both are equal or either is not finite.
    """

    output: str
    exact: bool
    elements: int
    differing: int
    max_lsb: float | None
    mean_lsb: float | None
    max_absolute: float | None
    mean_absolute: float | None
    sqnr_db: float | None

    def within(self, allowed_lsb: float) -> bool:
        """Whether they are near enough: by steps of the grid, or LEAST_SQNR_DB where there is none."""
        if self.exact:
            return True
        if self.max_lsb is not None:
            return self.max_lsb <= allowed_lsb
        return self.sqnr_db is not None and self.sqnr_db >= LEAST_SQNR_DB


def compare(info: TensorInfo, outputs: np.ndarray, reference: np.ndarray) -> Difference:
    """Elements of one output against the reference's.

    Raises UserError where type or shape differ.
    """
    if outputs.dtype != reference.dtype or outputs.shape != reference.shape:
        raise UserError(
            f"output {info.name!r} is {outputs.dtype} {list(outputs.shape)} on the device,"
            f" {reference.dtype} {list(reference.shape)} on this host"
        )
    scale = info.scale[0] if len(info.scale) == 1 else None
    return _difference(info.name, outputs.reshape(-1), reference.reshape(-1), scale, offset=_zero_point(info))


def compare_real(name: str, outputs: np.ndarray, reference: np.ndarray, step: float | None) -> Difference:
    """Real values against the float model's; `step` is that of the output's grid."""
    return _difference(name, outputs.reshape(-1), reference.reshape(-1), step, real=True)


def _zero_point(info: TensorInfo) -> int:
    return info.zero_point[0] if len(info.zero_point) == 1 else 0


def _difference(
    name: str,
    outputs: np.ndarray,
    reference: np.ndarray,
    step: float | None,
    *,
    offset: int = 0,
    real: bool = False,
) -> Difference:
    """`step` with elements (not `real`): one element is one step from the next."""
    differing, total, most, signal, noise = 0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, outputs.size, _BLOCK):
        one, other = outputs[start : start + _BLOCK], reference[start : start + _BLOCK]
        # By bits, so that NaN equals itself.
        unequal = (one.view(np.uint8).reshape(len(one), -1) != other.view(np.uint8).reshape(len(one), -1)).any(axis=1)
        differing += int(unequal.sum())
        meant = other.astype(np.float64) - (offset if step is not None and not real else 0)
        error = np.abs(one.astype(np.float64) - other.astype(np.float64))
        most = max(most, float(error.max(initial=0.0)))
        total += float(error.sum())
        signal += float(np.square(meant).sum())
        noise += float(np.square(error).sum())
    mean = total / max(1, outputs.size)
    finite = bool(np.isfinite(signal) and np.isfinite(noise) and np.isfinite(most))
    per_step, per_unit = (1.0 / step, 1.0) if step and real else (1.0, step or 1.0)
    return Difference(
        output=name,
        exact=differing == 0,
        elements=outputs.size,
        differing=differing,
        max_lsb=most * per_step if step and finite else None,
        mean_lsb=mean * per_step if step and finite else None,
        max_absolute=most * per_unit if finite else None,
        mean_absolute=mean * per_unit if finite else None,
        sqnr_db=finite_decibels(signal, noise) if finite else None,
    )


def worst(differences: Sequence[Difference]) -> Difference:
    """The one that is furthest off."""
    return max(differences, key=lambda d: (not d.exact, d.max_absolute is None, d.max_lsb or 0, -(d.sqnr_db or 0)))
