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
    - the solver is asked for gap 0. What it proved is told as it gave it (`tfq.allocation.solver`): a bound that no
      allocation goes below, and the gap between it and the answer. Objectives closer than 1e-11 of their widest spread
      are equal to it.
Where the cuts or a time limit run out first, the answer is the best one met, its bound still holds, and it is called
stopped; that no allocation keeps the budgets is said only where the solver proved it.
Among allocations of equal objective a second program takes the one of the smallest first budgeted cost (of the
smallest degradation, where a cost is minimised), if it comes to an end. Without a time limit the same input and solver
give the same answer.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import time
from collections.abc import Iterator, Mapping, Sequence

from tfq.allocation.linear import Place, Program, Relaxation, undominated
from tfq.allocation.problem import DEGRADATION, Allocation, Problem, check_limits
from tfq.allocation.solver import chosen, solved
from tfq.errors import UserError

_MANY_PLACES = 300  # from here on it pays to rule out most places first, by an answer of
_ROUGH_GAP, _CORE_SHARE = 1e-2, 2  # found among so many places a group
_MOST_CUTS = 20  # then the row is narrowed by the slack instead of widened


class Infeasible(UserError):  # noqa: N818 - what it is, not that it is one
    """No allocation meets the budgets; says the nearest attainable ones."""


class Unsolved(UserError):  # noqa: N818 - likewise
    """The search ended without an allocation that meets the budgets, and without a proof that there is none."""


def minimise_degradation(
    problem: Problem, *, budgets: Mapping[str, float], solver: str = "auto", time_limit: float = math.inf
) -> Allocation:
    """The allocation of the smallest predicted degradation that keeps every budget.

    Args:
      problem: what can be chosen.
      budgets: the most that a cost's total may be, by the cost's name.
      solver: "cbc" (comes with PuLP), "highs" (needs highspy), or "auto": HiGHS where it is installed, else CBC.
      time_limit: seconds for each of the programs that are solved.

    Raises Infeasible with the nearest attainable budget, Unsolved where the limits ended the search without an answer,
    and UserError for a budget of an unknown cost.
    """
    check_limits(problem, budgets)
    second = next(iter(budgets), problem.names[0] if problem.names else DEGRADATION)
    return _allocate(problem, DEGRADATION, second, budgets, _Means(chosen(solver), time_limit))


def minimise_cost(
    problem: Problem,
    *,
    cost: str,
    max_degradation: float,
    budgets: Mapping[str, float] | None = None,
    solver: str = "auto",
    time_limit: float = math.inf,
) -> Allocation:
    """The allocation of the smallest total `cost` whose predicted degradation is at most `max_degradation`.

    Arguments and errors as of `minimise_degradation`.
    """
    check_limits(problem, {**(budgets or {}), cost: 0.0})
    limits = {DEGRADATION: max_degradation, **(budgets or {})}
    if math.isnan(max_degradation):
        raise UserError("max_degradation is not a number; give the most that may be lost")
    return _allocate(problem, cost, DEGRADATION, limits, _Means(chosen(solver), time_limit))


@dataclasses.dataclass(frozen=True)
class _Means:
    """By which solver programs are solved, and how long each may take in seconds."""

    solver: str
    time_limit: float = math.inf


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What became of a program.

    Attributes:
      candidates: the best that keep all limits; None where none were found.
      bound: no allocation that keeps the limits has a smaller objective; inf: there is none.
      finished: nothing ended the search before its end.
    """

    candidates: dict[str, str] | None
    bound: float
    finished: bool

    @property
    def impossible(self) -> bool:
        """It is proved that no allocation keeps the limits."""
        return self.finished and self.candidates is None


def _allocate(problem: Problem, objective: str, second: str, limits: Mapping[str, float], means: _Means) -> Allocation:
    start = time.perf_counter()
    found = _lexicographic(problem, objective, second, limits, means)
    if found.impossible:
        raise _infeasible(problem, limits, means)
    if found.candidates is None:
        raise Unsolved(
            f"the search for an allocation that keeps {_asked(limits)} was ended by its limits; none was found, and it"
            " is not proved that there is none; give it more time, raise a budget or offer other candidates"
        )
    return problem.allocation(
        found.candidates,
        objective=objective,
        bound=found.bound,
        status="optimal" if found.finished else "stopped",
        solver=means.solver,
        seconds=time.perf_counter() - start,
    )


def _asked(limits: Mapping[str, float]) -> str:
    return " and ".join(f"{name} <= {float(limit):.12g}" for name, limit in limits.items()) or "the ties"


def _infeasible(problem: Problem, limits: Mapping[str, float], means: _Means) -> Infeasible:
    """The error that says which of the limits no allocation keeps, and what can be had."""
    conflict = dict(limits)
    for name in limits:  # what is left when each that is not needed for the conflict has been dropped
        others = {n: limit for n, limit in conflict.items() if n != name}
        if others and _solve(problem, name, others, means).impossible:
            conflict = others
    least = []
    for name in conflict:
        kept = {n: limit for n, limit in conflict.items() if n != name}
        rest = {n: limit for n, limit in limits.items() if n != name}
        found = _solve(problem, name, rest, means).candidates or _solve(problem, name, kept, means).candidates
        if found is None:  # the limits of the search ended it
            least.append(f"{name} not found in time")
            continue
        condition = " with the rest kept" if len(limits) > 1 and problem.meets(rest, found) else ""
        least.append(f"{name} {_upward(problem.total(name, found))}{condition}")
    text = f"no allocation keeps {_asked(conflict)}; the least attainable: {', or '.join(least)}"
    ends = list(_ends(problem, tuple(conflict), means)) if len(conflict) == 2 else []
    if ends:
        text += f"; of these two: {' ... '.join(ends)}"
    return Infeasible(text + "; raise a budget or offer more candidates")


def _ends(problem: Problem, pair: tuple[str, ...], means: _Means) -> Iterator[str]:
    """Both ends of the frontier of two quantities: one at its least, and then the other at its least."""
    for first, second in (pair, pair[::-1]):
        found = _lexicographic(problem, first, second, {}, means).candidates
        if found is not None:
            yield " with ".join(f"{name} {_upward(problem.total(name, found))}" for name in (first, second))


def _lexicographic(
    problem: Problem, objective: str, second: str, limits: Mapping[str, float], means: _Means
) -> _Answer:
    """The candidates of the least `objective`, and among those of the least `second`; the bound is the objective's."""
    places, passed_over = undominated(problem, {objective, second, *limits}), math.inf
    if len(places) > _MANY_PLACES:
        relaxed = Relaxation.of(problem, objective, limits, means.solver, places)
        core = relaxed.core(_CORE_SHARE * len(problem.groups))
        rough = _solve(problem, objective, limits, means, core, gap=_ROUGH_GAP)
        if rough.candidates is None:
            rough = _solve(problem, objective, limits, means, places, gap=_ROUGH_GAP)
        if rough.candidates is None:
            return rough
        places = relaxed.reaching(rough.candidates)
        passed_over = problem.total(objective, rough.candidates)  # what other places are part of costs as much at least
    found = _solve(problem, objective, limits, means, places)
    found = dataclasses.replace(found, bound=min(found.bound, passed_over))
    if found.candidates is None and not math.isinf(passed_over):
        found = dataclasses.replace(found, candidates=rough.candidates, finished=False)
    if found.candidates is None or second == objective:
        return found
    best = problem.total(objective, found.candidates)
    places = Relaxation.of(problem, objective, limits, means.solver, places).reaching(found.candidates)
    closer = _solve(problem, second, {**limits, objective: best}, means, places)
    # none where the limits of the search ended it, as of near ties that the solver takes for equal: the first holds
    return dataclasses.replace(found, candidates=closer.candidates or found.candidates)


def _solve(
    problem: Problem,
    objective: str,
    limits: Mapping[str, float],
    means: _Means,
    places: Sequence[Place] | None = None,
    *,
    gap: float = 0.0,
) -> _Answer:
    """The candidates, of `places` alone, of the least `objective` that keep all limits.

    The bound is that of the widened program, of which every allocation that keeps the limits is a solution; cuts take
    away none of those.
    """
    places = undominated(problem, {objective, *limits}) if places is None else places
    bound = -math.inf
    for widened in (1, -1):
        program = Program.of(problem, objective, limits, places, widened=widened)
        for _ in range(_MOST_CUTS):
            outcome = solved(program.model, means.solver, gap=gap, time_limit=means.time_limit)
            if widened > 0:
                bound = max(bound, program.value_of(outcome.bound))
            if not outcome.found:
                if outcome.finished and widened > 0:
                    return _Answer(None, math.inf, finished=True)
                break
            candidates = _expanded(problem, program.chosen())
            if problem.meets(limits, candidates):
                return _Answer(candidates, bound, finished=outcome.finished and widened > 0)
            program.cut()
    return _Answer(None, bound, finished=False)


def _expanded(problem: Problem, chosen: Sequence[Place]) -> dict[str, str]:
    """The candidate of every unit, in the order of the units."""
    by_unit = {unit: candidate for number, candidate in chosen for unit in problem.groups[number]}
    return {unit: by_unit[unit] for unit in problem.values}


def _upward(value: float) -> str:
    """The number to six digits, not below it: as a budget it is kept."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return str(decimal.Context(prec=6, rounding=decimal.ROUND_CEILING).create_decimal(repr(value)))
