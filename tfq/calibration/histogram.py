"""Streamed histograms of fixed memory that do not depend on the order of the data.

Equation: bin i counts the values with floor(x / w) = i, where the width w = 2^e and e is the smallest
exponent for which the values seen and 0 span at most MAX_BINS bins. When a value falls outside, w
doubles and bins 2i and 2i+1 become bin i: exact, since edges are multiples of a power of two. e
depends on the smallest and largest value alone. Hence the histogram of a set of values is the same
whatever the order and size of the batches, and merge(histogram(a), histogram(b)) = histogram(a and b).

Exact zeros are counted apart: every grid represents them without error.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

MAX_BINS = 4096
_SMALLEST_EXPONENT = -100  # narrower bins would tell apart what no grid does
_BLOCK = 2**14  # values counted at a time: small arrays are reused, large ones are paged in anew each time


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Counts of the values of one tensor.

    Attributes:
      exponent: the bin width is 2**exponent.
      first: number of the first bin, at most 0; bin i covers [i * width, (i + 1) * width).
      counts: int64 [bins], bins <= MAX_BINS, of values other than zero; bin 0 is always among them.
      zeros: number of exact zeros.
    """

    exponent: int
    first: int
    counts: np.ndarray
    zeros: int

    @property
    def last(self) -> int:
        return self.first + len(self.counts) - 1

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.zeros

    @property
    def edges(self) -> np.ndarray:
        """float64 [bins + 1]."""
        return np.ldexp(np.arange(self.first, self.last + 2, dtype=np.float64), self.exponent)

    def coarsen(self, doublings: int) -> Histogram:
        """The same values in bins 2**doublings times as wide."""
        if not doublings:
            return self
        bins = np.arange(self.first, self.last + 1) >> doublings
        counts = np.zeros(bins[-1] - bins[0] + 1, np.int64)
        np.add.at(counts, bins - bins[0], self.counts)
        return Histogram(self.exponent + doublings, int(bins[0]), counts, self.zeros)


EMPTY = Histogram(_SMALLEST_EXPONENT, 0, np.zeros(1, np.int64), 0)


def _doublings(first: int, last: int) -> int:
    """How often bins first..last must be merged in pairs to be at most MAX_BINS."""
    doublings = 0
    while (last >> doublings) - (first >> doublings) >= MAX_BINS:
        doublings += 1
    return doublings


def histogram(values: np.ndarray) -> Histogram:
    """The histogram of finite float32 `values` of any shape."""
    values = np.asarray(values, np.float32).ravel()
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    # First an exponent that is surely narrow enough, then the same rule as for merging.
    furthest = max(-low, high, 2.0**_SMALLEST_EXPONENT)
    exponent = max(int(np.frexp(furthest)[1]) - MAX_BINS.bit_length(), _SMALLEST_EXPONENT)
    exponent += _doublings(*(math.floor(math.ldexp(end, -exponent)) for end in (low, high)))
    first, last = (math.floor(math.ldexp(end, -exponent)) for end in (low, high))
    counts = np.zeros(last - first + 1, np.int64)
    for start in range(0, values.size, _BLOCK):
        bins = np.multiply(values[start : start + _BLOCK], math.ldexp(1.0, -exponent), dtype=np.float64)
        np.floor(bins, out=bins)
        bins -= first
        counts += np.bincount(bins.astype(np.intp), minlength=len(counts))
    zeros = values.size - int(np.count_nonzero(values))
    counts[-first] -= zeros
    return Histogram(exponent, first, counts, zeros)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the values of both."""
    exponent = max(a.exponent, b.exponent)
    a, b = a.coarsen(exponent - a.exponent), b.coarsen(exponent - b.exponent)
    doublings = _doublings(min(a.first, b.first), max(a.last, b.last))
    a, b = a.coarsen(doublings), b.coarsen(doublings)
    first, last = min(a.first, b.first), max(a.last, b.last)
    counts = np.zeros(last - first + 1, np.int64)
    for part in (a, b):
        counts[part.first - first : part.last - first + 1] += part.counts
    return Histogram(exponent + doublings, first, counts, a.zeros + b.zeros)


def summary(found: Histogram, bins: int = 64) -> dict[str, Any]:
    """At most `bins` bins for a report: {"edges": [...], "counts": [...], "zeros": n}, ready for JSON."""
    while len(found.counts) > bins:
        found = found.coarsen(1)
    return {"edges": found.edges.tolist(), "counts": found.counts.tolist(), "zeros": found.zeros}
