"""Quantiles of latencies with intervals that hold for any distribution, as the runner computes them (statistics.h).

A quantile is the nearest rank: the smallest value that at least q of all values do not exceed. B, the number of
values below the true quantile, is binomial(n, q), so the order statistics l and u with P(B < l) <= 0.025 and
P(B >= u) <= 0.025 enclose it in 95 of 100 cases (David and Nagaraja, Order Statistics, 7.1), if the runs are
independent. Runs of one process are not quite: compare the rounds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_TAIL = 0.025


@dataclasses.dataclass(frozen=True)
class Figure:
    """A measured number; `low` and `high` are None where the runs are too few for that end."""

    value: float
    low: float | None = None
    high: float | None = None


def quantile(values: Sequence[float] | np.ndarray, q: float) -> Figure:
    """The q quantile of at least one value, with its 95 % interval."""
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    rank = min(max(math.ceil(n * q - 1e-9), 1), n)
    low, high = interval_ranks(n, q)
    return Figure(
        float(ordered[rank - 1]),
        float(ordered[low - 1]) if low else None,
        float(ordered[high - 1]) if high else None,
    )


def interval_ranks(n: int, q: float) -> tuple[int, int]:
    """1-based ranks of the interval's ends; 0 for an end that n values cannot give."""
    log_q, log_rest, whole = math.log(q), math.log1p(-q), math.lgamma(n + 1)
    below, low = 0.0, 0
    for k in range(n):
        below += math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_q + (n - k) * log_rest)
        if below <= _TAIL:
            low = k + 1
        if below >= 1 - _TAIL:
            return low, k + 1
    return low, 0


def ratio_of_rounds(medians: Sequence[float], baseline: Sequence[float]) -> Figure:
    """Median of the rounds' ratios; low and high are the least and the largest of them, None of a single round."""
    ratios = sorted(a / b for a, b in zip(medians, baseline, strict=True))
    several = len(ratios) > 1
    return Figure(float(np.median(ratios)), ratios[0] if several else None, ratios[-1] if several else None)
