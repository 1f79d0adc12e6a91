"""What is said where the evaluation data contradicts a budget, and where a reconstruction was left out."""

import keras
import made_up_models
import numpy as np
import pytest

from tfq.allocation.allocate import Goal, allocate
from tfq.data.objects import given
from tfq.evaluation.bootstrap import Estimate
from tfq.execution.progress import SILENT
from tfq.inputs import Inputs
from tfq.pipeline.begin import begin
from tfq.pipeline.budget import contradiction, left_as_they_were
from tfq.recipe import Recipe

LOST = Estimate(-3.39, -5.14, -1.76, "points", 797)


def recipe(**options):
    return Recipe(model="m.keras", pipeline="light", **options)


def test_a_loss_beyond_the_largest_drop_is_told_with_its_interval():
    said = contradiction(recipe(max_accuracy_drop=0.5), LOST)
    assert "`max_accuracy_drop` is 0.5" in said
    assert "loses 3.39 points [1.76, 5.14]" in said
    assert "\n" not in said


def test_a_loss_of_another_unit_and_of_an_error_that_rises():
    said = contradiction(recipe(max_accuracy_drop=0.5), Estimate(-3.39, -5.14, -1.76, "dB", 797))
    assert "loses 3.39 dB [1.76, 5.14]" in said
    risen = Estimate(0.3, 0.2, 0.4, "", 797)
    assert "loses 0.30 of the metric [0.20, 0.40]" in contradiction(recipe(max_accuracy_drop=0.1), risen, falls=False)
    assert contradiction(recipe(max_accuracy_drop=0.1), risen) == ""


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"max_accuracy_drop": 2.0}, LOST),  # 1.76 points may be the truth
        ({"size_budget": 0.2}, LOST),
        ({"max_accuracy_drop": 0.5}, None),
        ({"max_accuracy_drop": 0.5}, Estimate(-3.39, None, None, "points", 1)),
    ],
)
def test_else_nothing_is_said(options, difference):
    assert contradiction(recipe(**options), difference) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pin": ("d:w8a16",)}, ["w8a16 is slow on a CPU"]),
        ({"candidates": ("w4a16", "w8")}, ["w4a16 is slow on a CPU"]),
        ({"pin": ("d:w8a16",), "target": "npu"}, []),
        ({"candidates": ("w4", "w8")}, []),
    ],
)
def test_precisions_that_the_target_runs_slowly_are_told(options, said):
    x = keras.Input((3,))
    inputs = Inputs(
        keras.Model(x, keras.layers.Dense(4, name="d")(x)), given(np.ones((16, 3), np.float32), "the samples")
    )
    found = begin(recipe(size_budget=0.9, **options), inputs, SILENT).journal.warnings
    assert [warning.partition(",")[0] for warning in found if "slow" in warning] == said


@pytest.mark.parametrize(("gain", "said"), [(0.5, ""), (1.0, "reconstruction in sequence")])
def test_a_reconstruction_that_was_left_out_is_told(gain, said):
    bench = made_up_models.Made(gain=gain).bench()
    _, allocated = allocate(made_up_models.problem(), Goal({"download_bytes": 2000}), bench)
    found = left_as_they_were(allocated)
    assert said in found
    assert bool(said) == bool(found)
