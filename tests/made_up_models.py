"""Models for tests of allocation that are their candidates: what they lose and weigh is known exactly."""

import itertools

from tfq.allocation.allocate import Bench, Measured
from tfq.allocation.drop import Drop
from tfq.allocation.problem import Choice, Problem

UNITS = [f"u{i}" for i in range(6)]
BITS = (2, 3, 4, 8)
SIZES = dict(zip(UNITS, (10, 20, 40, 80, 160, 320), strict=True))


def loss_of(unit, bits):
    return 0.0 if bits == 8 else (1 + UNITS.index(unit)) * 4.0 ** (2 - bits)


def problem(scale=1.0):
    return Problem.of(
        [
            Choice(u, f"w{b}", max(scale * loss_of(u, b), 1e-6), {"download_bytes": SIZES[u] * b})
            for u, b in itertools.product(UNITS, BITS)
        ],
        fixed={"download_bytes": 100.0},
    )


class Made:
    """Models that are their candidates; `points` lost by a unit of loss, and less when reconstructed.

    `error`: standard error of the points of a reconstructed model; `download`: bytes of its file.
    """

    def __init__(self, *, points=10.0, gain=0.5, penalty=lambda _: 0.0, error=lambda _: 0.0, download=lambda _: None):
        self.points, self.gain, self.penalty, self.rebuilt = points, gain, penalty, 0
        self.error, self.download = error, download

    def bench(self):
        return Bench(lambda c: self._measured("assembled", c), self._rebuild, self._rebuild_each, repr)

    def true_loss(self, kind, candidates):
        loss = sum(loss_of(u, int(c[1:])) for u, c in candidates.items()) + self.penalty(candidates)
        return loss * (self.gain if kind == "reconstructed" else 1.0)

    def _rebuild(self, candidates):
        self.rebuilt += 1
        return self._measured("reconstructed", candidates)

    def _rebuild_each(self, mixtures):
        """As workers do, in no order."""
        for number, candidates in reversed(list(enumerate(mixtures))):
            yield number, self._rebuild(candidates)

    def _measured(self, kind, candidates):
        loss = self.true_loss(kind, candidates)
        error = self.error(candidates) if kind == "reconstructed" else 0.0
        return (kind, dict(candidates)), Measured(loss, Drop(self.points * loss, error, 100), self.download(candidates))


def size(candidates):
    return 100 + sum(SIZES[u] * int(c[1:]) for u, c in candidates.items())
