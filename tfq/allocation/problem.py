"""What the integer program is given, and what it gives: choices, borders, and a candidate for every unit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from tfq.errors import UserError
from tfq.precision import CANDIDATES

DEGRADATION = "degradation"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A unit with one of its candidates.

    Attributes:
      unit: its name.
      candidate: a name in `tfq.precision.CANDIDATES`.
      degradation: of the whole model if this unit alone has this candidate; at least 0.
      costs: by name ("download_bytes", "latency_ms", ...); the same names in every choice.
    """

    unit: str
    candidate: str
    degradation: float
    costs: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.candidate not in CANDIDATES:
            raise UserError(f"unit {self.unit!r}: candidate {self.candidate!r} is none of {', '.join(CANDIDATES)}")
        if not (math.isfinite(self.degradation) and self.degradation >= 0):
            raise UserError(
                f"unit {self.unit!r} with {self.candidate}: degradation (={self.degradation}) must be finite and >= 0"
            )
        if DEGRADATION in self.costs:
            raise UserError(f"a cost cannot be called {DEGRADATION!r}; rename it")
        _check_costs(f"unit {self.unit!r} with {self.candidate}", self.costs)


@dataclasses.dataclass(frozen=True)
class Border:
    """Two units between which tensors pass.

    Attributes:
      first, second: names of the units.
      costs: paid where exactly one of them is float; a name that is absent costs nothing.
    """

    first: str
    second: str
    costs: Mapping[str, float]

    def __post_init__(self) -> None:
        _check_costs(self.name, self.costs)

    @property
    def name(self) -> str:
        return f"border of {self.first!r} and {self.second!r}"


@dataclasses.dataclass(frozen=True)
class Allocation:
    """A candidate for every unit.

    Attributes:
      candidates: their names by unit.
      degradation: predicted: the sum over the units.
      costs: totals by name, borders and fixed costs included.
      status: "optimal": the program came to its end; "stopped": its cuts ran out; "feasible": by a heuristic.
      bound: no allocation has a smaller objective (degradation, or the cost that was minimised), so the solver proved;
        -inf where nothing is proven.
      gap: of the objective to the bound, as a fraction of the objective; infinite where nothing is proven.
      solver: "highs", or the heuristic's name.
      seconds: that it took.
    """

    candidates: Mapping[str, str]
    degradation: float
    costs: Mapping[str, float]
    status: str
    bound: float
    gap: float
    solver: str
    seconds: float = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What can be chosen and what it costs: choices and borders, checked against each other.

    Attributes:
      values: cost name, or "degradation", -> value; by unit and candidate.
      borders, fixed: as given.
      names: of the costs.
    """

    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    borders: tuple[Border, ...]
    fixed: Mapping[str, float]
    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        choices: Sequence[Choice],
        *,
        borders: Sequence[Border] = (),
        fixed: Mapping[str, float] | None = None,
    ) -> Problem:
        """The problem that these describe.

        Args:
          choices: every unit with every candidate that it may have.
          borders: costs between units, of which one is float and the other not.
          fixed: costs that no choice changes, such as those of the rest of the file.

        Raises UserError where they contradict each other.
        """
        if not choices:
            raise UserError("there are no choices; give every unit at least one candidate")
        names = tuple(choices[0].costs)
        values: dict[str, dict[str, dict[str, float]]] = {}
        for choice in choices:
            if set(choice.costs) != set(names):
                raise UserError(
                    f"unit {choice.unit!r} with {choice.candidate} has the costs {sorted(choice.costs)}, "
                    f"unit {choices[0].unit!r} has {sorted(names)}; give all choices the same"
                )
            offered = values.setdefault(choice.unit, {})
            if choice.candidate in offered:
                raise UserError(f"unit {choice.unit!r} is given {choice.candidate} twice; give it once")
            offered[choice.candidate] = {DEGRADATION: choice.degradation, **choice.costs}
        fixed = dict(fixed or {})
        _check_costs("fixed costs", fixed)
        _check_known("fixed costs", fixed, names)
        for border in borders:
            _check_known(border.name, border.costs, names)
            _check_known(border.name, (border.first, border.second), values)
        return cls(values, tuple(b for b in borders if b.first != b.second), fixed, names)

    def total(self, name: str, candidates: Mapping[str, str]) -> float:
        """The exact sum, rounded once."""
        paid = [self.values[unit][candidate][name] for unit, candidate in candidates.items()]
        paid += [b.costs.get(name, 0.0) for b in self.borders if crossed(b, candidates)]
        return math.fsum([*paid, self.fixed.get(name, 0.0)])

    def meets(self, limits: Mapping[str, float], candidates: Mapping[str, str]) -> bool:
        return all(self.total(name, candidates) <= limit for name, limit in limits.items())

    def allocation(
        self,
        candidates: Mapping[str, str],
        *,
        objective: str,
        bound: float,
        status: str,
        solver: str,
        seconds: float,
    ) -> Allocation:
        """These candidates with what they cost, and how far `objective` lies above the bound."""
        costs = {name: self.total(name, candidates) for name in self.names}
        degradation = self.total(DEGRADATION, candidates)
        value = {DEGRADATION: degradation, **costs}[objective]
        gap = _gap(value, bound)
        return Allocation(dict(candidates), degradation, costs, status, min(bound, value), gap, solver, seconds=seconds)


def check_limits(problem: Problem, limits: Mapping[str, float]) -> None:
    """Raises UserError for a limit of an unknown cost or one that is not a number."""
    _check_known("budgets", limits, problem.names)
    for name, limit in limits.items():
        if math.isnan(limit):
            raise UserError(f"the budget of {name} is not a number; give the most that it may be")


def _gap(value: float, bound: float) -> float:
    """Of a value to the bound, as a fraction of the value."""
    if bound >= value:
        return 0.0
    return (value - bound) / abs(value) if value else math.inf


def crossed(border: Border, candidates: Mapping[str, str]) -> bool:
    return CANDIDATES[candidates[border.first]].is_float != CANDIDATES[candidates[border.second]].is_float


def _check_costs(where: str, costs: Mapping[str, float]) -> None:
    for name, value in costs.items():
        if not math.isfinite(value):
            raise UserError(f"{where}: {name} (={value}) must be a finite number")


def _check_known(where: str, names: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{where}: {unknown[0]!r} is none of {', '.join(list(known)[:12]) or 'none'}")
