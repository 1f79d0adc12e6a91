"""A precision for every layer, chosen by the integer program and checked on the exported file.

The program (`tfq.allocation.program`) takes what single layers lose as additive, which it is not. So what it predicts
is measured, in two kinds of rounds:

    assembled      the parallel states of the chosen precisions put together; seconds
    reconstructed  the same precisions reconstructed in sequence: what the user gets; minutes

With budgets alone the program, the greedy choice and the best uniform precision are assembled, and that of the smallest
measured loss is reconstructed: an assumption that fails must not cost more than leaving it out.

With a largest accuracy drop d the program minimises the cost under a largest predicted degradation T. The largest T
whose assembled model keeps

    drop + its standard error <= d                                         (`tfq.allocation.drop`)

is bisected in log T; from there T rises or falls by the factor 2, then bisected, over a few reconstructed rounds, until
less than a hundredth of the cost can be won. The cheapest one that keeps d as measured is taken. Where none does, the
one of the smallest drop is, and is said to miss.

Source: Hubara et al. 2020 (arXiv:2006.10518), section 3.2, whose policies are reconstructed in sequence afterwards; the
rounds that correct the prediction are an addition.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from tfq.allocation.baselines import greedy, uniform
from tfq.allocation.drop import Drop
from tfq.allocation.program import (
    Allocation,
    Infeasible,
    Problem,
    minimise_cost,
    minimise_degradation,
)
from tfq.execution.progress import Progress, Silent
from tfq.simulate.guard import Version

_BISECTIONS, _REBUILDS = 8, 6
_WORTH_A_ROUND = 0.01  # of the cost
_LEAST = 1e-9  # degradation: thresholds are bisected by their logarithms


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is wanted.

    Attributes:
      budgets: cost -> largest total.
      max_drop: points of accuracy that may be lost; None: the least loss within the budgets.
      objective: cost that is made small where `max_drop` is given.
    """

    budgets: Mapping[str, float]
    max_drop: float | None = None
    objective: str = "download_bytes"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model on calibration samples: its loss above that of the 8-bit model, and its accuracy against float."""

    loss: float
    drop: Drop | None

    @property
    def points(self) -> float:
        """Of accuracy lost, on the safe side; infinite where it cannot be told."""
        return math.inf if self.drop is None else self.drop.points + self.drop.standard_error


@dataclasses.dataclass(frozen=True)
class Round:
    """One model that was looked at.

    Attributes:
      kind: "assembled" or "reconstructed".
      name: who proposed it: "program", "greedy" or "uniform".
      candidates: of every unit.
      predicted: the sum of the units' degradations.
      costs: predicted totals.
      measured: what the model does.
      holds: it keeps the largest drop, or there is none.
    """

    kind: str
    name: str
    candidates: Mapping[str, str]
    predicted: float
    costs: Mapping[str, float]
    measured: Measured
    holds: bool


@dataclasses.dataclass(frozen=True)
class Allocated:
    """The outcome.

    Attributes:
      allocation: the precisions, with status and gap of the program.
      rounds: in the order in which they were measured.
      attained: the largest drop is kept as measured.
    """

    allocation: Allocation
    rounds: tuple[Round, ...]
    attained: bool


Make = Callable[[Mapping[str, str]], "tuple[Version, Measured]"]
"""The version whose units have these candidates."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """How models are made and measured: their loss and drop, from their files.

    Attributes:
      assemble: the parallel states of these candidates.
      rebuild: the same precisions reconstructed in sequence.
      export: a version's .tflite, without metadata.
    """

    assemble: Make
    rebuild: Make
    export: Callable[[Version], bytes]


def allocate(
    problem: Problem, goal: Goal, bench: Bench, *, progress: Progress | None = None
) -> tuple[Version, Allocated]:
    """The best model for the goal, reconstructed at the chosen precisions, and how it was found.

    Raises:
      Infeasible: the budgets cannot be met; says the nearest attainable.
    """
    search = _Search(problem, goal, bench, progress or Silent())
    return search.within_budgets() if goal.max_drop is None else search.within_drop()


class _Search:
    """The rounds so far, and how the next ones are made."""

    def __init__(self, problem: Problem, goal: Goal, bench: Bench, progress: Progress):
        self._problem, self._goal, self._bench, self._progress = problem, goal, bench, progress
        self._rounds: list[Round] = []

    def within_budgets(self) -> tuple[Version, Allocated]:
        """The least loss."""
        proposals = {"program": minimise_degradation(self._problem, budgets=self._goal.budgets)}
        for name, find in (("greedy", greedy), ("uniform", uniform)):
            try:
                proposals[name] = find(self._problem, budgets=self._goal.budgets)
            except Infeasible:  # of these two, which search less; the program has found one
                continue
        found: dict[str, Round] = {}
        with self._progress.task("assemble the proposals", len(proposals)) as advance:
            for name, proposal in proposals.items():
                same = [r for r in found.values() if r.candidates == proposal.candidates]
                found[name] = same[0] if same else self._assembled(name, proposal)
                advance(1)
        chosen = min(found, key=lambda name: found[name].measured.loss)
        version, last = self._rebuilt(chosen, proposals[chosen])
        return self._allocated(version, proposals[chosen], last.holds)

    def within_drop(self) -> tuple[Version, Allocated]:
        """The least cost that keeps the drop."""
        low, high = self._ends()
        threshold = self._bisected(low, high)
        kept: list[tuple[Version, Allocation, Round]] = []
        missed: list[tuple[Version, Allocation, Round]] = []
        holds_at, fails_at = 0.0, math.inf
        seen: set[tuple[tuple[str, str], ...]] = set()
        for _ in range(_REBUILDS):
            allocation = self._cheapest(threshold)
            mixture = tuple(sorted(allocation.candidates.items()))
            cost = allocation.costs[self._goal.objective]
            cheapest = min((own.costs[self._goal.objective] for _, own, _ in kept), default=math.inf)
            if mixture in seen or cost > (1 - _WORTH_A_ROUND) * cheapest:
                break
            seen.add(mixture)
            version, last = self._rebuilt("program", allocation)
            (kept if last.holds else missed).append((version, allocation, last))
            if last.holds:
                holds_at = threshold
                threshold = 2 * threshold if math.isinf(fails_at) else math.sqrt(threshold * fails_at)
            else:
                fails_at = threshold
                threshold = threshold / 2 if not holds_at else math.sqrt(holds_at * threshold)
            threshold = min(max(threshold, low), high)
        if kept:
            version, allocation, _ = min(kept, key=lambda entry: entry[1].costs[self._goal.objective])
            return self._allocated(version, allocation, attained=True)
        version, allocation, _ = min(missed, key=lambda entry: entry[2].measured.points)
        return self._allocated(version, allocation, attained=False)

    def _ends(self) -> tuple[float, float]:
        """The smallest and the largest degradation that make sense: of the best and of the cheapest allocation."""
        best = minimise_degradation(self._problem, budgets=self._goal.budgets)
        return max(best.degradation, _LEAST), max(self._cheapest(math.inf).degradation, _LEAST)

    def _bisected(self, low: float, high: float) -> float:
        """The largest predicted degradation whose assembled model keeps the drop; `low` where none does."""
        with self._progress.task("search the largest degradation", _BISECTIONS) as advance:
            if self._assembled("program", self._cheapest(high)).holds:
                return high
            advance(1)
            seen: dict[tuple[tuple[str, str], ...], bool] = {}
            bottom, top = low, high
            for _ in range(_BISECTIONS - 1):
                middle = math.sqrt(bottom * top)
                allocation = self._cheapest(middle)
                mixture = tuple(sorted(allocation.candidates.items()))
                if mixture not in seen:
                    seen[mixture] = self._assembled("program", allocation).holds
                bottom, top = (middle, top) if seen[mixture] else (bottom, middle)
                advance(1)
        return bottom

    def _cheapest(self, threshold: float) -> Allocation:
        objective = self._goal.objective
        return minimise_cost(self._problem, cost=objective, max_degradation=threshold, budgets=self._goal.budgets)

    def _assembled(self, name: str, allocation: Allocation) -> Round:
        _, measured = self._bench.assemble(allocation.candidates)
        return self._noted("assembled", name, allocation, measured)

    def _rebuilt(self, name: str, allocation: Allocation) -> tuple[Version, Round]:
        version, measured = self._bench.rebuild(allocation.candidates)
        return version, self._noted("reconstructed", name, allocation, measured)

    def _noted(self, kind: str, name: str, allocation: Allocation, measured: Measured) -> Round:
        holds = self._goal.max_drop is None or measured.points <= self._goal.max_drop
        self._rounds.append(
            Round(kind, name, allocation.candidates, allocation.degradation, allocation.costs, measured, holds)
        )
        return self._rounds[-1]

    def _allocated(self, version: Version, allocation: Allocation, attained: bool) -> tuple[Version, Allocated]:
        return version, Allocated(allocation, tuple(self._rounds), attained)
