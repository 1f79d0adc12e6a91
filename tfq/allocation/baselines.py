"""What the integer program is compared with: one candidate for all, and the greedy choice.

    uniform   the one candidate of the least degradation, for all units, that keeps the budgets
    greedy    from every unit's best candidate down: while a budget is exceeded, the one change that adds the least
              degradation per saved cost, costs as fractions of the budgets, up to what exceeds them

Allocation measures both beside the program's choice. They prove nothing (`Allocation.gap` is infinite).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfq.allocation.problem import DEGRADATION, Allocation, Problem, check_limits
from tfq.allocation.program import Infeasible
from tfq.precision import CANDIDATES

_ROUNDING = 1e-13  # of the numbers that a difference is taken of


def uniform(problem: Problem, *, budgets: Mapping[str, float]) -> Allocation:
    """One candidate for all units; those with a single one (pinned) keep theirs. Raises Infeasible, UserError."""

    def find() -> dict[str, str] | None:
        offers = {unit: list(offered) for unit, offered in problem.values.items()}
        free = [own for own in offers.values() if len(own) > 1] or list(offers.values())
        shared = [name for name in free[0] if all(name in own for own in free)]
        tried = [{unit: own[0] if len(own) == 1 else name for unit, own in offers.items()} for name in shared]
        kept = [candidates for candidates in tried if problem.meets(budgets, candidates)]
        return min(kept, key=lambda candidates: problem.total(DEGRADATION, candidates), default=None)

    return heuristic("uniform", find, problem, budgets)


def greedy(problem: Problem, *, budgets: Mapping[str, float]) -> Allocation:
    """Marginal degradation per saved cost. Raises Infeasible where it finds nothing, UserError for bad choices."""

    def find() -> dict[str, str] | None:
        losses = ([values[DEGRADATION] for values in own.values()] for own in problem.values.values())
        draft = Draft(problem, budgets, [int(np.argmin(own)) for own in losses])
        while draft.exceeded():
            changes = draft.changes()
            saved = draft.saved(changes)
            with np.errstate(divide="ignore", invalid="ignore"):
                price = np.where(saved > 0, changes[:, :, 0] / saved, np.inf)
            unit, candidate = np.unravel_index(np.argmin(price), price.shape)
            if np.isinf(price[unit, candidate]):
                return None
            draft.chosen[unit] = candidate
        return draft.candidates()

    return heuristic("greedy", find, problem, budgets)


class Draft:
    """An allocation that is changed unit by unit.

    Attributes:
      chosen: the number of every unit's candidate.
    """

    def __init__(self, problem: Problem, budgets: Mapping[str, float], chosen: Sequence[int]):
        self._problem, self._budgets, self.chosen = problem, budgets, np.array(chosen)
        self._offers = [list(own) for own in problem.values.values()]
        names = [DEGRADATION, *budgets]
        self._values = np.full((len(self._offers), max(map(len, self._offers)), len(names)), np.nan)
        self._floats = np.zeros(self._values.shape[:2], bool)
        for number, own in enumerate(problem.values.values()):
            self._values[number, : len(own)] = [[values[name] for name in names] for values in own.values()]
            self._floats[number, : len(own)] = [CANDIDATES[name].is_float for name in own]
        number_of = {unit: number for number, unit in enumerate(problem.values)}
        self._ends = [[number_of[unit] for unit in (b.first, b.second)] for b in problem.borders]
        self._costs = [np.array([b.costs.get(name, 0.0) for name in names]) for b in problem.borders]

    def changes(self) -> np.ndarray:
        """Of degradation and budgeted costs if one unit alone took another candidate: units x candidates x (1 +
        budgets); NaN where a unit has no such candidate."""
        units = np.arange(len(self.chosen))
        found = self._values - self._values[units, self.chosen][:, None]
        is_float = self._floats[units, self.chosen]
        for (first, second), costs in zip(self._ends, self._costs, strict=True):
            for own, other in ((first, second), (second, first)):
                crossed = self._floats[own] != is_float[other]
                found[own] += np.outer(crossed.astype(float) - crossed[self.chosen[own]], costs)
        return found

    def candidates(self) -> dict[str, str]:
        chosen = zip(self._problem.values, self._offers, self.chosen, strict=True)
        return {unit: offers[number] for unit, offers, number in chosen}

    def exceeded(self) -> bool:
        totals, limits = self.totals()
        return bool((totals > limits).any())

    def saved(self, changes: np.ndarray) -> np.ndarray:
        """By how much each of `changes` (units x candidates) lowers the excess, summed as fractions of the budgets.

        Every change that saves lowers the same sum, so a series of them ends.
        """
        totals, limits = self.totals()
        weights = 1 / np.where(limits == 0, 1.0, np.abs(limits))
        left = np.maximum(totals + changes[:, :, 1:] - limits, 0) @ weights
        saved = np.maximum(totals - limits, 0) @ weights - left
        rounding = _ROUNDING * (1 + (np.abs(totals) + np.abs(changes[:, :, 1:])) @ weights)
        return np.where(saved > rounding, saved, 0.0)  # NaN is no change

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the budgeted costs: what they are, and the most that they may be."""
        candidates = self.candidates()
        totals = [self._problem.total(name, candidates) for name in self._budgets]
        return np.array(totals), np.array(list(self._budgets.values()), float)


def heuristic(
    name: str, find: Callable[[], dict[str, str] | None], problem: Problem, budgets: Mapping[str, float]
) -> Allocation:
    """What `find` finds, of which nothing is proved. Raises Infeasible where that is nothing, UserError."""
    start = time.perf_counter()
    check_limits(problem, budgets)
    found = find()
    if found is None:
        raise Infeasible(f"{name} finds no allocation that keeps {dict(budgets)}; the integer program may")
    seconds = time.perf_counter() - start
    return problem.allocation(
        found, objective=DEGRADATION, bound=-math.inf, status="feasible", solver=name, seconds=seconds
    )
