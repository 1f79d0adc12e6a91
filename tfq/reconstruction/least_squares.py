"""Layer-wise least squares on the integer grid: no gradient, a closed form and a descent over the codes.

With rows x = Q(x_q) and z, both centred about their means, and mu = trace(X' X / n) / taps,

    W* = (X' X / n + lambda mu I)^-1 (X' Z / n + lambda mu W_0)

minimises |X W - Z|^2 / n + lambda mu |W - W_0|^2, so that the layer also makes good the error of its inputs.
What rounding adds on top is about (w - w*)' H (w - w*) for each output, with

    H = X' X / n + min(lambda, 0.1) mu I

It is minimised over w = s * q by

    1. s on a lattice of clipping ratios, errors weighted by diag H;
    2. for multiples of it, codes in the order of falling H_kk, each error spread over the taps not yet rounded (GPTQ);
       the multiple of the smallest error is taken, because what is best for diag H is not so for H;
    3. coordinate descent: the code of each output that gains most moves, until none gains;
    4. s = q' H w* / q' H q, and 2.-3. again for this one;
    5. in `with_search`: s again and a search over the codes in turns.

A codebook of the layer is found before, for W* and H (`codebooks`).

The bias follows: b = mean z - mean x @ (s q).

Two dampings, because they guard against different things. H has to be known in the directions in which weights are
rounded, and the rows of a few hundred samples tell it well. W* - W_0 makes good what the layers before have lost, which
is small and noisy: how much of it holds for other samples is a question for each layer. The rows to choose by pick
lambda from 0.01 to infinity (W* = W_0, the layer's own function), by the error of W* before it is rounded.

A clamp f to [l, h] changes what counts: below a target z <= l any y <= l is right. As |f(y) - f(z)|^2 is bounded by
|y - t|^2, with equality where the clamp cuts the present y off no further than z, for the targets

    t = min(y, l) where z <= l,   max(y, h) where z >= h,   z elsewhere     (y of the present solution)

steps 3. and 4. are repeated on these targets while that pays, and the best solution is kept (majorisation-
minimisation). Its steps are short, as if every row counted; `active_rows` goes on from there.

Sources: Frantar et al. 2022 (arXiv:2210.17323, GPTQ), equations 2-4; Hubara et al. 2020 (arXiv:2006.10518),
equation 2, whose sequential objective this is, with the range of the inputs fixed; Hoerl and Kennard 1970, "Ridge
Regression"; Hunter and Lange 2004 on majorisation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tfq.numerics.codebook import Codes
from tfq.reconstruction.codebooks import fitted_codebook
from tfq.reconstruction.lattice import (
    Ordered,
    best_scales,
    cheapest,
    descend,
    lattice_scales,
    multiples,
    rounded,
    search,
    stored_scales,
)
from tfq.reconstruction.problem import UNLIMITED, Problem, Solution, clamp

DAMPINGS = (1e-2, 1e-1, 1.0, 10.0, np.inf)
_ROUNDING = 1e-1
_ALTERNATIONS = 3
_ROUNDS = 8
_WORTH, _PATIENCE = 2e-4, 2  # so many rounds that lower the loss by less are the last
_AT_ONCE = 2**18  # numbers
_SIDE_BYTES = 2**26  # of the weights at several scales that are worked on side by side


def least_squares(problem: Problem, *, dampings: Sequence[float] = DAMPINGS) -> Solution:
    """Codes, scales and bias of a small error on the rows of `problem`.

    Args:
      problem: the layer.
      dampings: how much the weights are held where they are; of several the one is taken whose W* has the smallest
        error on the rows to choose by. None below 1 / samples is tried: the moments of n samples are known to about
        1 / sqrt(n), their square to 1 / n, and the rows to choose by of so few samples resemble those fitted to, and
        favour too little.
    """
    return next(with_search(problem, dampings=dampings))


def least_squares_of(problems: Sequence[Problem]) -> Iterator[Solution]:
    """The same of problems that differ in the grid of their weights alone: W* and H are found once."""
    fit = _Fit.of(problems[0], DAMPINGS)
    for problem in problems:
        posed = fit.with_codebook(problem)
        yield _finished(posed, fit, _solved(posed, fit))


def with_search(problem: Problem, *, dampings: Sequence[float] = DAMPINGS) -> Iterator[Solution]:
    """That of `least_squares`, and then the one that a search over its codes finds (step 5.)."""
    fit = _Fit.of(problem, dampings)
    problem = fit.with_codebook(problem)
    found = _solved(problem, fit)
    yield _finished(problem, fit, found)
    yield _finished(problem, fit, _searched(problem, fit, found))


def _finished(problem: Problem, fit: _Fit, solution: Solution) -> Solution:
    return solution if problem.limits == UNLIMITED else _majorised(problem, fit, solution)


def _solved(problem: Problem, fit: _Fit) -> Solution:
    """Steps 1. to 4.; rounding to the nearest where that is better."""
    present, tied, allowed = problem.scales, problem.tied, problem.codes
    rows, gram, wanted, ordered = fit.rows, fit.normal.gram, fit.wanted, fit.ordered
    starts = [present]
    if not problem.scales_are_given:
        fitted_scales = present if problem.codebook else lattice_scales(gram, wanted, present, tied, allowed)
        starts = multiples(fitted_scales, problem.bits)
    codes, scales = cheapest(gram, wanted, tied, _at_scales(ordered, wanted, starts, allowed))
    codes = descend(gram, wanted, scales, codes, allowed)
    for _ in range(0 if problem.scales_are_given else _ALTERNATIONS):
        better = stored_scales(best_scales(gram, wanted, codes, scales, tied), problem.bits)
        again = descend(gram, wanted, better, rounded(ordered, wanted, better, allowed), allowed)
        codes, found = cheapest(gram, wanted, tied, [(codes, scales), (again, better)])
        if np.array_equal(found, scales):
            break
        scales = found
    fitted, nearest = rows.fitted(rows.solution(problem, codes, scales, rows.targets)), rows.fitted(problem.nearest())
    return min(fitted, nearest, key=lambda start: start.loss).solution


def _at_scales(
    ordered: Ordered, wanted: np.ndarray, starts: Sequence[np.ndarray], allowed: Codes
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Step 2. for each of several scales: (codes, scales). They stand side by side as if they were more outputs."""
    at_once = max(1, _SIDE_BYTES // wanted.nbytes)
    for first in range(0, len(starts), at_once):
        part = starts[first : first + at_once]
        codes = rounded(ordered, np.tile(wanted, len(part)), np.concatenate(part, 1), allowed)
        yield from zip(np.split(codes, len(part), 2), part, strict=True)


def _searched(problem: Problem, fit: _Fit, start: Solution) -> Solution:
    """Step 5.; what it starts from where that is better on the rows."""
    rows, gram, wanted = fit.rows, fit.normal.gram, fit.wanted
    codes, scales = start.codes.astype(np.float64), start.scales
    for _ in range(1 if problem.scales_are_given else _ALTERNATIONS):
        if not problem.scales_are_given:
            scales = stored_scales(best_scales(gram, wanted, codes, scales, problem.tied), problem.bits)
        codes = search(gram, wanted, scales, codes, problem.codes, seed=problem.seed)
    found = rows.solution(problem, codes, scales, rows.targets)
    return min(rows.fitted(start), rows.fitted(found), key=lambda fitted: fitted.loss).solution


def _majorised(problem: Problem, fit: _Fit, start: Solution) -> Solution:
    """Steps 3. and 4. on the targets of the clamp, again and again."""
    rows, normal = fit.rows, fit.normal
    present = best = rows.fitted(start)
    codes, scales, idle = start.codes.astype(np.float64), start.scales, 0
    for _ in range(_ROUNDS):
        targets = rows.majorised(present.outputs)
        wanted = normal.wanted(rows.moment(targets), problem.matrix)
        if not problem.scales_are_given:
            scales = stored_scales(best_scales(normal.gram, wanted, codes, scales, problem.tied), problem.bits)
        codes = descend(normal.gram, wanted, scales, codes, problem.codes)
        present = rows.fitted(rows.solution(problem, codes, scales, targets))
        idle = 0 if present.loss < (1 - _WORTH) * best.loss else idle + 1
        best = min(best, present, key=lambda fitted: fitted.loss)
        if idle == _PATIENCE:
            break
    return best.solution


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitted:
    """A solution, its outputs y [g, n, c] and the sum of their squared errors behind the clamp."""

    solution: Solution
    outputs: np.ndarray
    loss: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Normal:
    """H, and what W* takes of X' Z / n and of W_0; float64 [groups, taps, taps]."""

    gram: np.ndarray
    fitted: np.ndarray
    kept: np.ndarray

    def wanted(self, moment: np.ndarray, start: np.ndarray) -> np.ndarray:
        """W* [g, k, c] for the moment X' Z / n."""
        return self.fitted @ moment + self.kept @ start


@dataclasses.dataclass(frozen=True, eq=False)
class _Fit:
    """What does not hang on the grid of the weights: the rows, H, its taps in their order, and W*."""

    rows: _Rows
    normal: _Normal
    ordered: Ordered
    wanted: np.ndarray

    @classmethod
    def of(cls, problem: Problem, dampings: Sequence[float]) -> _Fit:
        """With the damping that the rows to choose by favour."""
        rows = _Rows(problem)
        moment = rows.moment(rows.targets)
        tried = [damping for damping in dampings if damping >= 1 / problem.samples] or dampings
        fits = ((normal, normal.wanted(moment, problem.matrix)) for normal in map(rows.normal, tried))
        normal, wanted = (
            min(fits, key=lambda fit: problem.error_of(fit[1].astype(np.float32), rows.bias(fit[1], rows.targets)))
            if len(tried) > 1
            else next(fits)
        )
        return cls(rows, normal, Ordered.of(normal.gram), wanted)

    def with_codebook(self, problem: Problem) -> Problem:
        """The problem with the codebook and scales that H favours, where its grid has a codebook."""
        if not problem.codebook:
            return problem
        return fitted_codebook(problem, self.ordered, self.normal.gram, self.wanted)


class _Rows:
    """The rows of a problem, centred, groups first. The rows are float32, sums over them float64."""

    def __init__(self, problem: Problem):
        self._problem = problem
        x = np.array(problem.quantized_inputs().transpose(1, 0, 2), order="C")  # [g, n, k], a copy of its own
        self.targets = problem.targets.transpose(1, 0, 2)  # [g, n, c]
        self._offset = None if problem.offset is None else problem.offset.transpose(1, 0, 2)
        self._mean = np.zeros((len(x), 1, x.shape[2]), np.float32)
        if problem.has_bias:
            self._mean = x.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
            x -= self._mean
        self._x = x
        self._gram = self._summed(x)

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """X' values / n, [g, k, ...]."""
        return (self._x.transpose(0, 2, 1) @ values).astype(np.float64) / self._x.shape[1]

    def normal(self, damping: float) -> _Normal:
        """The normal equations."""
        taps = self._gram.shape[1]
        size = np.trace(self._gram, axis1=1, axis2=2)[:, None, None] / taps
        size = np.where(size > 0, size, 1.0)  # an input that is constant tells nothing: the weights stay
        identity = np.broadcast_to(np.eye(taps), self._gram.shape)
        gram = self._gram + min(damping, _ROUNDING) * size * identity
        if np.isinf(damping):
            return _Normal(gram, np.zeros_like(gram), identity)
        inverse = np.linalg.inv(self._gram + damping * size * identity)
        return _Normal(gram, inverse, damping * size * inverse)

    def moment(self, targets: np.ndarray) -> np.ndarray:
        """X' Z / n [g, k, c] of targets [g, n, c]."""
        targets = self._without_offset(targets)
        if self._problem.has_bias:  # in float64: what is constant becomes 0, not a small number that asks for weights
            targets = targets - targets.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        return self._summed(targets)

    def solution(self, problem: Problem, codes: np.ndarray, scales: np.ndarray, targets: np.ndarray) -> Solution:
        """Codes, of the grid of `problem`, and scales with the bias that the targets want."""
        bias = self.bias(codes * scales[:, None], targets)
        return Solution(codes.astype(np.int8), scales, bias, codebook=problem.codebook)

    def bias(self, matrix: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The bias [g, c] that the targets want with these weights [g, k, c]."""
        if not self._problem.has_bias:
            return self._problem.bias
        return self._without_offset(targets).mean(1, dtype=np.float64) - (self._mean @ matrix)[:, 0]

    def _without_offset(self, targets: np.ndarray) -> np.ndarray:
        return targets if self._offset is None else targets - self._offset

    def fitted(self, solution: Solution) -> _Fitted:
        """The solution on these rows."""
        outputs = self._x @ solution.matrix
        outputs += self._mean @ solution.matrix + solution.bias[:, None].astype(np.float32)
        if self._offset is not None:
            outputs += self._offset
        loss, limits = 0.0, self._problem.limits
        for part in self._parts():
            y, z = (clamp(values[:, part], limits) for values in (outputs, self.targets))
            loss += float(np.square(y - z).sum(dtype=np.float64))
        return _Fitted(solution, outputs, loss)

    def majorised(self, outputs: np.ndarray) -> np.ndarray:
        """Targets whose plain squared error bounds that behind the clamp from above, for present outputs."""
        found, (low, high) = np.empty_like(outputs), map(np.float32, self._problem.limits)
        for part in self._parts():
            y, z = outputs[:, part], self.targets[:, part]
            found[:, part] = np.where(z <= low, np.minimum(y, low), np.where(z >= high, np.maximum(y, high), z))
        return found

    def _parts(self) -> Iterator[slice]:
        """All rows, as many at a time as leave the outputs in the processor's cache."""
        groups, rows, outputs = self.targets.shape
        step = max(1, _AT_ONCE // (groups * outputs))
        return (slice(start, start + step) for start in range(0, rows, step))
