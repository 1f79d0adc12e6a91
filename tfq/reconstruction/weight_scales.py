"""Weight scales of the smallest squared error.

Equation, for one channel with weights w, importance h and codes from -l to k:

    minimise over s   E(s) = sum h (w - s q)^2,   q = clip(round(w / s), -l, k).

The codes change only at the breakpoints s = |w_i| / (j + 1/2), j = 0 .. k - 1, or to l - 1 where w_i is negative: as
s falls past one, |q_i| grows from j to j + 1. Codes given, the best scale is s = A / B with A = <h w, q> and
B = <h q, q>, and its error is <h w, w> - A^2 / B. Rounding is the best code for every s, so the minimum of E is where
A^2 / B is largest among the codes between neighbouring breakpoints. One pass over the sorted breakpoints finds it: each
adds h |w_i| to A and h (2j + 1) to B.

That is exact and costs one sort of k numbers a weight. Where those are many (8 bits, long channels), E is first
taken on a geometric lattice of scales, the min-max scale among them, and the pass is made only between the
neighbours of the best one.

Source: the alternation s = <w, q> / <q, q> is Lloyd's, as in Rastegari et al., "XNOR-Net", 2016, section 3.1; the
pass replaces its many starts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfq.numerics.reference import integer_range
from tfq.reconstruction.problem import Problem

_FEW_BREAKPOINTS = 2**14  # of a channel: all of them are looked at
_STEP = 1.04  # of the lattice
_LATTICE = _STEP ** np.arange(-100.0, 19.0)  # 0.02 to 2 times the min-max scale, 1 included
_CHUNK = 2**22  # breakpoints sorted at a time


def mse_scales(
    kernel: np.ndarray, bits: int, axis: int | None, *, importance: np.ndarray | None = None, narrow: bool = False
) -> np.ndarray:
    """Scales float64 [channels] (or [1] without axis) whose symmetric grid has the smallest squared error.

    A channel of zeros only gets the largest scale found in the tensor, as in `reference.symmetric_scales`.

    Args:
      kernel: any shape, finite.
      bits: grid bits, 2..8.
      axis: channel axis, None for one scale.
      importance: weight of every element's squared error, of the kernel's shape, 0 or more. A channel without
        any importance is treated as if all its elements had the same.
      narrow: as in `tfq.grid.Grid`.
    """
    low, high = integer_range(bits, symmetric=True, narrow=narrow)
    limits = _rows(np.where(np.asarray(kernel) < 0, -low, high), axis)
    rows = _rows(np.abs(kernel, dtype=np.float64), axis)
    if importance is None:
        weights = np.ones_like(rows)
    else:
        if np.shape(importance) != np.shape(kernel) or not (np.asarray(importance) >= 0).all():
            raise ValueError(f"importance must be 0 or more and of the shape {np.shape(kernel)}")
        weights = _rows(np.asarray(importance, np.float64), axis)
    # only ratios count; products of tiny numbers would vanish
    peaks, heaviest = rows.max(axis=1), weights.max(axis=1, keepdims=True)
    weights = np.where(heaviest > 0, weights / np.where(heaviest > 0, heaviest, 1.0), 1.0)
    # an element without importance may be clipped at no cost: a channel whose others are 0 counts them all
    weights = np.where((weights * rows > 0).any(axis=1, keepdims=True), weights, 1.0)
    scales = np.zeros(len(rows))
    used = np.flatnonzero(peaks > 0)
    for part in _parts(used, rows.shape[1] * high):
        scales[part] = peaks[part] * _best_scales(rows[part] / peaks[part, None], weights[part], limits[part])
    return np.where(scales > 0, scales, scales.max() or 1.0 / high)


def output_scales(problem: Problem) -> np.ndarray:
    """`mse_scales` of a layer's matrix, float64 [groups, outputs], or those given or found with a codebook.

    Tied outputs share theirs.
    """
    if problem.scales_are_given or problem.codebook:
        return problem.scales
    return mse_scales(by_scale(problem.matrix, problem.tied), problem.bits, 0, narrow=problem.narrow)[problem.tied]


def by_scale(matrix: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """A matrix [groups, taps, outputs] as [scales, weights of one]; `tied` [groups, outputs] are numbers of scales."""
    columns = matrix.transpose(0, 2, 1).reshape(-1, matrix.shape[1])
    together = columns[np.argsort(tied.ravel(), kind="stable")]  # every scale has equally many outputs
    return together.reshape(tied.max() + 1, -1)


def _rows(values: np.ndarray, axis: int | None) -> np.ndarray:
    """The values as [channels, elements of one]."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    count = max(1, _CHUNK // max(size, 1))
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


def _best_scales(rows: np.ndarray, weights: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The best scale of every row of magnitudes [channels, n] whose largest is 1, and of their largest codes."""
    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    if rows.shape[1] * limits.max() > _FEW_BREAKPOINTS:
        lattice = _LATTICE / limits.max()
        found = lattice[np.argmin([_errors(rows, weights, s, limits) for s in lattice], axis=0)]
        low, high = found / _STEP, found * _STEP
    return np.array([_best_scale(*row) for row in zip(rows, weights, limits, low, high, strict=True)])


def _errors(rows: np.ndarray, weights: np.ndarray, scale: float, limits: np.ndarray) -> np.ndarray:
    """Squared error of every row at one scale."""
    codes = np.minimum(np.rint(rows / scale), limits)
    return np.einsum("cn,cn->c", weights, np.square(rows - scale * codes))


def _best_scale(row: np.ndarray, weights: np.ndarray, limits: np.ndarray, low: float, high: float) -> float:
    """The scale between `low` and `high` of the smallest error, of magnitudes [n]."""
    first = np.minimum(np.floor(row / high + 0.5), limits).astype(np.int64)  # codes at the largest scale
    last = limits if low == 0 else np.minimum(np.floor(row / low + 0.5), limits).astype(np.int64)
    last = np.where(row > 0, last, first)
    counts = last - first
    element = np.repeat(np.arange(len(row)), counts)
    code = np.arange(len(element)) - np.repeat(np.cumsum(counts) - counts, counts) + first[element]
    order = np.argsort(-row[element] / (code + 0.5), kind="stable")
    element, code = element[order], code[order]
    products = np.cumsum(np.append(weights @ (row * first), (weights * row)[element]))
    squares = np.cumsum(np.append(weights @ np.square(first), weights[element] * (2 * code + 1)))
    gains = np.divide(np.square(products), squares, out=np.zeros_like(products), where=squares > 0)
    best = int(np.argmax(gains))
    return float(products[best] / squares[best])
