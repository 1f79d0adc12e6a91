"""Codebooks: k integers of the int8 lattice that stand for all weights of a layer, and the integers a grid allows.

    w = s * q,   q one of q_1 < ... < q_k,   -127 <= q_i <= 127          s of the output channel, q_i of the layer

For given scales the codebook of the smallest weighted error  sum h (w / s - q)^2  is found exactly. Between
neighbouring codes a < b every weight goes to the nearer one, so that the error is a sum over neighbours: the cheapest
way from the lowest code to the highest in k - 1 steps, by dynamic programming over the 255 integers. The bounds between
codes are halves of integers, so that weights are summed up once, in steps of a half.

Sources: Han et al. 2016 (arXiv:1510.00149), "Deep Compression", for codebooks of layers; Bruce 1965, "Optimum
Quantization", and Wang and Song 2011, "Ckmeans.1d.dp", for k-means on a line by dynamic programming.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

LARGEST = 127
_HALVES = 2 * LARGEST  # of an integer on either side of 0
_ALTERNATIONS = 10
_REACH = 1e-6  # of the largest scale: that of a channel of zeros, which has no code of its own


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
        return self._of_half[_half(values)]

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
        middles = np.arange(-_HALVES, _HALVES + 1) / 2 + 0.25
        bounds = np.add(self.codebook[1:], self.codebook[:-1]) / 2
        return np.asarray(self.codebook, np.float64)[np.searchsorted(bounds, middles)]

    @functools.cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        up, down = np.zeros(_HALVES + 1), np.zeros(_HALVES + 1)
        places = np.asarray(self.codebook) + LARGEST
        up[places[:-1]] = down[places[1:]] = np.diff(places)
        return up, down


def best_codebook(values: np.ndarray, weights: np.ndarray, count: int) -> tuple[int, ...]:
    """The `count` integers within [-127, 127] of the smallest sum of weights * (value - nearest integer)^2.

    Args:
      values, weights: of one shape; weights 0 or more.
      count: 1 to 255.
    """
    cost, first, last = _costs(values, weights)
    total, came = first, []
    for _ in range(count - 1):
        through = total[:, None] + cost
        came.append(through.argmin(0))
        total = through.min(0)
    code = int((total + last).argmin())
    found = [code]
    for before in reversed(came):
        found.append(int(before[found[-1]]))
    return tuple(code - LARGEST for code in reversed(found))


def clustered(
    kernel: np.ndarray, count: int, axis: int | None, importance: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """(scales float64 [channels], or [1] without axis; codebook) of a small squared error, found in turns.

    Args:
      kernel: any shape, finite.
      count: of codes.
      axis: channel axis.
      importance: weight of every element's squared error, of the kernel's shape; all the same by default.
    """
    rows = np.moveaxis(np.asarray(kernel, np.float64), axis or 0, 0)
    rows = rows.reshape(1 if axis is None else len(rows), -1)
    weights = np.ones_like(rows)
    if importance is not None:
        weights = np.moveaxis(np.asarray(importance, np.float64), axis or 0, 0).reshape(rows.shape)
    size = np.sqrt(np.mean(np.square(rows), 1))
    used = size > 0
    if not used.any():
        return np.full(len(rows), 1.0 / LARGEST), best_codebook(rows, weights, count)
    # channels are alike by their size; then the widest has room
    scales = np.where(used, size, _REACH * size.max()) * (np.abs(rows[used]).max(1) / size[used]).max() / LARGEST
    best = np.inf
    for _ in range(_ALTERNATIONS):
        codebook = best_codebook(rows / scales[:, None], weights * np.square(scales)[:, None], count)
        codes = Codes(-LARGEST, LARGEST, codebook).nearest(rows / scales[:, None])
        cost = float((weights * np.square(rows - codes * scales[:, None])).sum())
        if cost >= best:
            break
        best, found = cost, (scales, codebook)
        above, below = (weights * rows * codes).sum(1), (weights * np.square(codes)).sum(1)
        scales = np.where(used & (above > 0), above / np.where(below > 0, below, 1.0), scales)
    return found


def _half(values: np.ndarray) -> np.ndarray:
    """Position of each value's half, from -254 / 2 on."""
    return np.clip(np.floor(2 * np.asarray(values)), -_HALVES, _HALVES).astype(np.int64) + _HALVES


def _costs(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(error of what lies between two codes [255, 255], infinite where the second is not the higher; below the lowest
    code; above the highest)."""
    values, weights = np.ravel(values).astype(np.float64), np.ravel(weights).astype(np.float64)
    half, size = _half(values), 2 * _HALVES + 1
    sums = np.array([np.bincount(half, weights * values**power, size) for power in range(3)])
    below = np.concatenate([np.zeros((3, 1)), np.cumsum(sums, 1)], 1)  # of a bound: sums over all that is lower
    codes = np.arange(-LARGEST, LARGEST + 1)
    at = 2 * codes + _HALVES  # the bound at a code
    bound = codes[:, None] + codes[None] + _HALVES  # that between two codes

    def error(code: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        zeroth, first, second = below[:, stop] - below[:, start]
        return np.maximum(second - 2 * code * first + code**2 * zeroth, 0.0)

    cost = error(codes[:, None], np.broadcast_to(at[:, None], bound.shape), bound)
    cost += error(codes[None], bound, np.broadcast_to(at[None], bound.shape))
    cost[codes[:, None] >= codes[None]] = np.inf
    return cost, error(codes, np.zeros_like(at), at), error(codes, at, np.full_like(at, size))
