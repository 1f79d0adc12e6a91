"""What the integer program is given, and what it gives: choices, borders, ties, and a candidate for every unit."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
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
        _check_costs(f"border of {self.first!r} and {self.second!r}", self.costs)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """A candidate for every unit.

    Attributes:
      candidates: their names by unit.
      degradation: predicted: the sum over the units.
      costs: totals by name, borders and fixed costs included.
      status: "optimal": the program came to its end; "stopped": a limit ended it before; "feasible": by a heuristic.
      bound: no allocation has a smaller objective (degradation, or the cost that was minimised), so the solver proved;
        -inf where nothing is proven.
      gap: of the objective to the bound, as a fraction of the objective; infinite where nothing is proven.
      solver: "cbc" or "highs", or the heuristic's name.
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
    """What can be chosen and what it costs: choices, borders and ties, checked against each other.

    Attributes:
      values: cost name, or "degradation", -> value; by unit and candidate.
      groups: the units, those that are tied together in one tuple.
      borders, fixed: as given.
      names: of the costs.
    """

    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    groups: tuple[tuple[str, ...], ...]
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
        tied: Sequence[Sequence[str]] = (),
    ) -> Problem:
        """The problem that these describe.

        Args:
          choices: every unit with every candidate that it may have.
          borders: costs between units, of which one is float and the other not.
          fixed: costs that no choice changes, such as those of the rest of the file.
          tied: units that get the same candidate; each must be offered one that the others are offered too.

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
        for where, costs in (
            ("fixed costs", fixed),
            *((f"border of {b.first!r} and {b.second!r}", b.costs) for b in borders),
        ):
            _check_known(where, costs, names)
        for border in borders:
            _check_known(f"border of {border.first!r} and {border.second!r}", (border.first, border.second), values)
        problem = cls(values, _groups(values, tied), tuple(borders), fixed, names)
        for group in problem.groups:
            if not problem.offered(group):
                raise UserError(f"the tied units {', '.join(group)} have no candidate in common; give them one")
        return problem

    def offered(self, group: Sequence[str]) -> list[str]:
        """Names of the candidates that all units of a group have."""
        return [c for c in self.values[group[0]] if all(c in self.values[unit] for unit in group)]

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


def pinned(choices: Sequence[Choice], pins: Sequence[tuple[str, str]]) -> list[Choice]:
    """The choices without those that a pin excludes.

    Args:
      choices: every unit with its candidates.
      pins: pairs of a regular expression, to be found in a unit's name, and a candidate's name. Of several that
        match a unit the last one holds.

    Raises UserError where an expression is broken or matches no unit, or the unit is not offered the candidate.
    """
    offered: dict[str, list[str]] = {}
    for choice in choices:
        offered.setdefault(choice.unit, []).append(choice.candidate)
    wanted: dict[str, str] = {}
    for expression, candidate in pins:
        try:
            matching = [unit for unit in offered if re.search(expression, unit)]
        except re.error as error:
            raise UserError(f"pin {expression!r} is no regular expression: {error}") from error
        if not matching:
            near = difflib.get_close_matches(expression, offered, n=3, cutoff=0.3) or list(offered)[:3]
            raise UserError(f"pin {expression!r} matches none of the {len(offered)} units; near it: {', '.join(near)}")
        wanted.update(dict.fromkeys(matching, candidate))
    for unit, candidate in wanted.items():
        if candidate not in offered[unit]:
            raise UserError(f"unit {unit!r} is pinned to {candidate!r}; it can have {', '.join(offered[unit])}")
    return [c for c in choices if wanted.get(c.unit, c.candidate) == c.candidate]


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


def _groups(units: Collection[str], tied: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """The units in their order, tied ones together, at the place of the first."""
    group_of = {unit: [unit] for unit in units}
    for together in tied:
        _check_known("tied", together, units)
        merged = [unit for unit in units if any(unit in group_of[other] for other in together)]
        for unit in merged:
            group_of[unit] = merged
    return tuple(tuple(group) for unit, group in group_of.items() if group[0] == unit)


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
