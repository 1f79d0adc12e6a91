"""Codes and scales of weights for which a quadratic form is small: what the closed forms have in common.

For each output the error (w - w*)' H (w - w*) of weights w = s * q, codes |q| <= top, is minimised over

    s on a lattice of clipping ratios, errors weighted by diag H                                `lattice_scales`
    q in the order of falling H_kk, each error spread over the taps not yet rounded (GPTQ)      `rounded`
    q by coordinate descent: every code moves to the integer nearest its optimum given all others    `descend`
    s = q' H w* / q' H q, for given codes                                                       `best_scales`

Shapes: H [g, k, k], w* and q [g, k, c], s [g, c]; outputs with equal numbers in `tied` [g, c] share one scale.

Source: Frantar et al. 2022 (arXiv:2210.17323, GPTQ), equations 2-4; the descent goes on from there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.numerics import reference

_RATIOS = np.linspace(0.4, 1.1, 36)
_SWEEPS = 30
_BLOCK = 64


def lattice_scales(gram: np.ndarray, wanted: np.ndarray, present: np.ndarray, tied: np.ndarray, top: int) -> np.ndarray:
    """For each set of tied outputs the clipping ratio of the smallest error weighted by diag H; [g, c].

    Where all of its weights are 0, that of the scales `present` [g, c].
    """
    importance = np.diagonal(gram, axis1=1, axis2=2)[:, :, None]
    largest = _tied_max(np.abs(wanted).max(1), tied)
    largest = np.where(largest > 0, largest, present * top)
    best, lowest = largest / top, np.full(largest.shape, np.inf)
    for ratio in _RATIOS:
        scales = largest * ratio / top
        codes = np.clip(np.rint(wanted / scales[:, None]), -top, top)
        cost = tied_sum((importance * (codes * scales[:, None] - wanted) ** 2).sum(1), tied)
        best, lowest = np.where(cost < lowest, scales, best), np.minimum(cost, lowest)
    return best


def best_scales(
    gram: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scales: np.ndarray, tied: np.ndarray
) -> np.ndarray:
    """The closed form for given codes; where it would not be positive the present scales."""
    projected = gram @ codes
    above = tied_sum((projected * wanted).sum(1), tied)
    below = tied_sum((projected * codes).sum(1), tied)
    return np.where((above > 0) & (below > 0), above / np.where(below > 0, below, 1.0), scales)


def stored_scales(scales: np.ndarray, bits: int) -> np.ndarray:
    """The scales as the file will have them, for which codes and bias are found then."""
    return reference.nearest_weight_scale(scales, bits).astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Ordered:
    """H with its taps in the order of falling H_kk, and the upper Cholesky factor of its inverse.

    Attributes:
      order, back: taps [g, k] in that order, and the way back.
      gram, upper: [g, k, k].
    """

    order: np.ndarray
    back: np.ndarray
    gram: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray) -> Ordered:
        """Of H as it is."""
        order = np.argsort(-np.diagonal(gram, axis1=1, axis2=2), axis=1, kind="stable")
        back = np.argsort(order, axis=1, kind="stable")
        ordered = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None, :], 2)
        return cls(order, back, ordered, np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1))


def rounded(ordered: Ordered, wanted: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    """Codes [g, k, c] as float64."""
    gram, wanted = ordered.gram, np.take_along_axis(wanted, ordered.order[:, :, None], 1)
    nearest = np.clip(np.rint(wanted / scales[:, None]), -top, top)
    spread = _spread(ordered.upper, wanted, scales, top)
    costs = (quadratic_cost(gram, wanted, q, scales) for q in (nearest, spread))
    codes = np.where(np.less(*costs)[:, None], nearest, spread)  # few taps: spreading may lose to it
    codes = descend(gram, wanted, scales, codes, top)
    return np.take_along_axis(codes, ordered.back[:, :, None], 1)


def _spread(upper: np.ndarray, wanted: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    """GPTQ: round tap by tap, spread each error over those that follow; block by block for speed."""
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


def descend(gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, codes: np.ndarray, top: int) -> np.ndarray:
    """Coordinate descent over the codes, in place of `codes`.

    The slope follows the codes block by block; a block in which no code wants to move costs next to nothing.
    """
    units = np.diagonal(gram, axis1=1, axis2=2)[:, :, None] * scales[:, None]
    slope = gram @ (codes * scales[:, None] - wanted)
    taps = codes.shape[1]

    def steps(part: slice | int, slope: np.ndarray) -> np.ndarray:
        present = codes[:, part]
        return np.clip(np.rint(present - slope / units[:, part]), -top, top) - present

    for _ in range(_SWEEPS):
        changed = False
        for start in range(0, taps, _BLOCK):
            stop = min(start + _BLOCK, taps)
            block = slice(start, stop)
            if not steps(block, slope[:, block]).any():
                continue
            own, moved = slope[:, block].copy(), np.zeros_like(codes[:, block])
            for k in range(start, stop):
                step = steps(k, own[:, k - start])
                if step.any():
                    codes[:, k] += step
                    moved[:, k - start] = step * scales
                    own[:, k + 1 - start :] += gram[:, k + 1 : stop, k, None] * moved[:, k - start, None]
            slope += gram[:, :, block] @ moved
            changed = True
        if not changed:
            break
    return codes


def quadratic_cost(gram: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(w - w*)' H (w - w*) of every output, [g, c]."""
    error = codes * scales[:, None] - wanted
    return np.maximum((error * (gram @ error)).sum(1), 0.0)


def tied_sum(values: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """Every value [g, c] replaced by the sum over the outputs that share its scale."""
    return np.bincount(tied.ravel(), values.ravel().astype(np.float64))[tied]


def _tied_max(values: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """The same with the largest."""
    largest = np.zeros(tied.max() + 1)
    np.maximum.at(largest, tied.ravel(), values.ravel())
    return largest[tied]
