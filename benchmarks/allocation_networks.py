"""Made-up problems of allocation that look like those of networks, of any size; and allocations by chance."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.allocation.baselines import Draft, heuristic
from tfq.allocation.problem import Allocation, Border, Choice, Problem
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


def random_allocation(problem: Problem, *, budgets: Mapping[str, float], seed: int) -> Allocation:
    """Drawn uniformly, mended by random changes that save cost until the budgets hold, then by random changes that add
    cost until none fits any more: of about the size of the budget.

    Raises Infeasible where it finds none, UserError.
    """

    def find() -> dict[str, str] | None:
        draw = np.random.default_rng(seed)
        draft = Draft(problem, budgets, [int(draw.integers(len(own))) for own in problem.values.values()])
        while draft.exceeded():
            saving = np.argwhere(draft.saved(draft.changes()) > 0)
            if not len(saving):
                return None
            unit, candidate = saving[draw.integers(len(saving))]
            draft.chosen[unit] = candidate
        while len(adding := np.argwhere(_fitting(draft))):
            unit, candidate = adding[draw.integers(len(adding))]
            draft.chosen[unit] = candidate
        return draft.candidates()

    return heuristic("random", find, problem, budgets)


def _fitting(draft: Draft) -> np.ndarray:
    """Which changes (units x candidates) add to some budgeted cost, lower none, and keep all budgets."""
    totals, limits = draft.totals()
    added = draft.changes()[:, :, 1:]
    room = limits - totals - 1e-12 * np.abs(limits)  # the sums are rounded
    return (added >= 0).all(axis=2) & (added > 0).any(axis=2) & (added <= room).all(axis=2)
