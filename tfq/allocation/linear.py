"""The integer program as rows for a solver, and what its relaxation tells.

How rows are scaled so that tolerances hide nothing, `tfq.allocation.program` says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import pulp

from tfq.allocation.problem import Border, Problem, crossed
from tfq.allocation.solver import relaxed
from tfq.precision import CANDIDATES

_ROW_SPREAD = 1e4  # what the widest spread of a budget's row becomes
_OBJECTIVE_SPREAD = 1e6  # CBC tells objectives apart from 1e-5 on
_SLACK = 1e-6  # of a scaled row; beyond what the solvers' own tolerances and the 13 digits of their files can hide

Place = tuple[int, str]
"""(number of a group, candidate)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Rows for a solver.

    Attributes:
      model: for PuLP.
      variables: by place; 1 where its candidate is chosen.
      constant, scale: the objective is (that of the problem - constant) * scale.
      least: the problem's objective can be no smaller, whatever is chosen.
    """

    model: pulp.LpProblem
    variables: Mapping[Place, pulp.LpVariable]
    constant: float
    scale: float
    least: float

    @classmethod
    def of(
        cls,
        problem: Problem,
        objective: str,
        limits: Mapping[str, float],
        places: Sequence[Place],
        *,
        widened: int,
    ) -> Program:
        """The program with these places alone; widened: 1 to widen rows by what tolerances hide, -1 to narrow them."""
        program = pulp.LpProblem("allocation", pulp.LpMinimize)
        variables = {
            (number, candidate): pulp.LpVariable(f"x_{number}_{candidate}", 0, 1, pulp.LpInteger)
            for number, candidate in places
        }
        of_group: list[dict[str, pulp.LpVariable]] = [{} for _ in problem.groups]
        for (number, candidate), variable in variables.items():
            of_group[number][candidate] = variable
        number_of = {unit: number for number, group in enumerate(problem.groups) for unit in group}
        for number, own in enumerate(of_group):
            program += pulp.lpSum(own.values()) == 1, f"one_{number}"

        with_border: list[tuple[Border, pulp.LpVariable]] = []
        for number, border in enumerate(problem.borders):
            pair = [number_of[border.first], number_of[border.second]]
            if pair[0] == pair[1]:
                continue
            first, second = (pulp.lpSum(v for c, v in of_group[n].items() if CANDIDATES[c].is_float) for n in pair)
            paid = pulp.LpVariable(f"y_{number}", 0, 1)
            program += first - second <= paid, f"from_{number}"
            program += second - first <= paid, f"into_{number}"
            program += paid <= first + second, f"some_{number}"
            program += paid <= 2 - first - second, f"both_{number}"
            with_border.append((border, paid))

        def row(name: str) -> tuple[list[tuple[pulp.LpVariable, float]], float, bool]:
            """Terms, the constant that every allocation has, and whether all are whole numbers."""
            terms, constants = [], [problem.fixed.get(name, 0.0)]
            for group, own in zip(problem.groups, of_group, strict=True):
                sums = {c: math.fsum(problem.values[unit][c][name] for unit in group) for c in own}
                lowest = min(sums, key=lambda c: sums[c])
                least = sums[lowest]
                # as in `Problem.total`: rounded once
                constants += [problem.values[unit][lowest][name] for unit in group]
                terms += [(own[c], value - least) for c, value in sums.items() if value != least]
            terms += [(paid, b.costs[name]) for b, paid in with_border if b.costs.get(name)]
            constant = math.fsum(constants)
            return terms, constant, all(float(v).is_integer() for v in (constant, *(value for _, value in terms)))

        terms, fixed, _ = row(objective)
        # a spread that is lost in the rounding of the total must not look wide to `_reaching`
        spread = _OBJECTIVE_SPREAD / max(*(abs(v) for _, v in terms), 1e-6 * abs(fixed)) if terms else 1.0
        program.setObjective(pulp.LpAffineExpression([(variable, value * spread) for variable, value in terms]))
        for number, (name, limit) in enumerate(limits.items()):
            if math.isinf(limit) and limit > 0:
                continue
            terms, constant, whole = row(name)
            if limit == -math.inf or (not terms and constant > limit):
                program += pulp.lpSum(variables.values()) <= -1, f"never_{number}"
            elif terms:
                scale = _ROW_SPREAD / max(abs(v) for _, v in terms)
                margin = max(_SLACK, 2 * math.ulp(limit) * scale)  # a total is rounded once
                room = (math.floor(limit) - constant + 0.5) * scale if whole else (limit - constant) * scale
                room += 0.0 if whole else widened * margin
                scaled = pulp.LpAffineExpression([(v, value * scale) for v, value in terms])
                program += scaled <= room, f"budget_{number}"
        negative = [min(0.0, border.costs.get(objective, 0.0)) for border, _ in with_border]
        return cls(program, variables, fixed, spread, fixed + math.fsum(negative))

    def value_of(self, objective: float) -> float:
        """The problem's objective for one of the program, or for a bound of it."""
        return max(objective / self.scale + self.constant, self.least)

    def chosen(self) -> list[Place]:
        """The places whose variables are 1."""
        return [place for place, variable in self.variables.items() if round(variable.value()) == 1]

    def cut(self) -> None:
        """Rule out what is chosen."""
        chosen = [self.variables[place] for place in self.chosen()]
        self.model.addConstraint(pulp.lpSum(chosen) <= len(chosen) - 1)


def undominated(problem: Problem, names: Collection[str]) -> list[Place]:
    """The places but those that another of the unit, float too or neither float, equals or beats in all `names`."""
    left = []
    for number, group in enumerate(problem.groups):
        kept: dict[str, list[float]] = {}
        sums = {
            c: [math.fsum(problem.values[unit][c][n] for unit in group) for n in sorted(names)]
            for c in problem.offered(group)
        }
        for candidate in sorted(sums, key=lambda c: sums[c]):  # stable, and none is beaten by a later one
            alike = (own for other, own in kept.items() if CANDIDATES[other].is_float == CANDIDATES[candidate].is_float)
            if not any(all(x <= y for x, y in zip(own, sums[candidate], strict=True)) for own in alike):
                kept[candidate] = sums[candidate]
        left += [(number, candidate) for candidate in sums if candidate in kept]
    return left


@dataclasses.dataclass(frozen=True, eq=False)
class Relaxation:
    """What the relaxed program, with fractions for 0 and 1, tells of the integer one: the Lagrangian bound.

    With multipliers m >= 0 of the rows a x <= b, every solution costs at least sum_u min_k d_uk + sum_y min(0, d_y)
    - m b with d = c + m a, and one with x_uk = 1 d_uk - min_k d_uk more. That holds whatever the multipliers are; the
    relaxation's duals make it sharp.

    Attributes:
      problem: the whole one.
      prices: terms of the scaled objective by place, or by number of the border.
      bound: what every solution costs at least.
      excess: by place, what a solution with it costs more at least.
    """

    problem: Problem
    prices: Mapping[Place | int, float]
    bound: float
    excess: Mapping[Place, float]

    @classmethod
    def of(
        cls, problem: Problem, objective: str, limits: Mapping[str, float], solver: str, places: Sequence[Place]
    ) -> Relaxation:
        linear = Program.of(problem, objective, limits, places, widened=1)
        program, variables = linear.model, linear.variables
        relaxed(program, solver)
        reduced = {id(v): 0.0 for v in program.variables()}
        for variable, value in program.objective.items():
            reduced[id(variable)] += value
        priced = {variable.name: value for variable, value in program.objective.items()}
        bounds = []
        for row in program.constraints.values():
            multiplier = max(0.0, -row.pi) if row.sense == pulp.LpConstraintLE and row.pi is not None else 0.0
            bounds.append(multiplier * row.constant)
            for variable, value in row.items():
                reduced[id(variable)] += multiplier * value
        own = {place: reduced.pop(id(variable)) for place, variable in variables.items()}
        least: dict[int, float] = {}
        for (number, _), value in own.items():
            least[number] = min(value, least.get(number, math.inf))
        return cls(
            problem,
            {place: priced.get(variable.name, 0.0) for place, variable in variables.items()}
            | {number: priced.get(f"y_{number}", 0.0) for number in range(len(problem.borders))},
            math.fsum([*bounds, *least.values(), *(min(0.0, value) for value in reduced.values())]),
            {place: value - least[place[0]] for place, value in own.items()},
        )

    def core(self, count: int) -> list[Place]:
        """The places of the smallest excess, among which the optimum, or what is near it, mostly is."""
        highest = sorted(self.excess.values())[: count + 1][-1]
        return [place for place, value in self.excess.items() if value <= highest]

    def reaching(self, found: Mapping[str, str]) -> list[Place]:
        """The places without those that no allocation with an objective as low as that of `found` has."""
        taken: list[Place | int] = [(n, found[group[0]]) for n, group in enumerate(self.problem.groups)]
        paid = [n for n, border in enumerate(self.problem.borders) if crossed(border, found)]
        reached = math.fsum(self.prices[term] for term in (*taken, *paid))
        room = reached - self.bound + _OBJECTIVE_SPREAD * 1e-9  # far above what rounding can hide
        return [place for place, value in self.excess.items() if value <= room]
