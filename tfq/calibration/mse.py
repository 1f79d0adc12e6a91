"""MSE: the range whose grid has the smallest mean squared error on the histogram, clipping included.

Equation: minimise over [low, high] the sum over bins b of count_b * mean over b of (x - Q(x))^2, where
Q is the nudged grid of `numerics.asymmetric_parameters` and the elements are evenly spread in a bin.
In units of the step, u = x / scale + zero_point and c(u) = clip(round(u)), the integral has the closed form

    integral of (u - c)^2 du = c / 12 + (u - c)^3 / 3 + constant

over cells and beyond both ends alike, so one evaluation per bin edge suffices. Elements that are
exactly zero cost nothing. The first and last bin end at the tensor's minimum and maximum, so that
the elements a clamp has put there are taken where they are.

Both ends are searched together: first on a geometric lattice of fractions of min and max, then on
two finer ones around the best. Min-max is among the candidates.
Source: Sung et al., "Resiliency of Deep Neural Networks under Quantization", 2015; the same
criterion over both ends as in Nagel et al., "A White Paper on Neural Network Quantization", 2021, 3.1.
"""

from __future__ import annotations

import numpy as np

from tfq.calibration.statistics import Range, TensorStatistics
from tfq.numerics.reference import asymmetric_parameters, integer_range

_SMALLEST_FRACTION = 0.02
_LATTICE = 20  # points per end of the first lattice
_REFINED = 7  # points per end of the finer ones
_REFINEMENTS = 2
_COARSE_BINS = 1024
_POINT = 1e-6  # bins narrower than this fraction of a step are taken as a point
_CHUNK = 2**18  # edges evaluated at a time


def squared_errors(statistics: TensorStatistics, ranges: list[Range], *, bits: int) -> np.ndarray:
    """Expected squared error of one element for each of `ranges`; float64 [len(ranges)], in squared real units."""
    found = statistics.histogram
    edges = np.clip(found.edges, min(statistics.minimum, 0.0), max(statistics.maximum, 0.0))
    grids = [asymmetric_parameters(r.low, r.high, bits) for r in ranges]
    scale = np.array([s for s, _ in grids], np.float64)[:, None]
    zero_point = np.array([z for _, z in grids], np.float64)[:, None]
    qmin, qmax = integer_range(bits, symmetric=False)
    rows = max(1, _CHUNK // len(edges))
    totals = [
        _in_steps(edges / scale[i : i + rows] + zero_point[i : i + rows], found.counts, qmin, qmax)
        for i in range(0, len(ranges), rows)
    ]
    return np.concatenate(totals) * scale[:, 0] ** 2 / max(found.total, 1)


def _in_steps(u: np.ndarray, counts: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    """Summed squared error in squared steps, given the bin edges `u` [candidates, bins + 1] in steps."""
    code = np.clip(np.rint(u), qmin, qmax)
    off = u - code
    integral = code / 12.0 + off**3 / 3.0
    width = np.diff(u)
    point = width < _POINT
    mean = np.where(point, off[:, :-1] ** 2, np.diff(integral) / np.where(point, 1.0, width))
    return mean @ counts


def mse_range(statistics: TensorStatistics, *, bits: int) -> Range:
    """The range of the smallest expected squared error."""
    coarse = statistics.histogram
    while len(coarse.counts) > _COARSE_BINS:
        coarse = coarse.coarsen(1)
    lattice = np.geomspace(_SMALLEST_FRACTION, 1.0, _LATTICE)
    best = _best(statistics.replace(histogram=coarse), lattice, lattice, bits)
    reach = _SMALLEST_FRACTION ** (-1.0 / (_LATTICE - 1))
    for _ in range(_REFINEMENTS):
        around = np.geomspace(1.0 / reach, reach, _REFINED)
        best = _best(statistics, np.minimum(best[0] * around, 1.0), np.minimum(best[1] * around, 1.0), bits)
        reach **= 2.0 / (_REFINED - 1)
    candidates = [_cut(statistics, *best), Range(statistics.minimum, statistics.maximum)]
    return candidates[int(np.argmin(squared_errors(statistics, candidates, bits=bits)))]


def _cut(statistics: TensorStatistics, low: float, high: float) -> Range:
    return Range(min(statistics.minimum, 0.0) * low, max(statistics.maximum, 0.0) * high)


def _best(statistics: TensorStatistics, lows: np.ndarray, highs: np.ndarray, bits: int) -> tuple[float, float]:
    """The best pair of fractions of minimum and maximum; an end that is 0 is not searched."""
    lows = np.unique(lows) if statistics.minimum < 0 else np.ones(1)
    highs = np.unique(highs) if statistics.maximum > 0 else np.ones(1)
    pairs = [(float(a), float(b)) for a in lows for b in highs]
    errors = squared_errors(statistics, [_cut(statistics, *p) for p in pairs], bits=bits)
    return pairs[int(np.argmin(errors))]
