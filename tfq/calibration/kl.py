"""KL: the range for which the quantised histogram tells most about the original one.

Equation: for each threshold t the range is [max(min, -t), min(max, t)]. P is the histogram inside it,
with the elements outside added to its end bins; Q is the histogram inside it, without them, after
quantisation: the mass of each level, to which the bins belong by their centres, spread evenly over
its occupied bins. The t with the smallest
KL(P || Q) = sum_i p_i log(p_i / q_i) wins. Bins that only P occupies get q = FLOOR. Exact zeros are
left out: every grid represents them. Thresholds leave at least one bin to every level on average;
below that Q repeats P and the divergence says nothing.
Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, for symmetric grids; the asymmetric grid
takes its place here (the nudged one of `numerics`), and the range is cut where the data end.
"""

from __future__ import annotations

import numpy as np

from tfq.calibration.method import Method
from tfq.calibration.statistics import Range, TensorStatistics
from tfq.numerics.reference import asymmetric_grids, integer_range

CANDIDATES = 64
FLOOR = 1e-4


def kl_range(statistics: TensorStatistics, *, bits: int) -> Range:
    """The range of the smallest divergence; min-max where the histogram has too few bins to judge."""
    found = statistics.histogram
    furthest = max(-found.first, found.last + 1)
    reach = np.unique(np.linspace(min(2**bits, furthest), furthest, CANDIDATES).astype(int))
    start, end = np.maximum(found.first, -reach), np.minimum(found.last + 1, reach)
    counted = np.append(0, np.cumsum(found.counts))
    inside = counted[end - found.first] - counted[start - found.first]
    enough = (end - start >= 2**bits) & (inside > 0)
    if not enough.any():
        return Range(statistics.minimum, statistics.maximum)
    threshold = np.ldexp(reach[enough].astype(np.float64), found.exponent)
    low, high = np.maximum(statistics.minimum, -threshold), np.minimum(statistics.maximum, threshold)
    divergence = _divergences(statistics, start[enough], end[enough], low, high, bits)
    best = len(divergence) - 1 - int(np.argmin(divergence[::-1]))  # of equals the widest
    return Range(low[best], high[best])


def _divergences(
    statistics: TensorStatistics, start: np.ndarray, end: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int
) -> np.ndarray:
    """KL(P || Q) [candidates] of the bins numbered start..end-1 under the grid of [low, high].

    Within a level q is constant, so the sums over bins are differences of running sums at the levels' ends.
    """
    found = statistics.histogram
    counts = found.counts.astype(np.float64)
    mass_before = np.append(0.0, np.cumsum(counts))
    occupied_before = np.append(0, np.cumsum(counts > 0))
    entropy_before = np.append(0.0, np.cumsum(_x_log_x(counts)))
    first, last = start - found.first, end - 1 - found.first  # positions in `counts`
    # ends of the levels: the first bin whose centre rounds to each level or a later one
    scale, zero_point = asymmetric_grids(low, high, bits)
    qmin, qmax = integer_range(bits, symmetric=False)
    middles = (np.arange(qmin + 1, qmax + 1) - zero_point[:, None] - 0.5) * scale[:, None].astype(np.float64)
    ends = np.ceil(np.ldexp(middles, -found.exponent) - 0.5).astype(np.int64) - found.first
    ends = np.clip(ends, first[:, None], last[:, None] + 1)
    ends = np.concatenate([first[:, None], ends, last[:, None] + 1], axis=1)
    mass = np.diff(mass_before[ends], axis=1)
    occupied = np.diff(occupied_before[ends], axis=1)
    level = np.log(np.where(mass > 0, mass, 1.0) / np.maximum(occupied, 1))  # log q, not yet normalised
    total, inside = mass_before[-1], mass.sum(axis=1)
    p_log_p = entropy_before[last + 1] - entropy_before[first]
    p_log_q = (mass * level).sum(axis=1) - inside * np.log(inside)
    for bin_, outside, nearest in (
        (first, mass_before[first], level[np.arange(len(first)), np.argmax(occupied > 0, axis=1)]),
        (
            last,
            total - mass_before[last + 1],
            level[np.arange(len(first)), -1 - np.argmax(occupied[:, ::-1] > 0, axis=1)],
        ),
    ):
        p_log_p += _x_log_x(counts[bin_] + outside) - _x_log_x(counts[bin_])
        p_log_q += outside * np.where(counts[bin_] > 0, nearest - np.log(inside), np.log(FLOOR))
    return (p_log_p - total * np.log(total) - p_log_q) / total


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))


METHOD = Method("kl", lambda statistics, bits, _: kl_range(statistics, bits=bits))
