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

from tfq.calibration import deviations, kl, minmax, moving_average, mse, percentile
from tfq.calibration.method import Method
from tfq.calibration.minmax import minmax_range
from tfq.calibration.mse import squared_errors
from tfq.calibration.statistics import Range, TensorStatistics
from tfq.errors import UserError

METHODS: Mapping[str, Method] = {
    module.METHOD.name: module.METHOD for module in (minmax, moving_average, percentile, kl, mse, deviations)
}
TIE = 0.01
Fit = Callable[[TensorStatistics, int], Range]


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


def find_method(text: str) -> tuple[str, dict[str, Fit]]:
    """What a recipe asks for: a method's name or "auto", and by name how every method that is tried makes a range.

    Raises UserError for what is no method, or a number that it does not take.
    """
    name, separator, number = text.partition("=")
    if name == "auto" and not separator:
        return name, {other: method.fitter() for other, method in METHODS.items() if method.in_auto}
    if name not in METHODS:
        raise UserError(f"`calibration_method` is {text!r}; it must be auto or one of {', '.join(METHODS)}")
    method = METHODS[name]
    minmax_fitter = METHODS["minmax"].fitter()
    if not separator:
        return name, {"minmax": minmax_fitter, name: method.fitter()}
    if method.parameter is None:
        raise UserError(f"`calibration_method` is {text!r}; {name} takes no number, leave it out")
    bounds = method.parameter
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not bounds.above < value <= bounds.most:
        raise UserError(
            f"`calibration_method` is {text!r}; the number of {name} must lie in ({bounds.above:g}, {bounds.most:g}],"
            f" as {name}={bounds.default:g}"
        )
    return name, {"minmax": minmax_fitter, name: method.fitter(value)}


def choose_range(
    first: TensorStatistics,
    second: TensorStatistics,
    whole: TensorStatistics,
    *,
    method: str,
    bits: int,
) -> Choice:
    """Choose among the methods that `method` asks for.

    Args:
      first, second: statistics of the tensor (or of all tensors that share its grid) over disjoint
        samples, about as many in both.
      whole: over all samples of both.
      method: as `find_method` takes it.
      bits: grid bits of the activation.

    Raises:
      UserError: as `find_method` does.
    """
    name, fitters = find_method(method)
    tried = tuple(fitters)
    found = np.zeros(len(tried))
    for fit, held_back in ((first, second), (second, first)):
        fitted = [fitter(fit, bits) for fitter in fitters.values()]
        low, high = np.array([r.low for r in fitted]), np.array([r.high for r in fitted])
        found += squared_errors(held_back, low, high, bits=bits) / 2
    errors = dict(zip(tried, found.tolist(), strict=True))
    if name == "auto":
        best = min(tried, key=lambda other: errors[other])
        used = "minmax" if errors["minmax"] <= (1 + TIE) * errors[best] else best
    else:
        used = name if errors[name] <= errors["minmax"] else "minmax"
    rolled_back = name not in ("auto", used)
    return Choice(
        range=fitters[used](whole, bits),
        minmax=minmax_range(whole),
        method=used,
        errors=errors,
        rolled_back=rolled_back,
    )
