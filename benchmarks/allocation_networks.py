"""Made-up problems of allocation that look like those of networks, of any size."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tfq.allocation.problem import Border, Choice, Problem
from tfq.precision import CANDIDATES


def network_problem(layers: int, *, candidates: Sequence[str] = tuple(CANDIDATES), seed: int = 0) -> Problem:
    """Few bits lose more, large layers cost more, float and packed layers are slow; borders between neighbours.

    Args:
      layers: units, called u0, u1, ...
      candidates: of every unit; w8 loses nothing.
      seed: of sizes, losses and times.

    Returns: a problem of the costs bytes, ms and bops.
    """
    draw = random.Random(seed)
    choices = []
    for number in range(layers):
        weights, loss = 10 ** draw.uniform(2.5, 5.5), 10 ** draw.uniform(-5, -1)
        positions = draw.choice((1, 16, 64, 256, 1024))
        for name in candidates:
            candidate = CANDIDATES[name]
            bits = {"float16": 16, "float32": 32}.get(name, candidate.weight_bits)
            lost = 0.0 if name == "w8" else max(1e-6, loss * 4.0 ** (2 - bits) * draw.uniform(0.5, 1.5))
            speed = 3 if candidate.is_float else 1.8 if candidate.storage == "packed" else 1
            costs = {
                "bytes": float(round(weights * bits / 8)),
                "ms": weights * 1e-6 * speed * draw.uniform(0.9, 1.1),
                "bops": float(round(weights * positions * bits * 8)),
            }
            choices.append(Choice(f"u{number}", name, lost, costs))
    borders = [Border(f"u{i}", f"u{i + 1}", {"ms": draw.uniform(0.001, 0.01)}) for i in range(layers - 1)]
    return Problem.of(choices, borders=borders)
