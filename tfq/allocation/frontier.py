"""The frontier: the best model for each of a row of budgets.

    C_i = C_min (C_max / C_min)^(i / (n - 1)),  i = 0 .. n - 1

C_min is the least that the cost can be, C_max what the allocation of the least degradation costs. At every budget the
program's, the greedy and the best uniform allocation are put together and measured as in `tfq.allocation.allocate`.
Budgets with the same answer count once.

Source: the curve of Hubara et al. 2020 (arXiv:2006.10518), figure 3: accuracy over the compression that is asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfq.allocation.allocate import Allocated, Bench, Goal, Measured, Round, allocate
from tfq.allocation.problem import Problem
from tfq.allocation.program import minimise_cost, minimise_degradation
from tfq.allocation.wish import WEIGHTS
from tfq.errors import UserError
from tfq.execution.progress import SILENT, Progress
from tfq.quantized_model import QuantizedModel


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """The best model for one budget.

    Attributes:
      cost, budget: the most that the cost's total may be.
      model: what was made.
      allocated: its precisions, and what it was compared with.
    """

    cost: str
    budget: float
    model: QuantizedModel
    allocated: Allocated

    def wish(self, float_weight_bytes: int) -> dict[str, Any]:
        """The budget as options of a run that would have it; a size is a share of the float weights."""
        if self.cost == WEIGHTS:
            return {"size_budget": float(f"{self.budget / float_weight_bytes:.4g}")}
        return {"size_budget": None, "latency_budget": f"{self.budget:.4g}ms"}

    def remade(self, model: QuantizedModel, measured: Measured) -> Point:
        """The point with another model of the same precisions."""
        rounds = (*self.allocated.rounds[:-1], dataclasses.replace(self.last, measured=measured))
        return dataclasses.replace(self, model=model, allocated=dataclasses.replace(self.allocated, rounds=rounds))

    @property
    def last(self) -> Round:
        """The model as it was measured last."""
        return self.allocated.rounds[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Frontier:
    """The best models for a row of budgets.

    Attributes:
      points: by name, in the order of the budgets.
      problem: what was chosen from.
      reconstructed: every point was reconstructed in sequence; otherwise put together from parallel states.
    """

    points: Mapping[str, Point]
    problem: Problem
    reconstructed: bool


def budgets_between(problem: Problem, cost: str, count: int, *, unit: float = 1.0) -> list[float]:
    """`count` budgets from the least attainable to what the least degradation costs; one where both are equal.

    They are numbers of units with four digits, rounded up, as a user writes them: a run with one has the same budget.
    """
    if count < 2:
        raise UserError(f"{count} points make no frontier; ask for 2 or more")
    least = minimise_cost(problem, cost=cost, max_degradation=math.inf).costs[cost]
    most = minimise_degradation(problem, budgets={}).costs[cost]
    space = np.geomspace if least > 0 else np.linspace
    found = space(least, most, count).tolist() if most > least else [least]
    return [unit * _rounded_up(budget / unit) for budget in found]


def _rounded_up(value: float) -> float:
    """To four digits."""
    if value <= 0:
        return value
    rounded = float(f"{value:.4g}")
    return rounded if rounded >= value else float(f"{value + 10.0 ** (math.floor(math.log10(value)) - 3):.4g}")


def frontier(
    problem: Problem,
    bench: Bench,
    budgets: Sequence[tuple[str, float]],
    *,
    reconstruct: bool = False,
    progress: Progress = SILENT,
) -> Frontier:
    """A point for each budget, without those whose precisions an earlier one has.

    Args:
      problem: what can be chosen.
      bench: how models are made.
      budgets: pairs of a cost and its largest total.
      reconstruct: every point in sequence, as a run with that budget would; otherwise from parallel states alone.

    Raises:
      Infeasible: a budget cannot be met.
    """
    once = dataclasses.replace(bench, rebuild=bench.assemble)
    points: list[Point] = []
    with progress.task("frontier", len(budgets)) as advance:
        for cost, budget in budgets:
            model, allocated = allocate(problem, Goal({cost: budget}), once)
            if all(allocated.allocation.candidates != p.allocated.allocation.candidates for p in points):
                points.append(Point(cost, budget, model, allocated))
            advance(1)
    if reconstruct:
        with progress.task("reconstruct the points", len(points)) as advance:
            for number, (model, measured) in bench.rebuild_each([p.allocated.allocation.candidates for p in points]):
                points[number] = points[number].remade(model, measured)
                advance(1)
    return Frontier({f"point {number}": point for number, point in enumerate(points, 1)}, problem, reconstruct)


def undominated(values: Sequence[Sequence[float]]) -> list[bool]:
    """Of rows of quantities that should be small: whether no other row is as small in all and smaller in one."""
    rows = np.asarray(values, float)
    smaller = (rows[None] <= rows[:, None]).all(2) & (rows[None] < rows[:, None]).any(2)
    beaten = np.any(smaller, axis=1)
    return [not found for found in np.atleast_1d(beaten)]
