"""MSE: the range whose grid has the smallest mean squared error on the histogram, clipping included.

Equation: minimise over [low, high] the sum over bins b of count_b * mean over b of (x - Q(x))^2, where
Q is the nudged grid of `numerics.reference.asymmetric_grids` and the elements are evenly spread in a bin.
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

from tfq.calibration.method import Method
from tfq.calibration.statistics import Range, TensorStatistics
from tfq.numerics.reference import asymmetric_grids, integer_range

_SMALLEST_FRACTION = 0.02
_LATTICE = 20  # points per end of the first lattice
_REFINED = 7  # points per end of the finer ones
_COARSE_BINS = 512
_POINT = 1e-3  # an end bin cut to less than this fraction of its width is taken as a point
_CHUNK = 2**16  # numbers evaluated at a time: what fits into the cache


def squared_errors(statistics: TensorStatistics, low: np.ndarray, high: np.ndarray, *, bits: int) -> np.ndarray:
    """Expected squared error of one element for each range [low, high]; float64 [ranges], in squared real units."""
    found = statistics.histogram
    edges = np.clip(found.edges, min(statistics.minimum, 0.0), max(statistics.maximum, 0.0))
    widths = np.diff(edges)
    point = widths < _POINT * np.ldexp(1.0, found.exponent)
    density = np.where(point, 0.0, found.counts / np.where(point, 1.0, widths))
    # The sum over bins of density * (integral at the right edge - integral at the left edge), by edges:
    weights = -np.diff(density, prepend=0.0, append=0.0)
    scale, zero_point = asymmetric_grids(low, high, bits)
    limits = integer_range(bits, symmetric=False)
    errors = np.empty(len(scale))
    rows = max(1, _CHUNK // len(edges))
    for start in range(0, len(scale), rows):
        part = slice(start, start + rows)
        step, zero = scale[part, None].astype(np.float64), zero_point[part, None]
        off, code = _rounded(edges, step, zero, limits)
        integral = off * off * off / 3.0 + code / 12.0
        spikes, _ = _rounded(edges[1:][point], step, zero, limits)
        errors[part] = step[:, 0] ** 3 * (integral @ weights) + step[:, 0] ** 2 * (spikes**2 @ found.counts[point])
    return errors / max(found.total, 1)


def _rounded(
    x: np.ndarray, step: np.ndarray, zero: np.ndarray, limits: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Error in steps, and code, of every x [n] on every grid [candidates, 1]; each [candidates, n]."""
    u = x / step + zero
    code = np.clip(np.rint(u), *limits)
    return u - code, code


def mse_range(statistics: TensorStatistics, *, bits: int) -> Range:
    """The range of the smallest expected squared error."""
    coarse = statistics.histogram
    while len(coarse.counts) > _COARSE_BINS:
        coarse = coarse.coarsen(1)
    lattice = np.geomspace(_SMALLEST_FRACTION, 1.0, _LATTICE)
    low, high = _best(statistics.replace(histogram=coarse), lattice, lattice, bits)
    reach = _SMALLEST_FRACTION ** (-1.0 / (_LATTICE - 1))
    for used in (statistics.replace(histogram=coarse), statistics):
        around = np.append(np.geomspace(1.0 / reach, reach, _REFINED), np.inf)  # cut to 1 below: min-max stays in
        low, high = _best(used, low * around, high * around, bits)
        reach **= 2.0 / (_REFINED - 1)
    return Range(statistics.minimum * low, statistics.maximum * high)


def _best(statistics: TensorStatistics, lows: np.ndarray, highs: np.ndarray, bits: int) -> tuple[float, float]:
    """The best pair of fractions of minimum and maximum; an end that is 0 is not searched."""
    lows = np.unique(np.minimum(lows, 1.0)) if statistics.minimum < 0 else np.ones(1)
    highs = np.unique(np.minimum(highs, 1.0)) if statistics.maximum > 0 else np.ones(1)
    low, high = (grid.ravel() for grid in np.meshgrid(lows, highs))
    ends = min(statistics.minimum, 0.0) * low, max(statistics.maximum, 0.0) * high
    best = int(np.argmin(squared_errors(statistics, *ends, bits=bits)))
    return float(low[best]), float(high[best])


METHOD = Method("mse", lambda statistics, bits, _: mse_range(statistics, bits=bits))
