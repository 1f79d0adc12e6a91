"""Layer-wise least squares on the integer grid: no gradient, a closed form and a descent over the codes.

With x = Q(x_q) and z centred about their weighted means over the rows,

    H = X' D X + lambda I,   W* = H^-1 (X' D Z + lambda W),   lambda = DAMPING * trace(X' D X) / taps

minimises |X W - Z|^2_D + lambda |W - W_0|^2, so that the layer also makes good the error of its inputs.
What rounding adds on top is (w - w*)' H (w - w*) for each output; it is minimised over w = s * q by

    1. s on a lattice of clipping ratios, errors weighted by diag H;
    2. codes in the order of falling H_kk, each error spread over the taps not yet rounded (GPTQ);
    3. coordinate descent: every code moves to the integer nearest its optimum given all others, until none does;
    4. s = q' H w* / q' H q, and 2.-3. again.

The bias follows: b = mean z - mean x @ (s q). D are weights of the rows, one set for each group of outputs: a
row that the activation clamps counts little. They are all 1 where a group has many outputs, since each
output would need an H of its own.

Sources: Frantar et al. 2022 (arXiv:2210.17323, GPTQ), equations 2-4; Hubara et al. 2020 (arXiv:2006.10518),
equation 2, whose sequential objective this is, without the scale of the inputs.
"""

from __future__ import annotations

import numpy as np

from tfq.reconstruction.problem import Problem, Solution

DAMPING = 1e-2
_CLAMPED = 0.1  # weight of a row that the activation clamps
_RATIOS = np.linspace(0.4, 1.1, 36)
_ALTERNATIONS = 3
_SWEEPS = 30
_BLOCK = 64


def least_squares(problem: Problem, *, damping: float = DAMPING) -> Solution:
    """Codes, scales and bias of the smallest error on the rows of `problem`."""
    gram, wanted, mean_inputs, mean_targets = _normal_equations(problem, damping)
    scales = _lattice_scales(problem, gram, wanted)
    codes = _rounded(gram, wanted, scales, problem.largest_code)
    for _ in range(_ALTERNATIONS):
        better = _best_scales(gram, wanted, codes, scales, problem.tied)
        found = _rounded(gram, wanted, better, problem.largest_code)
        costs = (_cost(gram, wanted, q, s) for q, s in ((found, better), (codes, scales)))
        improved = np.less(*(_tied_sum(cost, problem.tied) for cost in costs))
        if not improved.any():
            break
        scales = np.where(improved, better, scales)
        codes = np.where(improved[:, None, :], found, codes)
    bias = problem.bias
    if problem.has_bias:
        bias = mean_targets - np.einsum("gkc,gkc->gc", mean_inputs, codes * scales[:, None, :])
    return Solution(codes.astype(np.int8), scales, bias)


def _normal_equations(problem: Problem, damping: float) -> tuple[np.ndarray, ...]:
    """H [g, k, k], W* [g, k, c], mean x [g, k, c or 1], mean z [g, c]; float64."""
    x = problem.quantized_inputs().astype(np.float64).transpose(1, 0, 2)  # [g, n, k]
    z = problem.targets.astype(np.float64).transpose(1, 0, 2)
    start = problem.matrix.astype(np.float64)
    weights = np.ones((*z.shape[:2], 1))
    if z.shape[2] == 1 and problem.activation is not None:
        ceiling = 6.0 if problem.activation == "relu6" else np.inf
        weights = np.where((z < 0) | (z > ceiling), _CLAMPED, 1.0)
    weights /= weights.sum(1, keepdims=True)
    if problem.has_bias:
        mean_x, mean_z = (weights * x).sum(1, keepdims=True), (weights * z).sum(1, keepdims=True)
    else:
        mean_x, mean_z = np.zeros((len(x), 1, x.shape[2])), np.zeros((len(z), 1, z.shape[2]))
    x -= mean_x
    weighted = (weights * x).transpose(0, 2, 1)
    gram, moment = weighted @ x, weighted @ (z - mean_z)
    taps = gram.shape[1]
    added = damping * np.trace(gram, axis1=1, axis2=2)[:, None, None] / taps
    added = np.where(added > 0, added, 1.0)  # an input that is constant tells nothing: the weights stay
    gram = gram + added * np.eye(taps)
    wanted = np.linalg.solve(gram, moment + added * start)
    return gram, wanted, mean_x.transpose(0, 2, 1), mean_z[:, 0]


def _lattice_scales(problem: Problem, gram: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each set of tied outputs the clipping ratio of the smallest error weighted by diag H; [g, c]."""
    top = problem.largest_code
    importance = np.diagonal(gram, axis1=1, axis2=2)[:, :, None]
    largest = _tied_max(np.abs(wanted).max(1), problem.tied)
    largest = np.where(largest > 0, largest, problem.scales * top)
    best, lowest = largest / top, np.full(largest.shape, np.inf)
    for ratio in _RATIOS:
        scales = largest * ratio / top
        codes = np.clip(np.rint(wanted / scales[:, None]), -top, top)
        cost = _tied_sum((importance * (codes * scales[:, None] - wanted) ** 2).sum(1), problem.tied)
        best, lowest = np.where(cost < lowest, scales, best), np.minimum(cost, lowest)
    return best


def _best_scales(
    gram: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scales: np.ndarray, tied: np.ndarray
) -> np.ndarray:
    """The closed form for given codes; where it would not be positive the present scales."""
    projected = gram @ codes
    above = _tied_sum((projected * wanted).sum(1), tied)
    below = _tied_sum((projected * codes).sum(1), tied)
    return np.where((above > 0) & (below > 0), above / np.where(below > 0, below, 1.0), scales)


def _rounded(gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    """Codes [g, k, c] as float64."""
    order = np.argsort(-np.diagonal(gram, axis1=1, axis2=2), axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    sorted_gram = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None, :], 2)
    sorted_wanted = np.take_along_axis(wanted, order[:, :, None], 1)
    codes = _spread(sorted_gram, sorted_wanted, scales, top)
    codes = _descend(sorted_gram, sorted_wanted, scales, codes, top)
    return np.take_along_axis(codes, back[:, :, None], 1)


def _spread(gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    """GPTQ: round tap by tap, spread each error over those that follow; block by block for speed."""
    upper = np.linalg.cholesky(np.linalg.inv(gram)).transpose(0, 2, 1)
    left, codes = wanted.copy(), np.empty_like(wanted)
    taps = wanted.shape[1]
    for start in range(0, taps, _BLOCK):
        stop = min(start + _BLOCK, taps)
        errors = np.empty_like(left[:, start:stop])
        for k in range(start, stop):
            codes[:, k] = np.clip(np.rint(left[:, k] / scales), -top, top)
            error = (left[:, k] - codes[:, k] * scales) / upper[:, k, k, None]
            left[:, k + 1 : stop] -= upper[:, k, k + 1 : stop, None] * error[:, None]
            errors[:, k - start] = error
        left[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    return codes


def _descend(gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, codes: np.ndarray, top: int) -> np.ndarray:
    """Coordinate descent over the codes, in place of `codes`."""
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    taps = codes.shape[1]
    for _ in range(_SWEEPS):
        slope = gram @ (codes * scales[:, None] - wanted)
        changed = False
        for start in range(0, taps, _BLOCK):
            stop = min(start + _BLOCK, taps)
            moved = np.zeros_like(codes[:, start:stop])
            for k in range(start, stop):
                target = codes[:, k] - slope[:, k] / (diagonal[:, k, None] * scales)
                step = np.clip(np.rint(target), -top, top) - codes[:, k]
                if step.any():
                    codes[:, k] += step
                    moved[:, k - start] = step * scales
                    slope[:, k + 1 : stop] += gram[:, k + 1 : stop, k, None] * moved[:, k - start, None]
            if moved.any():
                changed = True
                slope[:, stop:] += gram[:, stop:, start:stop] @ moved
        if not changed:
            break
    return codes


def _cost(gram: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(w - w*)' H (w - w*) of every output, [g, c]."""
    error = codes * scales[:, None] - wanted
    return np.maximum((error * (gram @ error)).sum(1), 0.0)


def _tied_sum(values: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """Every value [g, c] replaced by the sum over the outputs that share its scale."""
    return np.bincount(tied.ravel(), values.ravel().astype(np.float64))[tied]


def _tied_max(values: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """The same with the largest."""
    largest = np.zeros(tied.max() + 1)
    np.maximum.at(largest, tied.ravel(), values.ravel())
    return largest[tied]
