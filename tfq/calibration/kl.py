"""KL: the range for which the quantised histogram tells most about the original one.

Equation: for each threshold t the range is [max(min, -t), min(max, t)]. P is the histogram inside it,
with the elements outside added to its end bins; Q is the histogram inside it, without them, after
quantisation: the mass of each level spread evenly over its occupied bins. The t with the smallest
KL(P || Q) = sum_i p_i log(p_i / q_i) wins. Bins that only P occupies get q = FLOOR. Exact zeros are
left out: every grid represents them. Thresholds leave at least one bin to every level on average;
below that Q repeats P and the divergence says nothing.
Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, for symmetric grids; the asymmetric grid
takes its place here (the nudged one of `numerics`), and the range is cut where the data end.
"""

from __future__ import annotations

import numpy as np

from tfq.calibration.statistics import Range, TensorStatistics
from tfq.numerics.reference import asymmetric_parameters, integer_range

CANDIDATES = 64
FLOOR = 1e-4


def kl_range(statistics: TensorStatistics, *, bits: int) -> Range:
    """The range of the smallest divergence; min-max where the histogram has too few bins to judge."""
    everything = Range(statistics.minimum, statistics.maximum)
    found = statistics.histogram
    furthest = max(-found.first, found.last + 1)
    fewest = min(2**bits, furthest)  # bins from 0 to the threshold
    best, smallest = everything, np.inf
    for reach in np.unique(np.linspace(fewest, furthest, CANDIDATES).astype(int))[::-1]:
        first, last = max(found.first, -reach), min(found.last, reach - 1)
        if last - first + 1 < 2**bits:
            continue
        threshold = float(np.ldexp(float(reach), found.exponent))
        candidate = Range(max(statistics.minimum, -threshold), min(statistics.maximum, threshold))
        divergence = _divergence(found.counts, found.edges, first - found.first, last - found.first, candidate, bits)
        if divergence < smallest:
            best, smallest = candidate, divergence
    return best


def _divergence(counts: np.ndarray, edges: np.ndarray, first: int, last: int, cut: Range, bits: int) -> float:
    """KL(P || Q) of the bins first..last under the grid of `cut`; inf if nothing lies inside."""
    inside = counts[first : last + 1].astype(np.float64)
    if not inside.any():
        return np.inf
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last + 1 :].sum()
    scale, zero_point = asymmetric_parameters(cut.low, cut.high, bits)
    qmin, qmax = integer_range(bits, symmetric=False)
    centres = (edges[first : last + 1] + edges[first + 1 : last + 2]) / 2
    level = np.clip(np.rint(centres / float(scale)) + zero_point, qmin, qmax).astype(int) - qmin
    occupied = inside > 0
    mass = np.bincount(level, weights=inside, minlength=qmax - qmin + 1)
    bins = np.bincount(level, weights=occupied, minlength=qmax - qmin + 1)
    q = np.where(occupied, mass[level] / np.maximum(bins[level], 1.0), 0.0)
    p, q = p / p.sum(), np.maximum(q / q.sum(), FLOOR * (q == 0))
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / q[there])))
