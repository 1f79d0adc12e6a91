"""The integer program that gives every unit its candidate.

    minimise    sum_u sum_k x_uk D_uk                                  the predicted degradation
    subject to  sum_u sum_k x_uk C_uk + sum_b y_b B_b + F <= limit     for every budgeted cost
                sum_k x_uk = 1,  x_uk in {0, 1}                        one candidate a unit

or, with a cost in the place of the degradation and the degradation as one more budget, the least cost. A border
b = (u, v) is paid where exactly one of the two is float: y_b = |f_u - f_v| with f_u = the sum of x_uk over the float
candidates k, linearised exactly by f_u - f_v <= y_b, f_v - f_u <= y_b, y_b <= f_u + f_v, y_b <= 2 - f_u - f_v. F are
costs that no choice changes.

Source: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer
Programming", 2020, equations 5a-5d. Scope: costs and degradations are sums over the units; what is not additive
has to be corrected by measuring. Borders and several budgets are additions.

Exactness. A solver works in floating point with tolerances, and so does what it proves. So
    - every row is reduced by each unit's smallest value and scaled to its widest spread; a row of whole numbers
      gets its limit half a unit above, where no solution comes within the tolerance; another a limit wider by
      1e-10 of that spread, so that nothing feasible is lost;
    - what comes back is checked as the exact sum rounded once to a double (`math.fsum`) against the limit. One that
      exceeds it is cut off by name (`sum of its x <= units - 1`), and the program is solved again;
    - the solver is asked for gap 0. What it proved is told as it gave it: a bound that no allocation goes below, and
      the gap between it and the answer. Objectives closer than 1e-11 of their widest spread are equal to it.
Where the cuts run out first, the answer is the best one met, its bound still holds, and it is called stopped; that no
allocation keeps the budgets is said only where the solver proved it.
Among allocations of equal objective a second program takes the one of the smallest first budgeted cost (of the
smallest degradation, where a cost is minimised). The same input gives the same answer.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import time
from collections.abc import Iterator, Mapping

from tfq.allocation.linear import Program
from tfq.allocation.problem import DEGRADATION, Allocation, Problem, check_limits
from tfq.errors import UserError

_NONE: Mapping[str, float] = {}
_MOST_CUTS = 20  # then the row is narrowed by the slack instead of widened


class Infeasible(UserError):  # noqa: N818 - what it is, not that it is one
    """No allocation meets the budgets; says the nearest attainable ones.

    Attributes:
      limits: those that no allocation keeps together, by the name of the cost.
      least: the smallest total of each of these while the others are kept; those that were found.
    """

    def __init__(self, message: str, limits: Mapping[str, float] = _NONE, least: Mapping[str, float] = _NONE):
        super().__init__(message)
        self.limits, self.least = dict(limits), dict(least)


class Unsolved(UserError):  # noqa: N818 - likewise
    """The search ended without an allocation that meets the budgets, and without a proof that there is none."""


def minimise_degradation(problem: Problem, *, budgets: Mapping[str, float]) -> Allocation:
    """The allocation of the smallest predicted degradation that keeps every budget.

    Args:
      problem: what can be chosen.
      budgets: the most that a cost's total may be, by the cost's name.

    Raises Infeasible with the nearest attainable budget, Unsolved where the cuts ended the search without an answer,
    and UserError for a budget of an unknown cost.
    """
    check_limits(problem, budgets)
    second = next(iter(budgets), problem.names[0] if problem.names else DEGRADATION)
    return _allocate(problem, DEGRADATION, second, budgets)


def minimise_cost(
    problem: Problem, *, cost: str, max_degradation: float, budgets: Mapping[str, float] | None = None
) -> Allocation:
    """The allocation of the smallest total `cost` whose predicted degradation is at most `max_degradation`.

    Arguments and errors as of `minimise_degradation`.
    """
    check_limits(problem, {**(budgets or {}), cost: 0.0})
    if math.isnan(max_degradation):
        raise UserError("max_degradation is not a number; give the most that may be lost")
    return _allocate(problem, cost, DEGRADATION, {DEGRADATION: max_degradation, **(budgets or {})})


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


def _allocate(problem: Problem, objective: str, second: str, limits: Mapping[str, float]) -> Allocation:
    start = time.perf_counter()
    found = _lexicographic(problem, objective, second, limits)
    if found.impossible:
        raise _infeasible(problem, limits)
    if found.candidates is None:
        raise Unsolved(
            f"the search for an allocation that keeps {_asked(limits)} was ended by its limits; none was found, and it"
            " is not proved that there is none; raise a budget or offer other candidates"
        )
    return problem.allocation(
        found.candidates,
        objective=objective,
        bound=found.bound,
        status="optimal" if found.finished else "stopped",
        solver="highs",
        seconds=time.perf_counter() - start,
    )


def _asked(limits: Mapping[str, float]) -> str:
    return " and ".join(f"{name} <= {float(limit):.12g}" for name, limit in limits.items())


def _infeasible(problem: Problem, limits: Mapping[str, float]) -> Infeasible:
    """The error that says which of the limits no allocation keeps, and what can be had."""
    conflict = dict(limits)
    for name in limits:  # what is left when each that is not needed for the conflict has been dropped
        others = {n: limit for n, limit in conflict.items() if n != name}
        if others and _solve(problem, name, others).impossible:
            conflict = others
    least, told = dict[str, float](), []
    for name in conflict:
        kept = {n: limit for n, limit in conflict.items() if n != name}
        rest = {n: limit for n, limit in limits.items() if n != name}
        found = _solve(problem, name, rest).candidates or _solve(problem, name, kept).candidates
        if found is None:  # the cuts ran out
            told.append(f"{name} not found")
            continue
        least[name] = problem.total(name, found)
        condition = " with the rest kept" if len(limits) > 1 and problem.meets(rest, found) else ""
        told.append(f"{name} {upward(least[name])}{condition}")
    text = f"no allocation keeps {_asked(conflict)}; the least attainable: {', or '.join(told)}"
    ends = list(_ends(problem, tuple(conflict))) if len(conflict) == 2 else []
    if ends:
        text += f"; of these two: {' ... '.join(ends)}"
    return Infeasible(text + "; raise a budget or offer more candidates", conflict, least)


def _ends(problem: Problem, pair: tuple[str, ...]) -> Iterator[str]:
    """Both ends of the frontier of two quantities: one at its least, and then the other at its least."""
    for first, second in (pair, pair[::-1]):
        found = _lexicographic(problem, first, second, {}).candidates
        if found is not None:
            yield " with ".join(f"{name} {upward(problem.total(name, found))}" for name in (first, second))


def _lexicographic(problem: Problem, objective: str, second: str, limits: Mapping[str, float]) -> _Answer:
    """The candidates of the least `objective`, and among those of the least `second`; the bound is the objective's."""
    found = _solve(problem, objective, limits)
    if found.candidates is None or second == objective:
        return found
    closer = _solve(problem, second, {**limits, objective: problem.total(objective, found.candidates)})
    # none where the cuts ran out, as of near ties that the solver takes for equal: the first holds
    return dataclasses.replace(found, candidates=closer.candidates or found.candidates)


def _solve(problem: Problem, objective: str, limits: Mapping[str, float]) -> _Answer:
    """The candidates of the least `objective` that keep all limits.

    The bound is that of the widened program, of which every allocation that keeps the limits is a solution; cuts take
    away none of those.
    """
    bound = -math.inf
    for widened in (1, -1):
        program = Program.of(problem, objective, limits, widened=widened)
        for _ in range(_MOST_CUTS):
            outcome = program.solve()
            if widened > 0:
                bound = max(bound, outcome.bound)
            if outcome.chosen is None:
                if widened > 0:
                    return _Answer(None, math.inf, finished=True)
                break
            if problem.meets(limits, outcome.chosen):
                return _Answer(outcome.chosen, bound, finished=widened > 0)
            program = program.without(outcome.chosen)
    return _Answer(None, bound, finished=False)


def upward(value: float, digits: int = 6) -> str:
    """The number to so many digits, not below it: as a budget it is kept."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return str(decimal.Context(prec=digits, rounding=decimal.ROUND_CEILING).create_decimal(repr(value)))
