"""Which method's range a tensor gets: decided by the error on samples its range was not fitted to.

Two-fold cross-validation: every method fits its range to one part of the samples, the expected squared
error of its grid is taken over the other part, then the parts change places; so every sample, the
rare large one too, is held back once. "auto" takes the method with the smallest error, min-max where
it comes within TIE of it. A method asked for by name is kept unless min-max has the smaller error;
then the choice is min-max and says so. The chosen method's range is fitted once more, to all samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tfq.calibration.kl import kl_range
from tfq.calibration.minmax import minmax_range
from tfq.calibration.moving_average import moving_average_range
from tfq.calibration.mse import mse_range, squared_errors
from tfq.calibration.percentile import percentile_range
from tfq.calibration.statistics import Range, TensorStatistics
from tfq.errors import UserError

METHODS = ("minmax", "moving_average", "percentile", "kl", "mse")
TIE = 0.01


@dataclasses.dataclass(frozen=True)
class Choice:
    """The range of one tensor and why.

    Attributes:
      range: real range, fitted to all samples.
      minmax: the min-max range of all samples.
      method: the method that made it.
      errors: method -> expected squared error of an element of a held-back sample, in squared real
        units, for all methods that were tried.
      rolled_back: the method asked for lost to min-max.
    """

    range: Range
    minmax: Range
    method: str
    errors: Mapping[str, float]
    rolled_back: bool


def choose_range(
    first: TensorStatistics,
    second: TensorStatistics,
    whole: TensorStatistics,
    *,
    method: str,
    percentile: float,
    bits: int,
) -> Choice:
    """Choose among METHODS.

    Args:
      first, second: statistics of the tensor (or of all tensors that share its grid) over disjoint
        samples, about as many in both.
      whole: over all samples of both.
      method: one of METHODS, or "auto".
      percentile: share of the elements, in %, that the percentile method keeps.
      bits: grid bits of the activation.

    Raises:
      UserError: an unknown method.
    """
    if method not in (*METHODS, "auto"):
        raise UserError(f"the calibration method is {method!r}; it must be auto or one of {', '.join(METHODS)}")
    fitters: dict[str, Callable[[TensorStatistics], Range]] = {
        "minmax": minmax_range,
        "moving_average": moving_average_range,
        "percentile": lambda s: percentile_range(s, percentile=percentile),
        "kl": lambda s: kl_range(s, bits=bits),
        "mse": lambda s: mse_range(s, bits=bits),
    }
    tried = METHODS if method == "auto" else tuple(dict.fromkeys(("minmax", method)))
    found = np.zeros(len(tried))
    for fit, held_back in ((first, second), (second, first)):
        fitted = [fitters[name](fit) for name in tried]
        low, high = np.array([r.low for r in fitted]), np.array([r.high for r in fitted])
        found += squared_errors(held_back, low, high, bits=bits) / 2
    errors = dict(zip(tried, found.tolist(), strict=True))
    if method == "auto":
        best = min(tried, key=lambda name: errors[name])
        used = "minmax" if errors["minmax"] <= (1 + TIE) * errors[best] else best
    else:
        used = method if errors[method] <= errors["minmax"] else "minmax"
    rolled_back = method not in ("auto", used)
    return Choice(
        range=fitters[used](whole),
        minmax=minmax_range(whole),
        method=used,
        errors=errors,
        rolled_back=rolled_back,
    )
