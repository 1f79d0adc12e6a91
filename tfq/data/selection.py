"""Which samples to take when there are more than wanted. Every function returns ascending positions.

first: the first ones. random: every subset equally likely, by reservoir sampling in one pass
(algorithm R: Vitter, "Random sampling with a reservoir", ACM TOMS 1985). balanced: the classes in
turn. coverage: farthest-first traversal of a feature space, whose covering radius
max_i min_{j chosen} |f_i - f_j| is at most twice the best possible one (Gonzalez, "Clustering to
minimize the maximum intercluster distance", TCS 1985; as core-set: Sener and Savarese, ICLR 2018).
"""

from __future__ import annotations

import random

import numpy as np


class Reservoir:
    """Tells for a stream of unknown length in which slot each item goes, or that it is not taken.

    After n items the slots hold min(n, size) of them, every such subset with the same probability.
    """

    def __init__(self, size: int, seed: int):
        self._size = size
        self._random = random.Random(seed)

    def slot(self, position: int) -> int | None:
        """Slot of the item at `position`; to be asked for 0, 1, 2, ... in order."""
        if position < self._size:
            return position
        drawn = self._random.randrange(position + 1)
        return drawn if drawn < self._size else None


def random_positions(count: int, limit: int, seed: int) -> np.ndarray:
    """`limit` of `count` positions at random: those a `Reservoir` would end up with."""
    reservoir = Reservoir(limit, seed)
    kept = np.empty(min(limit, count), np.int64)
    for position in range(count):
        slot = reservoir.slot(position)
        if slot is not None:
            kept[slot] = position
    return np.sort(kept)


def balanced_positions(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """`limit` positions of labels [n] over the classes in turn, at random within a class.

    A class that runs out leaves its turns to the others.
    """
    generator = np.random.default_rng(seed)
    turns = np.empty(len(labels), np.int64)
    for value in np.unique(labels):
        members = np.flatnonzero(labels == value)
        turns[generator.permutation(members)] = np.arange(len(members))
    # Sorted by turn; within the last turn the classes that are served are drawn too.
    order = np.lexsort((generator.permutation(len(labels)), turns))
    return np.sort(order[:limit])


def coverage_positions(features: np.ndarray, limit: int) -> np.ndarray:
    """`limit` positions of features [n, d] by farthest-first traversal from the one nearest to the mean; n at most.

    O(n * limit * d) time, O(n) memory beside the features. Ties go to the lowest position.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    squares = np.einsum("nd,nd->n", centred, centred)

    def squared_distances(position: int) -> np.ndarray:
        return squares + squares[position] - 2 * (centred @ centred[position])

    chosen = [int(np.argmin(squares))]
    nearest = np.full(len(features), np.inf)
    while len(chosen) < min(limit, len(features)):
        np.minimum(nearest, squared_distances(chosen[-1]), out=nearest)
        nearest[chosen[-1]] = -np.inf
        chosen.append(int(np.argmax(nearest)))
    return np.sort(np.array(chosen, np.int64))
