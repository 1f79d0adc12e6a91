"""Codes and scales of weights for which a quadratic form is small: what the closed forms have in common.

For each output the error (w - w*)' H (w - w*) of weights w = s * q, codes q of those allowed, is minimised over

    s on a lattice of clipping ratios, errors weighted by diag H                                `lattice_scales`
    s among multiples of it, each with codes of its own, by H, which favours another            `multiples`
    q in the order of falling H_kk, each error spread over the taps not yet rounded (GPTQ)      `rounded`
    q by coordinate descent: the code that gains most moves to the integer nearest its optimum  `descend`
    q by tabu search: the cheapest step to a next code goes on even where it costs, none is undone soon `search`
    s = q' H w* / q' H q, for given codes                                                       `best_scales`

Shapes: H [g, k, k], w* and q [g, k, c], s [g, c]; outputs with equal numbers in `tied` [g, c] share one scale.
Allowed is every integer of a range, or those of a codebook (`tfq.numerics.codebook`).

The descent ends where no code alone gains. Inputs that resemble each other, as neighbouring pixels do, make that a poor
end: two codes would have to move at once. The search passes through what lies between.

Sources: Frantar et al. 2022 (arXiv:2210.17323, GPTQ), equations 2-4; Glover 1989, "Tabu Search - Part I", and Beasley
1998, "Heuristic Algorithms for the Unconstrained Binary Quadratic Programming Problem", for steps by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from tfq.numerics import reference
from tfq.numerics.codebook import Codes

_RATIOS = np.linspace(0.4, 1.1, 36)
_FACTORS = (1.0, 0.7, 0.78, 0.86, 0.93, 1.07, 1.14, 1.22, 1.3)
_ROUNDS = 8  # moves of one output, at most, for each of its taps
_BLOCK = 64
_MOVES, _MOST_WORK = 1000, 1e7  # of a search; numbers looked at in one
_RESTS = 12  # a tap rests for fewer rounds after its move, drawn anew for each


def lattice_scales(
    gram: np.ndarray, wanted: np.ndarray, present: np.ndarray, tied: np.ndarray, allowed: Codes
) -> np.ndarray:
    """For each set of tied outputs the clipping ratio of the smallest error weighted by diag H; [g, c].

    Where all of its weights are 0, that of the scales `present` [g, c].
    """
    importance = np.diagonal(gram, axis1=1, axis2=2)[:, :, None]
    largest = _tied_max(np.abs(wanted).max(1), tied)
    widest = np.where(largest > 0, largest / allowed.high, present)
    best, lowest = widest, np.full(widest.shape, np.inf)
    for ratio in _RATIOS:
        scales = widest * ratio
        codes = allowed.nearest(wanted / scales[:, None])
        cost = tied_sum((importance * (codes * scales[:, None] - wanted) ** 2).sum(1), tied)
        best, lowest = np.where(cost < lowest, scales, best), np.minimum(cost, lowest)
    return best


def multiples(scales: np.ndarray, bits: int) -> list[np.ndarray]:
    """The scales, and scales about them to try, all as they are stored."""
    return [stored_scales(factor * scales, bits) for factor in _FACTORS]


def cheapest(
    gram: np.ndarray, wanted: np.ndarray, tied: np.ndarray, found: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs of codes and scales, for each set of tied outputs the one of the smallest error."""
    pairs = iter(found)
    codes, scales = next(pairs)
    lowest = tied_sum(quadratic_cost(gram, wanted, codes, scales), tied)
    for other, others in pairs:
        cost = tied_sum(quadratic_cost(gram, wanted, other, others), tied)
        lower = cost < lowest
        codes, scales = np.where(lower[:, None], other, codes), np.where(lower, others, scales)
        lowest = np.minimum(cost, lowest)
    return codes, scales


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


def rounded(ordered: Ordered, wanted: np.ndarray, scales: np.ndarray, allowed: Codes) -> np.ndarray:
    """Codes [g, k, c] as float64: GPTQ's, or the nearest where that is better, as with few taps."""
    gram, wanted = ordered.gram, np.take_along_axis(wanted, ordered.order[:, :, None], 1)
    nearest = allowed.nearest(wanted / scales[:, None])
    spread = _spread(ordered.upper, wanted, scales, allowed)
    costs = (quadratic_cost(gram, wanted, q, scales) for q in (nearest, spread))
    codes = np.where(np.less(*costs)[:, None], nearest, spread)
    return np.take_along_axis(codes, ordered.back[:, :, None], 1)


def _spread(upper: np.ndarray, wanted: np.ndarray, scales: np.ndarray, allowed: Codes) -> np.ndarray:
    """GPTQ: round tap by tap, spread each error over those that follow; block by block for speed."""
    left, codes = wanted.copy(), np.empty_like(wanted)
    taps = wanted.shape[1]
    for start in range(0, taps, _BLOCK):
        stop = min(start + _BLOCK, taps)
        errors = np.empty_like(left[:, start:stop])
        for k in range(start, stop):
            codes[:, k] = allowed.nearest(left[:, k] / scales)
            error = (left[:, k] - codes[:, k] * scales) / upper[:, k, k, None]
            left[:, k + 1 : stop] -= upper[:, k, k + 1 : stop, None] * error[:, None]
            errors[:, k - start] = error
        left[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    return codes


def descend(gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, codes: np.ndarray, allowed: Codes) -> np.ndarray:
    """Coordinate descent from `codes` to new ones: in each round every output moves the one that gains most.

    All outputs move side by side, until none gains by any move.
    """
    taps = codes.shape[1]
    group, scale, unit, slope, found = _by_output(gram, wanted, scales, codes)
    present, moving = found.copy(), np.arange(len(found))
    for _ in range(_ROUNDS * taps):
        steps = allowed.nearest(present - slope / unit) - present
        gains = -steps * (2 * slope + steps * unit)
        tap = gains.argmax(1)
        each = np.arange(len(tap))
        gaining = gains[each, tap] > 0
        if not gaining.all():
            found[moving] = present
            if not gaining.any():
                break
            present, slope, unit, scale, steps = (v[gaining] for v in (present, slope, unit, scale, steps))
            moving, group, tap, each = moving[gaining], group[gaining], tap[gaining], each[: gaining.sum()]
        step = steps[each, tap]
        present[each, tap] += step
        slope += gram[group, tap] * (step * scale[:, 0])[:, None]
    found[moving] = present
    return _by_tap(found, codes.shape)


def search(
    gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, codes: np.ndarray, allowed: Codes, *, seed: int = 0
) -> np.ndarray:
    """A descent from `codes`, then tabu search: for each output the best that were met, never worse than `codes`.

    In each round every output moves the one code to the next that costs least or gains most, and this tap rests for
    some rounds, drawn by the seed. All outputs move side by side; of a layer of very many weights there are fewer
    rounds.
    """
    taps, codes = codes.shape[1], descend(gram, wanted, scales, codes, allowed)
    group, scale, unit, slope, present = _by_output(gram, wanted, scales, codes)
    slope, reach = 2 * slope, 2 * scale[:, 0]
    rise, fall = allowed.steps(present)
    up, down = _priced(rise, unit), _priced(fall, unit)  # without what the slope adds
    even = not allowed.codebook  # all steps are by one
    above, below = np.empty_like(slope), np.empty_like(slope)
    best, each = present.copy(), np.arange(len(present))
    cost, lowest = np.zeros(len(present)), np.zeros(len(present))  # over scale; after the descent 0
    # a descent finds the best code of one tap
    moves = min(_MOVES, int(_MOST_WORK / slope.size)) if taps > 1 else 0
    rests = np.random.default_rng(seed).integers(min(_RESTS, taps), size=moves)
    resting: dict[int, list[np.ndarray]] = {}
    for move, rest in enumerate(rests.tolist()):
        for tap in resting.pop(move, ()):
            for costs, steps in ((up, rise), (down, fall)):
                costs[each, tap] = _priced(steps[each, tap], unit[each, tap])
        np.add(up, slope if even else slope * rise, out=above)
        np.subtract(down, slope if even else slope * fall, out=below)
        np.minimum(above, below, out=below)
        tap = below.argmin(1)
        cost += below[each, tap]
        step = np.where(above[each, tap] == below[each, tap], rise[each, tap], -fall[each, tap])
        present[each, tap] += step
        slope += gram[group, tap] * (step * reach)[:, None]
        rise[each, tap], fall[each, tap] = allowed.steps(present[each, tap])
        up[each, tap] = down[each, tap] = np.inf
        resting.setdefault(move + 1 + rest, []).append(tap)
        lower = cost < lowest
        if lower.any():
            best[lower], lowest[lower] = present[lower], cost[lower]
    return _by_tap(best, codes.shape)


def _priced(steps: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """What steps cost by themselves, over scale; infinite where there is none."""
    return np.where(steps > 0, unit * steps**2, np.inf)


def _by_output(
    gram: np.ndarray, wanted: np.ndarray, scales: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For every output [g * c] its group, scale, s * H_kk, slope H (w - w*) and codes by tap."""
    groups, taps, outputs = codes.shape
    group = np.repeat(np.arange(groups), outputs)
    scale = scales.reshape(-1, 1)
    unit = np.diagonal(gram, axis1=1, axis2=2)[group] * scale
    slope = gram @ (codes * scales[:, None] - wanted)
    rows = (np.array(v.transpose(0, 2, 1), np.float64, order="C").reshape(-1, taps) for v in (slope, codes))
    return group, scale, unit, *rows


def _by_tap(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Codes [g * c, k] as [g, k, c]."""
    groups, taps, outputs = shape
    return found.reshape(groups, outputs, taps).transpose(0, 2, 1).copy()  # contiguous: products are faster


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
