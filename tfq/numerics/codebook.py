"""Codebooks: k integers of the int8 lattice that stand for all weights of a layer, and the integers a grid allows.

    w = s * q,   q one of q_1 < ... < q_k,   -k <= q_i <= k          s of the output channel, q_i of the layer

For given scales the codebook of the smallest weighted error  sum h (w / s - q)^2  is found exactly. Between
neighbouring codes a < b every weight goes to the nearer one, so that the error is a sum over neighbours: the cheapest
way from the lowest code to the highest in k - 1 steps, by dynamic programming over the integers. The bounds between
codes are halves of integers, so that weights are summed up once, in steps of a half. Scales and codebook are found in
turns.

Of the 255 integers of int8 only those up to k are used, though the others would lose less: by 0.1 to 0.4 dB. Layers
whose codes are the same integers share the code tables of a compressed file. With all 255 the 8 codes of a layer take
3.6 to 3.7 bits a weight in the files of two ResNets, up to k 3.05; of their own they have an entropy of 2.8.

Sources: Han et al. 2016 (arXiv:1510.00149), "Deep Compression", for codebooks of layers; Bruce 1965, "Optimum
Quantization", and Wang and Song 2011, "Ckmeans.1d.dp", for k-means on a line by dynamic programming.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

LARGEST = 127
_ALTERNATIONS = 10
_REACHES = (
    0.8,
    1.1,
    1.5,
    2.0,
    2.6,
    3.3,
    4.2,
)  # of the largest integer, in root mean squares of a channel, to start with
_HARDLY = 1e-6  # of the largest channel: a channel of zeros, which need have no code of its own


@dataclasses.dataclass(frozen=True)
class Codes:
    """The integers that weights may become: all from `low` to `high`, or those of a codebook within.

    Attributes:
      low, high: the ends.
      codebook: in rising order; empty: every integer.
    """

    low: int
    high: int
    codebook: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest."""
        return (self.codebook[0], self.codebook[-1]) if self.codebook else (self.low, self.high)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Of any real numbers, as floats."""
        if not self.codebook:
            return np.clip(np.rint(values), self.low, self.high)
        return self._of_half[_half(values, LARGEST)]

    def steps(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far it is from each of the codes to the next one up and down; 0 at the ends."""
        if not self.codebook:
            return (codes != self.high).astype(float), (codes != self.low).astype(float)
        up, down = self._steps
        place = codes.astype(np.int64) + LARGEST
        return up[place], down[place]

    @functools.cached_property
    def _of_half(self) -> np.ndarray:
        """The nearest code of [h / 2, (h + 1) / 2), from h = -254 on: bounds are halves."""
        middles = np.arange(-2 * LARGEST, 2 * LARGEST + 1) / 2 + 0.25
        bounds = np.add(self.codebook[1:], self.codebook[:-1]) / 2
        return np.asarray(self.codebook, np.float64)[np.searchsorted(bounds, middles)]

    @functools.cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        up, down = np.zeros(2 * LARGEST + 1), np.zeros(2 * LARGEST + 1)
        places = np.asarray(self.codebook) + LARGEST
        up[places[:-1]] = down[places[1:]] = np.diff(places)
        return up, down


def best_codebook(values: np.ndarray, weights: np.ndarray, count: int, largest: int) -> tuple[int, ...]:
    """The `count` integers of the smallest sum of weights * (value - nearest integer)^2.

    Args:
      values, weights: of one shape; weights 0 or more.
      count: 1 to 2 * largest + 1.
      largest: magnitude of the integers, at most.
    """
    cost, first, last = _costs(values, weights, largest)
    total, came = first, []
    for _ in range(count - 1):
        through = total[:, None] + cost
        came.append(through.argmin(0))
        total = through.min(0)
    found = [int((total + last).argmin())]
    for before in reversed(came):
        found.append(int(before[found[-1]]))
    return tuple(place - largest for place in reversed(found))


def clustered(
    kernel: np.ndarray, count: int, axis: int | None, importance: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """(scales float64 [channels], or [1] without axis; codebook within [-count, count]) of a small squared error.

    Args:
      kernel: any shape, finite.
      count: of codes.
      axis: channel axis.
      importance: weight of every element's squared error, of the kernel's shape; all the same by default.
    """
    rows = _rows(kernel, axis)
    weights = np.ones_like(rows) if importance is None else _rows(importance, axis)
    size = np.sqrt(np.mean(np.square(rows), 1))
    used = size > 0
    size = np.where(used, size, _HARDLY * size.max() if used.any() else 1.0)

    def solved(scales: np.ndarray) -> _Clustered:
        exact, squares = rows / scales[:, None], weights * np.square(scales)[:, None]
        codebook = best_codebook(exact, squares, count, count)
        codes = Codes(-LARGEST, LARGEST, codebook).nearest(exact)
        return float((squares * np.square(exact - codes)).sum()), scales, codebook, codes

    best = min((solved(size * reach / count) for reach in _REACHES), key=lambda found: found[0])
    for _ in range(_ALTERNATIONS):
        _, scales, _, codes = best
        above, below = (weights * rows * codes).sum(1), (weights * np.square(codes)).sum(1)
        found = solved(np.where(used & (above > 0), above / np.where(below > 0, below, 1.0), scales))
        if found[0] >= best[0]:
            break
        best = found
    return best[1], best[2]


_Clustered = tuple[float, np.ndarray, tuple[int, ...], np.ndarray]
"""Squared error, scales, codebook, codes."""


def _rows(values: np.ndarray, axis: int | None) -> np.ndarray:
    """float64 [channels, elements of one]."""
    values = np.asarray(values, np.float64)
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _half(values: np.ndarray, largest: int) -> np.ndarray:
    """Position of each value's half, from -largest on."""
    return np.clip(np.floor(2 * np.asarray(values)), -2 * largest, 2 * largest).astype(np.int64) + 2 * largest


def _costs(values: np.ndarray, weights: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(error of what lies between two of the n = 2 * largest + 1 codes [n, n], infinite where the second is not the
    higher; below the lowest code [n]; above the highest [n])."""
    values, weights = np.ravel(values).astype(np.float64), np.ravel(weights).astype(np.float64)
    half, size = _half(values, largest), 4 * largest + 1
    sums = np.array([np.bincount(half, weights * values**power, size) for power in range(3)])
    below = np.concatenate([np.zeros((3, 1)), np.cumsum(sums, 1)], 1)  # of a bound: sums over all that is lower
    codes = np.arange(-largest, largest + 1)
    at = 2 * codes + 2 * largest  # the bound at a code
    bound = codes[:, None] + codes[None] + 2 * largest  # that between two codes

    def error(code: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        zeroth, first, second = below[:, stop] - below[:, start]
        return np.maximum(second - 2 * code * first + code**2 * zeroth, 0.0)

    cost = error(codes[:, None], np.broadcast_to(at[:, None], bound.shape), bound)
    cost += error(codes[None], bound, np.broadcast_to(at[None], bound.shape))
    cost[codes[:, None] >= codes[None]] = np.inf
    return cost, error(codes, np.zeros_like(at), at), error(codes, at, np.full_like(at, size))
