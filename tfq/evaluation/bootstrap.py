"""Bootstrap intervals of a score, and of the difference of two scores on the same samples.

A resample draws n of the n samples with replacement; it is written as weights, w[i] times sample i, so
that a score is a function of weights [resamples, n] and ones give the score itself. All models see the
same resamples (paired), so what makes a sample hard for all of them cancels in the difference:

    d*[b] = score_1(w[b]) - score_0(w[b]),   interval = the 2.5 % and 97.5 % quantiles of d*

This is the percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).
Resamples in which a score is undefined (an AUC without positives) are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfq.execution.progress import SILENT, Progress

CONFIDENCE = 0.95
RESAMPLES = 2000
_CHUNK_ELEMENTS = 1 << 22
_LEAST = {"%": 0.0, "points": -100.0}  # that a share, and a difference of two, can be
_ALIKE = 1e-9  # rounding


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A score as a function of the samples' weights.

    Attributes:
      of_weights: float64 weights [b, n] -> values [b], NaN where undefined.
      resamples: how many a bootstrap should draw; fewer for a score that is slow to compute.
    """

    of_weights: Callable[[np.ndarray], np.ndarray]
    resamples: int = RESAMPLES


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
      value: the number; None where it is undefined or infinite.
      low, high: its 95 % interval; None where there is none.
      unit: "%", "points", "dB", "x", or "" for a plain number.
      n: number of samples (or timing rounds) behind it.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str
    n: int


def point(statistic: Statistic, n: int) -> float:
    """The score on the samples themselves."""
    return float(statistic.of_weights(np.ones((1, n)))[0])


def resampled(statistics: Sequence[Statistic], n: int, *, seed: int, progress: Progress = SILENT) -> np.ndarray:
    """Scores [len(statistics), resamples] of several models, all on the same resamples of n samples."""
    generator = np.random.default_rng(seed)
    resamples = min(statistic.resamples for statistic in statistics)
    values = np.empty((len(statistics), resamples))
    chunk = max(1, min(resamples, _CHUNK_ELEMENTS // n))
    with progress.task("bootstrap", resamples) as advance:
        for start in range(0, resamples, chunk):
            count = min(chunk, resamples - start)
            drawn = generator.integers(0, n, size=(count, n)) + n * np.arange(count)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
            for row, statistic in enumerate(statistics):
                values[row, start : start + count] = statistic.of_weights(weights)
            advance(count)
    return values


def estimate(value: float, resamples: np.ndarray, *, unit: str, n: int) -> Estimate:
    """A value with the interval that its resamples span.

    Where all resamples of a share are alike, no sample at hand differs, which does not mean that none would: with as
    much confidence their share is below 1 - 0.025^(1 / n) (Clopper and Pearson 1934, none of n seen), and the value off
    by as much.
    """
    finite = resamples[np.isfinite(resamples)]
    low = high = None
    if len(finite) and np.isfinite(value):
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(q) for q in np.quantile(finite, [tail, 1 - tail]))
        if unit in _LEAST and high - low < _ALIKE:
            unseen = 100 * (1 - tail ** (1 / n))
            low, high = max(low - unseen, _LEAST[unit]), min(high + unseen, 100.0)
    return Estimate(float(value) if np.isfinite(value) else None, low, high, unit, n)
