"""Percentile: the range keeps the central p % of the elements; p is the parameter.

Equation: (100 - p) / 2 % of the elements lie above the range and as many below it. A tensor without
negative elements keeps its low end and loses (100 - p) % at the top; one without positive elements
likewise at the bottom. Within a bin of the histogram the elements are taken as evenly spread.
Source: Wu et al., "Integer Quantization for Deep Learning Inference", 2020.
"""

from __future__ import annotations

import numpy as np

from tfq.calibration.method import Method, Parameter
from tfq.calibration.statistics import Range, TensorStatistics


def percentile_range(statistics: TensorStatistics, *, percentile: float) -> Range:
    """The range that keeps `percentile` (above 50, at most 100) % of the elements."""
    found = statistics.histogram
    sides = (statistics.minimum < 0) + (statistics.maximum > 0)
    outside = found.total * (100.0 - percentile) / 100.0 / max(sides, 1)
    middle = -found.first
    above = _cut(found.counts[middle:], found.edges[middle:], outside)
    below = _cut(found.counts[:middle][::-1], found.edges[: middle + 1][::-1], outside)
    high = statistics.maximum if outside == 0 else min(above, statistics.maximum)
    low = statistics.minimum if outside == 0 else max(below, statistics.minimum)
    return Range(low, high)


def _cut(counts: np.ndarray, edges: np.ndarray, outside: float) -> float:
    """The point nearest to 0 along `edges` (coming from 0) beyond which at most `outside` elements lie."""
    beyond = np.append(np.cumsum(counts[::-1])[::-1], 0)  # elements further out than each edge
    right = int(np.argmax(beyond <= outside))
    if right == 0:
        return 0.0
    share = (beyond[right - 1] - outside) / (beyond[right - 1] - beyond[right])
    return float(edges[right - 1] + share * (edges[right] - edges[right - 1]))


METHOD = Method(
    "percentile",
    lambda statistics, _bits, percentile: percentile_range(statistics, percentile=percentile),
    Parameter(default=99.9, above=50.0, most=100.0),
)
