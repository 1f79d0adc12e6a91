"""What is said where the evaluation data contradicts a budget, and where a reconstruction was left out."""

import re

import keras
import made_up_models
import numpy as np
import pytest

from tfq.allocation.allocate import Goal, allocate
from tfq.allocation.problem import Choice, Problem
from tfq.allocation.program import Infeasible
from tfq.allocation.wish import goal_of, told_in_options
from tfq.data.objects import given
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Estimate
from tfq.execution.progress import SILENT
from tfq.inputs import Inputs
from tfq.models.widths import units
from tfq.pipeline.begin import begin
from tfq.pipeline.budget import contradiction, left_as_they_were
from tfq.recipe import Recipe

LOST = Estimate(-3.39, -5.14, -1.76, "points", 797)


def recipe(**options):
    return Recipe(model="m.keras", pipeline="light", **options)


def dense():
    """A layer `d` of 12 weights, with samples."""
    x = keras.Input((3,), name="input")
    model = keras.Model(x, keras.layers.Dense(4, name="d")(x))
    return Inputs(model, given(np.ones((16, 3), np.float32), "the samples"))


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
    found = begin(recipe(size_budget=0.9, **options), dense(), SILENT).journal.warnings
    assert [warning.partition(",")[0] for warning in found if "slow" in warning] == said


@pytest.mark.parametrize("precision", ["auto", "int8", "dynamic_range"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size_budget": 0.9, "pin": ("put:d8",)}, "`pin` is 'put:d8', and that matches none of the 1 layers with w"),
        (
            {"size_budget": 0.01},
            "no choice of precisions keeps `size_budget=0.01`; the smallest possible is 0.0625 (3 ",
        ),
    ],
)
def test_what_no_model_can_keep_is_told_as_soon_as_the_graph_is_there(options, said, precision, monkeypatch):
    monkeypatch.setattr("tfq.pipeline.begin.export_plain", None)  # what comes next
    with pytest.raises(UserError, match=re.escape(said)):
        begin(recipe(**options, precision=precision), dense(), SILENT)


def test_a_pin_of_no_layer_is_told_before_the_data_is_read(monkeypatch):
    monkeypatch.setattr("tfq.pipeline.begin.load_samples", None)
    with pytest.raises(UserError, match=r"`pin` is 'nowhere:d8', and that matches none of .*; near it: d$"):
        begin(recipe(size_budget=0.9, pin=("d:w8", "nowhere:d8")), dense(), SILENT)


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        (
            {"size_budget": 0.1},
            "keeps `size_budget=0.1`; the smallest possible is 0.125 (6 of 48 bytes of weights); raise it, or",
        ),
        (
            {"compute_budget": 0.3},
            "keeps `compute_budget=0.3`; the smallest possible is 0.5 (384 of 768 bit operations); raise it",
        ),
        (
            {"latency_budget": "100us", "latency_table": "t"},
            "keeps `latency_budget='100us'`; the smallest possible is 250 us; raise it",
        ),
        (
            {"size_budget": 0.2, "latency_budget": "0.3ms", "latency_table": "t"},
            "keeps `size_budget=0.2` together with `latency_budget='0.3ms'`; the smallest possible is 0.25 (12 of 48"
            " bytes of weights) for `size_budget`, or 0.5 ms for `latency_budget` while the rest is kept; raise",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_told_in_its_own_unit(budgets, said):
    wish, graph = recipe(**budgets), begin(recipe(size_budget=0.9), dense(), SILENT).graph
    costs = {"w4": (6.0, 0.5, 384.0), "w8": (12.0, 0.25, 768.0)}  # fewer bits, and slower
    names = ("weight_bytes", "latency_ms", "bops")
    choices = [Choice("d", name, 0.0, dict(zip(names, values, strict=True))) for name, values in costs.items()]
    goal = goal_of(graph, units(graph), wish)
    with pytest.raises(Infeasible, match=re.escape(said)), told_in_options(graph, units(graph), wish):
        allocate(Problem.of(choices), goal, made_up_models.Made().bench())


@pytest.mark.parametrize(("gain", "said"), [(0.5, ""), (1.0, "reconstruction in sequence")])
def test_a_reconstruction_that_was_left_out_is_told(gain, said):
    bench = made_up_models.Made(gain=gain).bench()
    _, allocated = allocate(made_up_models.problem(), Goal({"download_bytes": 2000}), bench)
    found = left_as_they_were(allocated)
    assert said in found
    assert bool(said) == bool(found)
