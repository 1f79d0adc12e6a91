"""Budgets and points of the frontier on made-up models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_models import SIZES, Made, problem, size

from tfq.allocation.frontier import budgets_between, frontier, undominated
from tfq.allocation.problem import Choice, Problem
from tfq.errors import UserError

COST = "download_bytes"


def test_budgets_run_from_the_least_that_can_be_had_to_what_loses_nothing():
    budgets = budgets_between(problem(), COST, 7)
    assert budgets[0] == 100 + 2 * sum(SIZES.values())
    assert budgets[-1] == 100 + 8 * sum(SIZES.values())
    steps = np.diff(np.log(budgets))
    assert steps == pytest.approx(np.full(6, steps.mean()), rel=0.01)


@given(st.floats(0.01, 1e9))
def test_budgets_are_what_their_flag_says_and_no_less_than_what_can_be_had(unit):
    exact = budgets_between(problem(), COST, 2)[0]
    for budget in budgets_between(problem(), COST, 7, unit=unit):
        assert float(f"{budget / unit:.4g}") * unit == budget >= exact


def test_where_the_best_is_the_cheapest_there_is_one_budget():
    single = Problem.of([Choice("u0", "w8", 0.0, {COST: 80.0})])
    assert budgets_between(single, COST, 5) == [80.0]
    with pytest.raises(UserError, match="1 points make no frontier"):
        budgets_between(single, COST, 1)


@pytest.mark.parametrize("reconstruct", [False, True])
def test_every_point_keeps_its_budget_and_more_room_never_predicts_worse(reconstruct):
    made = Made()
    budgets = [(COST, budget) for budget in budgets_between(problem(), COST, 9)]
    points = tuple(frontier(problem(), made.bench(), budgets, reconstruct=reconstruct).points.values())
    mixtures = [tuple(point.last.candidates.items()) for point in points]
    assert len(set(mixtures)) == len(mixtures) > 4
    assert all(size(point.last.candidates) <= point.budget for point in points)
    predicted = [point.last.predicted for point in points]
    assert predicted == sorted(predicted, reverse=True)
    kind = "reconstructed" if reconstruct else "assembled"
    assert all(point.model[0] == kind for point in points)
    assert made.rebuilt == (len(points) if reconstruct else 0)
    for point in points:
        assert point.last.measured.loss == made.true_loss(kind, point.last.candidates)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_undominated_rows_are_those_of_the_definition(rows):
    expected = [
        not any(
            all(a <= b for a, b in zip(other, row, strict=True)) and any(a < b for a, b in zip(other, row, strict=True))
            for other in rows
        )
        for row in rows
    ]
    assert undominated(rows) == expected
    assert any(expected)
