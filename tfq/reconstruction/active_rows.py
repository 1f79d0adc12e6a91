"""Least squares over the rows that a fused clamp lets through, with a matrix H for every output.

With rows x, float outputs z before the clamp f and present outputs y, a row counts for output c with the weight

    d = 1         where z > 0 or y > 0, and for ReLU6 also z < 6 or y < 6: active, the target is t = f(z)
    d = epsilon   elsewhere: f has no slope there, the target is the present y

For every output alone, its bias eliminated,

    H_c = X' D_c X / n + lambda I,    w*_c = H_c^-1 (X' D_c t_c / n + lambda w_0),    lambda = damping * trace / taps

and codes, scale and bias follow by a search (`lattice`) from the present ones, for each epsilon in turn. With
epsilon = 1 the weighted error bounds the loss and each step is safe, but short; below it bounds nothing and steps are
long, so an output keeps what lowers its own loss sum |f(y) - f(z)|^2 over the rows, and else what it had. Which rows
are active is taken from the solution it starts from.

One H for all outputs (`least_squares`) weighs rows that make no difference like those that do. The matrices are dear
where there are many taps and outputs, and say little there, with as many taps as a few thousand rows can tell apart:
such layers are left as they are (`is_affordable`).

Source: iteratively reweighted least squares, e.g. Lange 2010, "Numerical Analysis for Statisticians", chapter 13; the
objective is that of Hubara et al. 2020 (arXiv:2006.10518), equation 2, with the range of the inputs fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tfq.reconstruction.lattice import best_scales, search, stored_scales
from tfq.reconstruction.problem import Problem, Solution, clamp

_EPSILONS = (0.3, 0.1, 0.03)
_ALTERNATIONS = 2
_MOST_WORK = 5e10  # multiplications for all H: a second or two
_PART_BYTES = 2**26  # of the H, or of the rows, of the outputs that are worked on side by side


def is_affordable(problem: Problem) -> bool:
    """Whether every output can have an H of its own: not in layers of very many taps and outputs."""
    groups, taps, outputs = problem.matrix.shape
    return groups * outputs * len(problem.inputs) * taps**2 / 2 <= _MOST_WORK


def refined(problem: Problem, start: Solution, damping: float) -> Solution:
    """A solution whose loss on the rows of `problem` is no larger than that of `start`, output by output."""
    codes, scales, bias = start.codes.copy(), np.asarray(start.scales, np.float64).copy(), start.bias.copy()
    inputs, posed = problem.quantized_inputs(), dataclasses.replace(problem, codebook=start.codebook)
    for groups, outputs in _parts(problem):
        part = _Part.of(posed, inputs, groups, outputs)
        found = part.refined(codes[groups, :, outputs], scales[groups, outputs], bias[groups, outputs], damping)
        codes[groups, :, outputs], scales[groups, outputs], bias[groups, outputs] = found
    return dataclasses.replace(start, codes=codes, scales=scales, bias=bias)


def _parts(problem: Problem) -> Iterator[tuple[slice, slice]]:
    """Groups and outputs that are worked on side by side."""
    groups, taps, outputs = problem.matrix.shape
    if groups == 1:
        step = max(1, _PART_BYTES // (8 * (taps + 1) ** 2))
        yield from ((slice(0, 1), slice(first, first + step)) for first in range(0, outputs, step))
    else:
        step = max(1, _PART_BYTES // (4 * len(problem.inputs) * (taps + 1)))
        yield from ((slice(first, first + step), slice(0, outputs)) for first in range(0, groups, step))


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Some outputs of a layer, groups first.

    Attributes:
      problem: the layer.
      rows: x and a one, float32 [g, n, k + 1]; a zero where the layer has no bias.
      targets, offset: z and what is added to the outputs [g, n, c]; offset is one zero where nothing is.
      start: w_0 [g * c, k].
      own_scales: every output has a scale of its own, which may move.
    """

    problem: Problem
    rows: np.ndarray
    targets: np.ndarray
    offset: np.ndarray
    start: np.ndarray
    own_scales: bool

    @classmethod
    def of(cls, problem: Problem, inputs: np.ndarray, groups: slice, outputs: slice) -> _Part:
        """The outputs of these slices; `inputs` [n, groups, taps] are those of the layer, on their grid."""
        x = inputs[:, groups].transpose(1, 0, 2)
        ones = np.full((*x.shape[:2], 1), problem.has_bias, np.float32)
        targets = problem.targets[:, groups, outputs].transpose(1, 0, 2)
        offset = np.zeros((1, 1, 1), np.float32)
        if problem.offset is not None:
            offset = problem.offset[:, groups, outputs].transpose(1, 0, 2)
        start = problem.matrix[groups, :, outputs].transpose(0, 2, 1).reshape(-1, x.shape[2])
        own = problem.tied.max() + 1 == problem.tied.size and not problem.scales_are_given
        return cls(problem, np.concatenate([x, ones], 2), targets, offset, start, own)

    def refined(
        self, codes: np.ndarray, scales: np.ndarray, bias: np.ndarray, damping: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes int8 [g, k, c], scales and bias [g, c], from present ones."""
        groups, taps, outputs = codes.shape
        q = codes.transpose(0, 2, 1).reshape(-1, taps, 1).astype(np.float64)
        s, b = scales.reshape(-1, 1).copy(), bias.reshape(-1).astype(np.float64)
        y = self._outputs(q, s, b)
        loss, active = self._losses(y), self._active(y)
        through, everything = self._grams(active)
        for epsilon in _EPSILONS:
            gram = (1 - epsilon) * through + epsilon * everything
            targets = np.where(active, clamp(self.targets, self.problem.limits), y) - self.offset
            weighted = np.where(active, np.float32(1), np.float32(epsilon)) * targets
            moment = (self.rows.transpose(0, 2, 1) @ weighted).transpose(0, 2, 1).reshape(-1, taps + 1) / y.shape[1]
            new = self._solved(gram, moment.astype(np.float64), q, s, b, damping)
            outputs_now = self._outputs(*new)
            losses = self._losses(outputs_now)
            better = losses < loss
            q[better], s[better], b[better] = (values[better] for values in new)
            y = np.where(better.reshape(groups, 1, outputs), outputs_now, y)
            loss = np.minimum(losses, loss)
        shape = (groups, outputs)
        return q.reshape(*shape, taps).transpose(0, 2, 1).astype(np.int8), s.reshape(shape), b.reshape(shape)

    def _solved(
        self, gram: np.ndarray, moment: np.ndarray, q: np.ndarray, s: np.ndarray, b: np.ndarray, damping: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes, scales and bias for X' D X / n and X' D t / n, the ones' row and column last."""
        taps = q.shape[1]
        matrix, wanted = gram[:, :taps, :taps], moment[:, :taps]
        ones, mean, target = gram[:, taps, taps, None], gram[:, :taps, taps], moment[:, taps, None]
        if self.problem.has_bias:
            matrix = matrix - mean[:, :, None] * mean[:, None, :] / ones[:, :, None]
            wanted = wanted - mean * target / ones
        added = damping * np.trace(matrix, axis1=1, axis2=2)[:, None] / taps
        added = np.where(added > 0, added, 1.0)  # an input that is constant tells nothing: the weights stay
        matrix = matrix + added[:, :, None] * np.eye(taps)
        weights = np.linalg.solve(matrix, (wanted + added * self.start)[:, :, None])
        apart = np.arange(len(q))[:, None]
        for _ in range(_ALTERNATIONS):
            if self.own_scales:
                s = stored_scales(best_scales(matrix, weights, q, s, apart), self.problem.bits)
            q = search(matrix, weights, s, q, self.problem.codes, seed=self.problem.seed)
        if self.problem.has_bias:
            b = ((target[:, 0] - (mean * q[:, :, 0] * s).sum(1)) / ones[:, 0]).astype(np.float64)
        return q, s, b

    def _outputs(self, q: np.ndarray, s: np.ndarray, b: np.ndarray) -> np.ndarray:
        """y [g, n, c], float32."""
        groups, _, outputs = self.targets.shape
        weights = np.concatenate([q[:, :, 0] * s, b[:, None]], 1).reshape(groups, outputs, -1)
        return self.rows @ weights.transpose(0, 2, 1).astype(np.float32) + self.offset

    def _losses(self, y: np.ndarray) -> np.ndarray:
        """sum |f(y) - f(z)|^2 of every output [g * c]."""
        f = self.problem.limits
        return np.square(clamp(y, f) - clamp(self.targets, f)).sum(1, dtype=np.float64).reshape(-1)

    def _active(self, y: np.ndarray) -> np.ndarray:
        """Flags [g, n, c]."""
        low, high = self.problem.limits
        return (np.maximum(y, self.targets) > low) & (np.minimum(y, self.targets) < high)

    def _grams(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X' X / n over the active rows of every output, and over all rows: [g * c, k + 1, k + 1], float64."""
        groups, count, outputs = active.shape
        size = self.rows.shape[2]
        found = np.empty((groups, outputs, size, size))
        everything = (self.rows.transpose(0, 2, 1) @ self.rows).astype(np.float64)
        for g in range(groups):
            for c in range(outputs):
                flags = active[g, :, c]
                few = flags if 2 * np.count_nonzero(flags) <= count else ~flags
                rows = self.rows[g][few]
                own = rows.T @ rows
                found[g, c] = own if few is flags else everything[g] - own
        return found.reshape(-1, size, size) / count, np.repeat(everything, outputs, axis=0) / count
