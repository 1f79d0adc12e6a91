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

is bisected in log T, roughly. From there on, over a few reconstructed rounds, T is where the drop would be d: if every
model lost the same share of what its assembled one does, which seconds tell, and once one T holds and one misses, on
the line between the two in the logarithms of T and drop. The rounds end where less than a fiftieth of the cost can be
won. What is measured is a few hundred samples' word: a miss by less than its standard error, close to a T that holds,
is jumped over once. The cheapest one, by its file, that keeps d as measured is taken. Where none does, the one of the
smallest drop is, and is said to miss.

Source: Hubara et al. 2020 (arXiv:2006.10518), section 3.2, whose policies are reconstructed in sequence afterwards; the
rounds that correct the prediction are an addition.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfq.allocation.baselines import greedy, uniform
from tfq.allocation.drop import Drop
from tfq.allocation.problem import Allocation, Problem
from tfq.allocation.program import Infeasible, minimise_cost, minimise_degradation
from tfq.execution.progress import SILENT, Progress
from tfq.quantized_model import QuantizedModel

_REBUILDS = 4
_WORTH_A_ROUND = 0.02  # of the cost
DOWNLOAD = "download_bytes"
_NEAR = 1.5  # thresholds closer than by this factor differ by less than what is measured of their models
_STEP = 1.25  # the least by which a threshold falls after a miss
_FAR = 8.0  # the most by which one changes in a round
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
    objective: str = DOWNLOAD


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model on calibration samples: its loss above that of the 8-bit model on those that judge, and points lost.

    And the bytes of its file's download; None where it has no file.
    """

    loss: float
    drop: Drop | None
    download_bytes: int | None = None

    @property
    def points(self) -> float:
        """Of accuracy lost, on the safe side; infinite where it cannot be told."""
        return math.inf if self.drop is None else self.drop.on_the_safe_side

    @property
    def drop_points(self) -> float:
        """Of accuracy lost, as estimated; infinite where it cannot be told."""
        return math.inf if self.drop is None else self.drop.points


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


Make = Callable[[Mapping[str, str]], "tuple[QuantizedModel, Measured]"]
"""The model whose units have these candidates."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """How models are made and measured: their loss and drop, from their files.

    Attributes:
      assemble: the parallel states of these candidates.
      rebuild: the same precisions reconstructed in sequence.
      rebuild_each: the same of several, by workers or an executor: (number, made) as they are done.
      export: a model's .tflite, without metadata.
    """

    assemble: Make
    rebuild: Make
    rebuild_each: Callable[[Sequence[Mapping[str, str]]], Iterator[tuple[int, tuple[QuantizedModel, Measured]]]]
    export: Callable[[QuantizedModel], bytes]


def allocate(
    problem: Problem, goal: Goal, bench: Bench, *, progress: Progress = SILENT
) -> tuple[QuantizedModel, Allocated]:
    """The best model for the goal, reconstructed at the chosen precisions, and how it was found.

    Raises:
      Infeasible: the budgets cannot be met; says the nearest attainable.
    """
    search = _Search(problem, goal, bench, progress)
    return search.within_budgets() if goal.max_drop is None else search.within_drop()


@dataclasses.dataclass(frozen=True, eq=False)
class _Made:
    """A model reconstructed at an allocation."""

    allocation: Allocation
    model: QuantizedModel
    round: Round

    @property
    def threshold(self) -> float:
        """The least largest degradation that gives its candidates."""
        return self.allocation.degradation


class _Search:
    """The rounds so far, and how the next ones are made."""

    def __init__(self, problem: Problem, goal: Goal, bench: Bench, progress: Progress):
        self._problem, self._goal, self._bench, self._progress = problem, goal, bench, progress
        self._rounds: list[Round] = []
        self._found: dict[float, Allocation] = {}

    def within_budgets(self) -> tuple[QuantizedModel, Allocated]:
        """The least loss."""
        proposals = {"program": minimise_degradation(self._problem, budgets=self._goal.budgets)}
        for name, find in (("greedy", greedy), ("uniform", uniform)):
            try:
                proposals[name] = find(self._problem, budgets=self._goal.budgets)
            except Infeasible:  # of these two, which search less; the program has found one
                continue
        found: dict[str, Round] = {}
        with self._progress.task("measure the proposals", len(proposals)) as advance:
            for name, proposal in proposals.items():
                same = [r for r in found.values() if r.candidates == proposal.candidates]
                found[name] = same[0] if same else self._assembled(name, proposal)
                advance(1)
        chosen = min(found, key=lambda name: found[name].measured.loss)
        model, last = self._rebuilt(chosen, proposals[chosen])
        return self._allocated(model, proposals[chosen], last.holds)

    def within_drop(self) -> tuple[QuantizedModel, Allocated]:
        """The least cost that keeps the drop."""
        low, high = self._ends()
        made: list[_Made] = []
        while len(made) < _REBUILDS:
            allocation = self._cheapest(self._next_threshold(made, low, high))
            if not self._is_worth_a_round(allocation, made):
                break
            made.append(_Made(allocation, *self._rebuilt("program", allocation)))
        kept = [m for m in made if m.round.holds]
        best = min(kept, key=self._cost) if kept else min(made, key=lambda m: m.round.measured.points)
        return self._allocated(best.model, best.allocation, attained=bool(kept))

    def _is_worth_a_round(self, allocation: Allocation, made: Sequence[_Made]) -> bool:
        """It is none that was made, and not hardly cheaper than one that holds."""
        cost = self._goal.objective
        same = any(m.allocation.candidates == allocation.candidates for m in made)
        held = min((m.allocation.costs[cost] for m in made if m.round.holds), default=math.inf)
        return not same and allocation.costs[cost] <= (1 - _WORTH_A_ROUND) * held

    def _next_threshold(self, made: Sequence[_Made], low: float, high: float) -> float:
        """Where all of the drop that is allowed would be used, but for a jump over a miss that may be chance."""
        if not made:
            return self._bracket(low, high, self._goal.max_drop or 0.0)[0]
        kept = [m for m in made if m.round.holds]
        highest = max(kept, key=lambda m: m.threshold, default=None)
        missed = [m for m in made if highest is None or m.threshold > highest.threshold]
        if highest is not None and not missed:
            return self._foreseen(highest, highest.threshold, min(_FAR * highest.threshold, high))
        least = min(missed, key=lambda m: m.threshold)
        one = all(m.round is least.round for m in missed)
        by_chance = one and least.round.measured.drop_points <= (self._goal.max_drop or 0.0)
        if highest is None:
            below = max(least.threshold / _STEP, low)
            return below if by_chance else self._foreseen(least, max(below / _FAR, low), below)
        if by_chance and least.threshold < _NEAR * highest.threshold:
            return min(_NEAR * max(m.threshold for m in missed), high)
        used = math.log(self._used(highest)), math.log(self._used(least))
        share = min(max(used[0] / (used[0] - used[1]), 1 / 8), 7 / 8)
        return highest.threshold * (least.threshold / highest.threshold) ** share

    def _used(self, made: _Made) -> float:
        """Points lost by those that may be lost, within what a round is trusted to tell."""
        return min(max(made.round.measured.points / max(self._goal.max_drop or 0.0, _LEAST), 1 / _FAR), _FAR)

    def _cost(self, made: _Made) -> float:
        """The objective, as measured where that can be."""
        measured = made.round.measured.download_bytes if self._goal.objective == DOWNLOAD else None
        return made.round.costs[self._goal.objective] if measured is None else measured

    def _ends(self) -> tuple[float, float]:
        """The smallest and the largest degradation that make sense: of the best and of the cheapest allocation."""
        best, cheapest = minimise_degradation(self._problem, budgets=self._goal.budgets), self._cheapest(math.inf)
        low, high = (max(found.degradation, _LEAST) for found in (best, cheapest))
        self._found[high] = cheapest
        return low, high

    def _bracket(self, low: float, high: float, most: float) -> tuple[float, float]:
        """Thresholds whose assembled models lose at most these points, and more; apart by less than `_NEAR`.

        Twice `high` where its model loses no more. `low` itself is not looked at.
        """
        rounds = 1 + math.ceil(math.log2(max(math.log(high / low) / math.log(_NEAR), 1.0)))
        with self._progress.task("search what layers may lose", rounds) as advance:
            if self._points(high) <= most:
                return high, high
            advance(1)
            for _ in range(rounds - 1):
                middle = math.sqrt(low * high)
                low, high = (middle, high) if self._points(middle) <= most else (low, middle)
                advance(1)
        return low, high

    def _points(self, threshold: float) -> float:
        """Lost by the assembled model of a threshold."""
        return self._assembled("program", self._cheapest(threshold)).measured.points

    def _foreseen(self, made: _Made, low: float, high: float) -> float:
        """The threshold between `low` and `high` at which all of the drop would be used.

        Every model is taken to lose the share of its assembled one's points that this one does.
        """
        least = _LEAST * (self._goal.max_drop or 1.0)
        share = min(max(made.round.measured.points / max(self._points(made.threshold), least), 1 / _FAR), _FAR)
        most = (self._goal.max_drop or 0.0) / share
        ends = self._bracket(low, high, most)
        lost = [math.log(max(self._points(end), least)) for end in ends]
        low, high = (max(self._cheapest(end).degradation, _LEAST) for end in ends)
        if not lost[0] < math.log(max(most, least)) < lost[1]:
            return low
        return low * (high / low) ** ((math.log(most) - lost[0]) / (lost[1] - lost[0]))

    def _cheapest(self, threshold: float) -> Allocation:
        """The same for the same threshold, which is asked for again where bisections end and rounds begin."""
        if threshold not in self._found:
            self._found[threshold] = minimise_cost(
                self._problem, cost=self._goal.objective, max_degradation=threshold, budgets=self._goal.budgets
            )
        return self._found[threshold]

    def _assembled(self, name: str, allocation: Allocation) -> Round:
        """Noted once for the same candidates."""
        for noted in self._rounds:
            if noted.kind == "assembled" and noted.candidates == allocation.candidates:
                return noted
        _, measured = self._bench.assemble(allocation.candidates)
        return self._noted("assembled", name, allocation, measured)

    def _rebuilt(self, name: str, allocation: Allocation) -> tuple[QuantizedModel, Round]:
        model, measured = self._bench.rebuild(allocation.candidates)
        return model, self._noted("reconstructed", name, allocation, measured)

    def _noted(self, kind: str, name: str, allocation: Allocation, measured: Measured) -> Round:
        holds = self._goal.max_drop is None or measured.points <= self._goal.max_drop
        self._rounds.append(
            Round(kind, name, allocation.candidates, allocation.degradation, allocation.costs, measured, holds)
        )
        return self._rounds[-1]

    def _allocated(
        self, model: QuantizedModel, allocation: Allocation, attained: bool
    ) -> tuple[QuantizedModel, Allocated]:
        return model, Allocated(allocation, tuple(self._rounds), attained)
