"""The integer program that gives every unit its candidate.

    minimise    sum_u sum_k x_uk D_uk                                  the predicted degradation
    subject to  sum_u sum_k x_uk C_uk + sum_b y_b B_b + F <= limit     for every budgeted cost
                sum_k x_uk = 1,  x_uk in {0, 1}                        one candidate a unit

or, with a cost in the place of the degradation and the degradation as one more budget, the least cost. Tied units
share their x. A border b = (u, v) is paid where exactly one of the two is float: y_b = |f_u - f_v| with
f_u = the sum of x_uk over the float candidates k, linearised exactly by
f_u - f_v <= y_b, f_v - f_u <= y_b, y_b <= f_u + f_v, y_b <= 2 - f_u - f_v. F are costs that no choice changes.

Source: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer
Programming", 2020, equations 5a-5d. Scope: costs and degradations are sums over the units; what is not additive
has to be corrected by measuring. Borders and several budgets are additions.

Exactness. A solver works in floating point with tolerances, so
    - every row is reduced by each unit's smallest value and scaled to its widest spread; a row of whole numbers
      gets its limit half a unit above, where no solution comes within the tolerance; another a limit wider by
      1e-10 of that spread, so that nothing feasible is lost;
    - what comes back is checked as the exact sum rounded once to a double (`math.fsum`) against the limit. One that
      exceeds it is cut off by name (`sum of its x <= units - 1`), and the program is solved again;
    - of a large program those places are left out first that the bound of the relaxed program shows to be in no
      optimum, given an answer that is found among the few likely ones;
    - the solver is asked for gap 0, and an answer that it does not call optimal is an error. Optimal is to within
      1e-11 of the widest spread of the objective.
Among allocations of equal objective a second program takes the one of the smallest first budgeted cost (of the
smallest degradation, where a cost is minimised). Same input and solver: same answer.
"""

from __future__ import annotations

import dataclasses
import decimal
import difflib
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import pulp

from tfq.allocation.candidates import ALL
from tfq.errors import UserError

DEGRADATION = "degradation"
SOLVERS = ("auto", "cbc", "highs")
_ROW_SPREAD = 1e4  # what the widest spread of a budget's row becomes
_OBJECTIVE_SPREAD = 1e6  # CBC tells objectives apart from 1e-5 on
_SLACK = 1e-6  # of a scaled row; beyond what the solvers' own tolerances and the 13 digits of their files can hide
_MANY_PLACES = 300  # from here on it pays to rule out most places first, by an answer of
_ROUGH_GAP, _CORE_SHARE = 1e-2, 2  # found among so many places a group
_MOST_CUTS = 20  # then the row is narrowed by the slack instead of widened


_Place = tuple[int, str]
"""(number of a group, candidate)."""


class Infeasible(UserError):  # noqa: N818 - what it is, not that it is one
    """No allocation meets the budgets; says the nearest attainable ones."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A unit with one of its candidates.

    Attributes:
      unit: its name.
      candidate: a name in `tfq.allocation.candidates.ALL`.
      degradation: of the whole model if this unit alone has this candidate; at least 0.
      costs: by name ("download_bytes", "latency_ms", ...); the same names in every choice.
    """

    unit: str
    candidate: str
    degradation: float
    costs: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.candidate not in ALL:
            raise UserError(f"unit {self.unit!r}: candidate {self.candidate!r} is none of {', '.join(ALL)}")
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
      status: "optimal" of the program, "feasible" of a heuristic.
      gap: proven distance of the objective to the optimum, as a fraction of it; infinite where nothing is proven.
      solver: "cbc" or "highs", or the heuristic's name.
      seconds: that it took.
    """

    candidates: Mapping[str, str]
    degradation: float
    costs: Mapping[str, float]
    status: str
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
        paid += [b.costs.get(name, 0.0) for b in self.borders if _crossed(b, candidates)]
        return math.fsum([*paid, self.fixed.get(name, 0.0)])

    def meets(self, limits: Mapping[str, float], candidates: Mapping[str, str]) -> bool:
        return all(self.total(name, candidates) <= limit for name, limit in limits.items())

    def allocation(
        self, candidates: Mapping[str, str], *, status: str, gap: float, solver: str, seconds: float
    ) -> Allocation:
        costs = {name: self.total(name, candidates) for name in self.names}
        return Allocation(
            dict(candidates), self.total(DEGRADATION, candidates), costs, status, gap, solver, seconds=seconds
        )


def minimise_degradation(problem: Problem, *, budgets: Mapping[str, float], solver: str = "auto") -> Allocation:
    """The allocation of the smallest predicted degradation that keeps every budget.

    Args:
      problem: what can be chosen.
      budgets: the most that a cost's total may be, by the cost's name.
      solver: "cbc" (comes with PuLP), "highs" (needs highspy), or "auto": HiGHS where it is installed, else CBC.

    Raises Infeasible with the nearest attainable budget, and UserError for a budget of an unknown cost.
    """
    check_limits(problem, budgets)
    second = next(iter(budgets), problem.names[0] if problem.names else DEGRADATION)
    return _allocate(problem, DEGRADATION, second, budgets, solver)


def minimise_cost(
    problem: Problem,
    *,
    cost: str,
    max_degradation: float,
    budgets: Mapping[str, float] | None = None,
    solver: str = "auto",
) -> Allocation:
    """The allocation of the smallest total `cost` whose predicted degradation is at most `max_degradation`.

    Arguments and errors as of `minimise_degradation`.
    """
    check_limits(problem, {**(budgets or {}), cost: 0.0})
    limits = {DEGRADATION: max_degradation, **(budgets or {})}
    if math.isnan(max_degradation):
        raise UserError("max_degradation is not a number; give the most that may be lost")
    return _allocate(problem, cost, DEGRADATION, limits, solver)


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


def infeasible(problem: Problem, limits: Mapping[str, float], *, solver: str = "auto") -> Infeasible:
    """The error that says which of the limits no allocation keeps, and what can be had."""
    solver = _chosen(solver)
    conflict = dict(limits)
    for name in limits:  # what is left when each that is not needed for the conflict has been dropped
        others = {n: limit for n, limit in conflict.items() if n != name}
        if others and _solve(problem, name, others, solver) is None:
            conflict = others
    asked = " and ".join(f"{n} <= {float(limit):.12g}" for n, limit in conflict.items())
    least = []
    for name in conflict:
        kept = {n: limit for n, limit in conflict.items() if n != name}
        rest = {n: limit for n, limit in limits.items() if n != name}
        found = _solve(problem, name, rest, solver) or _solve(problem, name, kept, solver)
        assert found is not None  # a conflict that loses one of its limits is none
        condition = " with the rest kept" if len(limits) > 1 and problem.meets(rest, found) else ""
        least.append(f"{name} {_upward(problem.total(name, found))}{condition}")
    text = f"no allocation keeps {asked}; the least attainable: {', or '.join(least)}"
    if len(conflict) == 2:
        text += f"; of these two: {' ... '.join(_ends(problem, tuple(conflict), solver))}"
    return Infeasible(text + "; raise a budget or offer more candidates")


def _ends(problem: Problem, pair: tuple[str, ...], solver: str) -> Iterator[str]:
    """Both ends of the frontier of two quantities: one at its least, and then the other at its least."""
    for first, second in (pair, pair[::-1]):
        found = _lexicographic(problem, first, second, {}, solver)
        assert found is not None  # without limits
        yield " with ".join(f"{name} {_upward(problem.total(name, found))}" for name in (first, second))


def _allocate(problem: Problem, objective: str, second: str, limits: Mapping[str, float], solver: str) -> Allocation:
    start = time.perf_counter()
    solver = _chosen(solver)
    found = _lexicographic(problem, objective, second, limits, solver)
    if found is None:
        raise infeasible(problem, limits, solver=solver)
    return problem.allocation(found, status="optimal", gap=0.0, solver=solver, seconds=time.perf_counter() - start)


def _lexicographic(
    problem: Problem, objective: str, second: str, limits: Mapping[str, float], solver: str
) -> dict[str, str] | None:
    """The candidates of the least `objective`, and among those of the least `second`."""
    places = _undominated(problem, {objective, second, *limits})
    if len(places) > _MANY_PLACES:
        relaxed = _Relaxation.of(problem, objective, limits, solver, places)
        core = relaxed.core(_CORE_SHARE * len(problem.groups))
        rough = _solve(problem, objective, limits, solver, core, gap=_ROUGH_GAP) or _solve(
            problem, objective, limits, solver, places, gap=_ROUGH_GAP
        )
        if rough is None:
            return None
        places = relaxed.reaching(rough)
    found = _solve(problem, objective, limits, solver, places)
    if found is None or second == objective:
        return found
    best = problem.total(objective, found)
    places = _Relaxation.of(problem, objective, limits, solver, places).reaching(found)
    # None where the cuts ran out: near ties that the solver takes for equal; then the first answer holds
    return _solve(problem, second, {**limits, objective: best}, solver, places) or found


def _solve(
    problem: Problem,
    objective: str,
    limits: Mapping[str, float],
    solver: str,
    places: Sequence[_Place] | None = None,
    *,
    gap: float = 0.0,
) -> dict[str, str] | None:
    """The candidates, of `places` alone, of the least `objective` that keep all limits; None where there are none."""
    places = _undominated(problem, {objective, *limits}) if places is None else places
    for widened in (1, -1):
        program, variables = _program(problem, objective, limits, places, widened=widened)
        for cut in range(_MOST_CUTS):
            chosen = _optimum(program, variables, solver, gap)
            found = None if chosen is None else _expanded(problem, chosen)
            if chosen is None or found is None or problem.meets(limits, found):
                return found
            program += pulp.lpSum(variables[place] for place in chosen) <= len(chosen) - 1, f"cut_{cut}"
    return None


def _undominated(problem: Problem, names: Collection[str]) -> list[_Place]:
    """The places but those that another of the unit, float too or neither float, equals or beats in all `names`."""
    left = []
    for number, group in enumerate(problem.groups):
        kept: dict[str, list[float]] = {}
        sums = {
            c: [math.fsum(problem.values[unit][c][n] for unit in group) for n in sorted(names)]
            for c in problem.offered(group)
        }
        for candidate in sorted(sums, key=lambda c: sums[c]):  # stable, and none is beaten by a later one
            alike = (own for other, own in kept.items() if ALL[other].is_float == ALL[candidate].is_float)
            if not any(all(x <= y for x, y in zip(own, sums[candidate], strict=True)) for own in alike):
                kept[candidate] = sums[candidate]
        left += [(number, candidate) for candidate in sums if candidate in kept]
    return left


@dataclasses.dataclass(frozen=True, eq=False)
class _Relaxation:
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
    prices: Mapping[_Place | int, float]
    bound: float
    excess: Mapping[_Place, float]

    @classmethod
    def of(
        cls, problem: Problem, objective: str, limits: Mapping[str, float], solver: str, places: Sequence[_Place]
    ) -> _Relaxation:
        program, variables = _program(problem, objective, limits, places, widened=1)
        program.solve(_made(solver, mip=False))
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

    def core(self, count: int) -> list[_Place]:
        """The places of the smallest excess, among which the optimum, or what is near it, mostly is."""
        highest = sorted(self.excess.values())[: count + 1][-1]
        return [place for place, value in self.excess.items() if value <= highest]

    def reaching(self, found: Mapping[str, str]) -> list[_Place]:
        """The places without those that no allocation with an objective as low as that of `found` has."""
        taken: list[_Place | int] = [(n, found[group[0]]) for n, group in enumerate(self.problem.groups)]
        crossed = [n for n, border in enumerate(self.problem.borders) if _crossed(border, found)]
        reached = math.fsum(self.prices[term] for term in (*taken, *crossed))
        room = reached - self.bound + _OBJECTIVE_SPREAD * 1e-9  # far above what rounding can hide
        return [place for place, value in self.excess.items() if value <= room]


def _program(
    problem: Problem, objective: str, limits: Mapping[str, float], places: Sequence[_Place], *, widened: int
) -> tuple[pulp.LpProblem, dict[_Place, pulp.LpVariable]]:
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

    crossed: list[tuple[Border, pulp.LpVariable]] = []
    for number, border in enumerate(problem.borders):
        pair = [number_of[border.first], number_of[border.second]]
        if pair[0] == pair[1]:
            continue
        first, second = (pulp.lpSum(v for c, v in of_group[n].items() if ALL[c].is_float) for n in pair)
        paid = pulp.LpVariable(f"y_{number}", 0, 1)
        program += first - second <= paid, f"from_{number}"
        program += second - first <= paid, f"into_{number}"
        program += paid <= first + second, f"some_{number}"
        program += paid <= 2 - first - second, f"both_{number}"
        crossed.append((border, paid))

    def row(name: str) -> tuple[list[tuple[pulp.LpVariable, float]], float, bool]:
        """Terms, the constant that every allocation has, and whether all are whole numbers."""
        terms, constants = [], [problem.fixed.get(name, 0.0)]
        for group, own in zip(problem.groups, of_group, strict=True):
            sums = {c: math.fsum(problem.values[unit][c][name] for unit in group) for c in own}
            lowest = min(sums, key=lambda c: sums[c])
            least = sums[lowest]
            constants += [problem.values[unit][lowest][name] for unit in group]  # as in `Problem.total`: rounded once
            terms += [(own[c], value - least) for c, value in sums.items() if value != least]
        terms += [(paid, b.costs[name]) for b, paid in crossed if b.costs.get(name)]
        constant = math.fsum(constants)
        return terms, constant, all(float(v).is_integer() for v in (constant, *(value for _, value in terms)))

    terms, constant, _ = row(objective)
    # a spread that is lost in the rounding of the total must not look wide to `_reaching`
    scale = _OBJECTIVE_SPREAD / max(*(abs(v) for _, v in terms), 1e-6 * abs(constant)) if terms else 1.0
    program.setObjective(pulp.LpAffineExpression([(variable, value * scale) for variable, value in terms]))
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
            program += pulp.LpAffineExpression([(v, value * scale) for v, value in terms]) <= room, f"budget_{number}"
    return program, variables


def _optimum(
    program: pulp.LpProblem, variables: Mapping[_Place, pulp.LpVariable], solver: str, gap: float
) -> list[_Place] | None:
    """The places whose variables are 1 in the optimum; None where the program has no solution."""
    try:
        program.solve(_made(solver, gap=gap))
    except pulp.PulpSolverError:
        # CBC dies of some programs without a solution, which its preprocessing tells
        if solver != "cbc" or program.solve(_made(solver, gap=gap, preprocess=True)) != pulp.LpStatusInfeasible:
            raise
        return None
    if program.status == pulp.LpStatusInfeasible:
        return None
    if program.status != pulp.LpStatusOptimal or program.sol_status != pulp.LpSolutionOptimal:
        raise RuntimeError(
            f"{solver} ended with {pulp.LpStatus[program.status]!r}, {pulp.LpSolution[program.sol_status]!r}"
        )
    return [place for place, variable in variables.items() if round(variable.value()) == 1]


def _made(solver: str, *, mip: bool = True, gap: float = 0.0, preprocess: bool = False) -> pulp.LpSolver:
    options = {"mip": mip, "msg": False, "gapRel": gap, "gapAbs": 0.0, "threads": 1}
    if solver == "highs":
        return pulp.HiGHS(**options)
    # CBC's integer preprocessing has called an allocation optimal that was not
    return pulp.PULP_CBC_CMD(**options, options=[] if preprocess else ["preprocess off"])


def _expanded(problem: Problem, chosen: Sequence[_Place]) -> dict[str, str]:
    """The candidate of every unit, in the order of the units."""
    by_unit = {unit: candidate for number, candidate in chosen for unit in problem.groups[number]}
    return {unit: by_unit[unit] for unit in problem.values}


def _chosen(solver: str) -> str:
    """ "cbc" or "highs"; raises UserError where it is not there."""
    if solver not in SOLVERS:
        raise UserError(f"solver (={solver!r}) must be one of {', '.join(SOLVERS)}")
    if solver == "auto":
        return "highs" if pulp.HiGHS(msg=False).available() else "cbc"
    if solver == "highs" and not pulp.HiGHS(msg=False).available():
        raise UserError("solver 'highs' needs the package highspy; install it or take 'cbc'")
    if solver == "cbc" and not pulp.PULP_CBC_CMD(msg=False).available():
        raise UserError("PuLP brings no CBC for this machine; install highspy and take 'highs'")
    return solver


def _groups(units: Collection[str], tied: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """The units in their order, tied ones together, at the place of the first."""
    group_of = {unit: [unit] for unit in units}
    for together in tied:
        _check_known("tied", together, units)
        merged = [unit for unit in units if any(unit in group_of[other] for other in together)]
        for unit in merged:
            group_of[unit] = merged
    return tuple(tuple(group) for unit, group in group_of.items() if group[0] == unit)


def _crossed(border: Border, candidates: Mapping[str, str]) -> bool:
    return ALL[candidates[border.first]].is_float != ALL[candidates[border.second]].is_float


def _check_costs(where: str, costs: Mapping[str, float]) -> None:
    for name, value in costs.items():
        if not math.isfinite(value):
            raise UserError(f"{where}: {name} (={value}) must be a finite number")


def _check_known(where: str, names: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{where}: {unknown[0]!r} is none of {', '.join(list(known)[:12]) or 'none'}")


def _upward(value: float) -> str:
    """The number to six digits, not below it: as a budget it is kept."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return str(decimal.Context(prec=6, rounding=decimal.ROUND_CEILING).create_decimal(repr(value)))
