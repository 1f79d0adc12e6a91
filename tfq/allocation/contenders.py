"""Which candidates of a unit the program could choose, told before any state is fitted or measured.

A program that minimises the sum of costs C under a largest sum of losses D gives every unit, but for what the last
bytes decide, the candidate of the smallest C + v D, with one price v of a loss for all. As v rises, the sum of losses
falls. Where from S to T may be lost in all, only prices count at which the units lose from S to 16 T together, and of
the candidates of a unit only those k for which there is such a price with

    C_k + v D_k / 2 <= C_j + v D_j     for all candidates j of the unit

C are bytes in an ideal code, D estimates (`tfq.allocation.fisher`), of weights rounded to the nearest. A fit lowers
these losses, to a quarter, say, and not of all candidates alike; so the range is wider above, and a candidate may lose
half of what is estimated. What loses least counts in any case: where estimates mislead, it keeps the drop.

T is the divergence at which noise on the float model's outputs costs the largest accuracy drop; S the one at which it
costs what the 8-bit model leaves of that drop, or an eighth of the drop.

Source: Everett 1963, "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of Resources".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.allocation.metric_drop import DropOf
from tfq.allocation.sensitivity import Loss
from tfq.allocation.states import Key
from tfq.simulate.divergence import is_distribution

_MARGIN, _ABOVE = 2.0, 16.0
_PRICES = np.geomspace(1e-6, 1e18, 8 * 24 + 1)  # of a loss, in units of a cost
_LEAST_NOISE, _MOST_NOISE, _HALVINGS = 1e-4, 1e2, 12
_TINY = 1e-7


def contenders(costs: Mapping[Key, float], losses: Mapping[Key, float], ends: Sequence[float] = ()) -> list[Key]:
    """The keys that count, in their order.

    Args:
      costs, losses: of the same keys.
      ends: S and T. Where they are not known, or no price makes the units lose about as much, all prices count.
    """
    units = [list(keys) for _, keys in itertools.groupby(sorted(costs), key=lambda key: key[0])]
    tables = [np.array([[costs[key], losses[key]] for key in keys]).T[:, :, None] for keys in units]
    prices = _PRICES
    if ends:
        lost = sum(loss[(cost + _PRICES * loss).argmin(0), 0] for cost, loss in tables)
        about = (min(ends) <= lost) & (lost <= _ABOVE * max(ends))
        about[-1] |= about.any()
        prices = _PRICES[about] if about.any() else _PRICES
    counting: set[Key] = set()
    for keys, (cost, loss) in zip(units, tables, strict=True):
        counts = (cost + prices * loss / _MARGIN <= (cost + prices * loss).min(0)).any(1)
        counting.update(itertools.compress(keys, counts))
    return [key for key in costs if key in counting]


def bearable(loss: Loss, lost: DropOf, most: float, *, seed: int = 0) -> float:
    """The divergence of the float model's outputs from themselves with so much noise that `most` points are lost.

    Args:
      loss: of outputs.
      lost: what outputs lose, on the same samples.
      seed: of the noise.
    """
    low, high = np.log(_LEAST_NOISE), np.log(_MOST_NOISE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        costly = lost(_with_noise(loss.reference, np.exp(middle), seed)).points > most
        low, high = (low, middle) if costly else (middle, high)
    return loss(_with_noise(loss.reference, np.exp(high), seed))


def _with_noise(outputs: Sequence[np.ndarray], size: float, seed: int) -> list[np.ndarray]:
    """Outputs [n, ...] with normal noise: of this size on logits, of this share of the mean square on other values."""
    rng, found = np.random.default_rng(seed), []
    for values in outputs:
        noise = size * rng.standard_normal(values.shape, np.float32)
        if is_distribution(values):
            powers = np.maximum(values, _TINY) * np.exp(noise)
            found.append(powers / powers.sum(-1, keepdims=True))
        else:
            found.append(values + np.sqrt(np.square(values).mean()) * noise)
    return found
