"""What is said where the evaluation data contradicts a budget."""

import pytest

from tfq.evaluation.bootstrap import Estimate
from tfq.pipeline.budget import contradiction
from tfq.recipe import Recipe

LOST = Estimate(-3.39, -5.14, -1.76, "points", 797)


def recipe(**options):
    return Recipe(model="m.keras", pipeline="light", **options)


def test_a_loss_beyond_the_largest_drop_is_told_with_its_interval():
    said = contradiction(recipe(max_accuracy_drop=0.5), LOST)
    assert "`max_accuracy_drop` is 0.5" in said
    assert "loses 3.39 points [1.76, 5.14]" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"max_accuracy_drop": 2.0}, LOST),  # 1.76 points may be the truth
        ({"size_budget": 0.2}, LOST),
        ({"max_accuracy_drop": 0.5}, None),
        ({"max_accuracy_drop": 0.5}, Estimate(-3.39, -5.14, -1.76, "dB", 797)),
        ({"max_accuracy_drop": 0.5}, Estimate(-3.39, None, None, "points", 1)),
    ],
)
def test_else_nothing_is_said(options, difference):
    assert contradiction(recipe(**options), difference) == ""
