"""The integer program as rows for HiGHS, through PuLP, and what that found and proved.

How rows are scaled so that tolerances hide nothing, `tfq.allocation.program` says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import pulp

from tfq.allocation.problem import Problem
from tfq.execution.terminal import silenced
from tfq.precision import CANDIDATES

_ROW_SPREAD = 1e4  # what the widest spread of a budget's row becomes
_OBJECTIVE_SPREAD = 1e6  # HiGHS tells objectives apart from 1e-6 on
_SLACK = 1e-6  # of a scaled row: the solver's own tolerance

# of f_u, f_v and y_b of a border, and the most that their sum may be (`tfq.allocation.program`)
_LINKS = ((1.0, -1.0, -1.0, 0.0), (-1.0, 1.0, -1.0, 0.0), (-1.0, -1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 2.0))

Place = tuple[str, str]
"""(unit, candidate)."""
Terms = dict[int, float]
"""Factors by the number of the variable."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one program.

    Attributes:
      chosen: the candidate of every unit in the best solution; None where there is no solution.
      bound: no solution has a smaller objective of the problem, so the solver says; inf where there is none.
    """

    chosen: dict[str, str] | None
    bound: float


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Rows for a solver. The variables are the places, 1 where they are chosen, then the borders, 1 where paid.

    Attributes:
      places: by the number of the variable.
      objective: factor of every variable.
      rows: (terms, least and largest value of their sum).
      constant, scale: the objective is (that of the problem - constant) * scale.
      least: the problem's objective can be no smaller, whatever is chosen.
    """

    places: Sequence[Place]
    objective: Sequence[float]
    rows: Sequence[tuple[Terms, float, float]]
    constant: float
    scale: float
    least: float

    @classmethod
    def of(cls, problem: Problem, objective: str, limits: Mapping[str, float], *, widened: int) -> Program:
        """The program; widened: 1 to widen rows by what tolerances hide, -1 to narrow them."""
        places = undominated(problem, {objective, *limits})
        numbers: dict[str, dict[str, int]] = {unit: {} for unit in problem.values}
        for number, (unit, candidate) in enumerate(places):
            numbers[unit][candidate] = number
        borders = dict(enumerate(problem.borders, len(places)))
        rows: list[tuple[Terms, float, float]] = [(dict.fromkeys(own.values(), 1.0), 1, 1) for own in numbers.values()]
        for paid, border in borders.items():
            first, second = (
                [number for candidate, number in numbers[unit].items() if CANDIDATES[candidate].is_float]
                for unit in (border.first, border.second)
            )
            for of_first, of_second, of_paid, most in _LINKS:
                terms: Terms = {**dict.fromkeys(first, of_first), **dict.fromkeys(second, of_second), paid: of_paid}
                rows.append((terms, -math.inf, most))

        def row(name: str) -> tuple[Terms, float, float]:
            """Terms, the constant that every allocation has, and the least that their sum can be."""
            terms: Terms = {}
            constants = [problem.fixed.get(name, 0.0)]
            for unit, own in numbers.items():
                values = {number: problem.values[unit][candidate][name] for candidate, number in own.items()}
                lowest = min(values.values())
                constants.append(lowest)
                terms |= {number: value - lowest for number, value in values.items() if value != lowest}
            paid = {number: border.costs[name] for number, border in borders.items() if border.costs.get(name)}
            least = math.fsum([*constants, *(min(0.0, value) for value in paid.values())])
            return terms | paid, math.fsum(constants), least

        for name, limit in limits.items():
            terms, constant, least = row(name)
            if least > limit:
                rows.append(({}, 1, 1))  # no solution
            elif terms and limit < math.inf:
                scale = _ROW_SPREAD / max(map(abs, terms.values()))
                if all(float(value).is_integer() for value in (constant, *terms.values())):
                    room = math.floor(limit) - constant + 0.5
                else:  # a total is rounded once
                    room = limit - constant + widened * max(_SLACK / scale, 2 * math.ulp(limit))
                rows.append(({number: value * scale for number, value in terms.items()}, -math.inf, room * scale))
        terms, constant, least = row(objective)
        scale = _OBJECTIVE_SPREAD / max(map(abs, terms.values()), default=1.0)
        costs = [scale * terms.get(number, 0.0) for number in range(len(places) + len(borders))]
        return cls(places, costs, rows, constant, scale, least)

    def solve(self) -> Outcome:
        """The best solution, as near as the solver's tolerances are.

        Raises:
          RuntimeError: the solver ended without a solution and without the proof that there is none.
        """
        program = pulp.LpProblem("allocation", pulp.LpMinimize)
        kinds = [pulp.LpInteger] * len(self.places) + [pulp.LpContinuous] * (len(self.objective) - len(self.places))
        variables = [program.add_variable(f"x_{number}", 0, 1, kind) for number, kind in enumerate(kinds)]
        program.setObjective(pulp.LpAffineExpression(zip(variables, self.objective, strict=True)))
        for terms, least, most in self.rows:
            row = pulp.LpAffineExpression([(variables[number], factor) for number, factor in terms.items()])
            program += row == most if least == most else row <= most
        with silenced():  # it prints its version, whatever it is told
            # HiGHS starts its threads once a process, and fails where a later program asks for another number
            program.solve(pulp.HiGHS(msg=False, threads=1, gapRel=0.0, gapAbs=0.0))
        if program.status == pulp.LpStatusInfeasible:
            return Outcome(None, math.inf)
        if program.status != pulp.LpStatusOptimal:
            raise RuntimeError(f"HiGHS ended with {pulp.LpStatus[program.status]!r}")
        chosen = dict(place for place, variable in zip(self.places, variables, strict=False) if variable.value() > 0.5)
        bound = program.solverModel.getInfo().mip_dual_bound
        return Outcome(chosen, max(bound / self.scale + self.constant, self.least))

    def without(self, chosen: Mapping[str, str]) -> Program:
        """The program whose solutions are not these candidates."""
        terms = {number: 1.0 for number, (unit, candidate) in enumerate(self.places) if chosen[unit] == candidate}
        return dataclasses.replace(self, rows=[*self.rows, (terms, -math.inf, len(terms) - 1)])


def undominated(problem: Problem, names: Collection[str]) -> list[Place]:
    """The places but those that another of the unit, float too or neither float, equals or beats in all `names`."""
    left = []
    for unit, offered in problem.values.items():
        kept: dict[str, list[float]] = {}
        costs = {candidate: [values[name] for name in sorted(names)] for candidate, values in offered.items()}
        for candidate in sorted(costs, key=lambda c: costs[c]):  # stable, and none is beaten by a later one
            alike = (own for other, own in kept.items() if CANDIDATES[other].is_float == CANDIDATES[candidate].is_float)
            if not any(all(x <= y for x, y in zip(own, costs[candidate], strict=True)) for own in alike):
                kept[candidate] = costs[candidate]
        left += [(unit, candidate) for candidate in costs if candidate in kept]
    return left
