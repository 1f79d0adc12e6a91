"""What the integer program is compared with: one candidate for all, the greedy choice, and chance.

    uniform            the one candidate of the least degradation, for all units, that keeps the budgets
    greedy             from every unit's best candidate down: while a budget is exceeded, the one change that adds the
                       least degradation per saved cost, costs as fractions of the budgets, up to what exceeds them
    random_allocation  drawn uniformly, mended by random changes that save cost until the budgets hold, then by
                       random changes that add cost until none fits any more: of about the size of the budget

Scope: benchmarks; allocation measures the first two beside the program's choice. None of them proves anything
(`Allocation.gap` is infinite).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfq.allocation.problem import DEGRADATION, Allocation, Problem, check_limits
from tfq.allocation.program import Infeasible
from tfq.precision import CANDIDATES


def uniform(problem: Problem, *, budgets: Mapping[str, float]) -> Allocation:
    """One candidate for all units; those with a single one (pinned) keep theirs. Raises Infeasible, UserError."""

    def find() -> dict[str, str] | None:
        offers = {unit: problem.offered(group) for group in problem.groups for unit in group}
        free = [own for own in offers.values() if len(own) > 1] or list(offers.values())
        shared = [name for name in free[0] if all(name in own for own in free)]
        tried = [{unit: own[0] if len(own) == 1 else name for unit, own in offers.items()} for name in shared]
        kept = [candidates for candidates in tried if problem.meets(budgets, candidates)]
        return min(kept, key=lambda candidates: problem.total(DEGRADATION, candidates), default=None)

    return _allocation("uniform", find, problem, budgets)


def greedy(problem: Problem, *, budgets: Mapping[str, float]) -> Allocation:
    """Marginal degradation per saved cost. Raises Infeasible where it finds nothing, UserError for bad choices."""

    def find() -> dict[str, str] | None:
        state = _State(problem, budgets, np.nanargmin(_table(problem, [DEGRADATION])[:, :, 0], axis=1))
        while state.exceeded():
            saved = state.saved()
            with np.errstate(divide="ignore", invalid="ignore"):
                price = np.where(saved > 0, state.changes[:, :, 0] / saved, np.inf)
            best = np.unravel_index(np.argmin(price), price.shape)
            if np.isinf(price[best]):
                return None
            state.change(*map(int, best))
        return state.candidates()

    return _allocation("greedy", find, problem, budgets)


def random_allocation(problem: Problem, *, budgets: Mapping[str, float], seed: int) -> Allocation:
    """An allocation by chance that fills the budgets. Raises Infeasible where it finds none, UserError."""

    def find() -> dict[str, str] | None:
        draw = np.random.default_rng(seed)
        state = _State(problem, budgets, np.array([draw.integers(len(problem.offered(g))) for g in problem.groups]))
        while state.exceeded():
            saving = np.argwhere(state.saved() > 0)
            if not len(saving):
                return None
            state.change(*saving[draw.integers(len(saving))])
        while len(adding := np.argwhere(state.fitting())):
            state.change(*adding[draw.integers(len(adding))])
        return state.candidates()

    return _allocation("random", find, problem, budgets)


class _State:
    """An allocation that is changed unit by unit (or group of tied units).

    Attributes:
      chosen: the number of every group's candidate.
      changes: of degradation and budgeted costs if one group alone took another candidate: groups x candidates x
        (1 + budgets); NaN where a group has no such candidate.
    """

    def __init__(self, problem: Problem, budgets: Mapping[str, float], chosen: np.ndarray):
        self._problem, self._budgets = problem, budgets
        self._offers = [problem.offered(group) for group in problem.groups]
        names = [DEGRADATION, *budgets]
        self._values = _table(problem, names)
        self._floats = np.zeros(self._values.shape[:2])
        for number, offers in enumerate(self._offers):
            self._floats[number, : len(offers)] = [CANDIDATES[name].is_float for name in offers]
        self._neighbours: list[list[tuple[int, np.ndarray]]] = [[] for _ in self._offers]
        number_of = {unit: number for number, group in enumerate(problem.groups) for unit in group}
        for border in problem.borders:
            ends = number_of[border.first], number_of[border.second]
            costs = np.array([border.costs.get(name, 0.0) for name in names])
            if ends[0] != ends[1]:
                for number, other in (ends, ends[::-1]):
                    self._neighbours[number].append((other, costs))
        self.chosen = chosen
        self.changes = np.empty_like(self._values)
        for number in range(len(chosen)):
            self._update(number)

    def change(self, number: int, candidate: int) -> None:
        self.chosen[number] = candidate
        for touched in (number, *(other for other, _ in self._neighbours[number])):
            self._update(touched)

    def candidates(self) -> dict[str, str]:
        groups = zip(self._problem.groups, self._offers, self.chosen, strict=True)
        by_unit = {unit: offers[chosen] for group, offers, chosen in groups for unit in group}
        return {unit: by_unit[unit] for unit in self._problem.values}

    def exceeded(self) -> bool:
        totals, limits = self._totals()
        return bool((totals > limits).any())

    def saved(self) -> np.ndarray:
        """By how much each change (groups x candidates) lowers the excess, summed as fractions of the budgets.

        Every change that saves lowers the same sum, so a series of them ends.
        """
        totals, limits = self._totals()
        weights = 1 / np.where(limits == 0, 1.0, np.abs(limits))
        left = np.maximum(totals + self.changes[:, :, 1:] - limits, 0) @ weights
        saved = np.maximum(totals - limits, 0) @ weights - left
        return np.where(saved > 1e-13, saved, 0.0)  # less is rounding; NaN is no change

    def fitting(self) -> np.ndarray:
        """Which changes (groups x candidates) add to some budgeted cost, lower none, and keep all budgets."""
        totals, limits = self._totals()
        added = self.changes[:, :, 1:]
        room = limits - totals - 1e-12 * np.abs(limits)  # the sums are rounded
        return (added >= 0).all(axis=2) & (added > 0).any(axis=2) & (added <= room).all(axis=2)

    def _totals(self) -> tuple[np.ndarray, np.ndarray]:
        candidates = self.candidates()
        totals = [self._problem.total(name, candidates) for name in self._budgets]
        return np.array(totals), np.array(list(self._budgets.values()), float)

    def _update(self, number: int) -> None:
        own, chosen = self._values[number], self.chosen[number]
        self.changes[number] = own - own[chosen]
        for other, costs in self._neighbours[number]:
            crossed = self._floats[number] != self._floats[other, self.chosen[other]]
            self.changes[number] += np.outer(crossed.astype(float) - crossed[chosen], costs)


def _table(problem: Problem, names: Sequence[str]) -> np.ndarray:
    """Values of every group with every candidate: groups x candidates x names; NaN where there are fewer."""
    offers = [problem.offered(group) for group in problem.groups]
    table = np.full((len(offers), max(map(len, offers)), len(names)), np.nan)
    for number, (group, own) in enumerate(zip(problem.groups, offers, strict=True)):
        for column, candidate in enumerate(own):
            table[number, column] = [math.fsum(problem.values[unit][candidate][n] for unit in group) for n in names]
    return table


def _allocation(
    name: str, find: Callable[[], dict[str, str] | None], problem: Problem, budgets: Mapping[str, float]
) -> Allocation:
    start = time.perf_counter()
    check_limits(problem, budgets)
    found = find()
    if found is None:
        raise Infeasible(f"{name} finds no allocation that keeps {dict(budgets)}; the integer program may")
    seconds = time.perf_counter() - start
    return problem.allocation(
        found, objective=DEGRADATION, bound=-math.inf, status="feasible", solver=name, seconds=seconds
    )
