"""The sentence on top: each of its kinds, its cause and what it tells to try."""

import dataclasses

import operator_graphs
import pytest

from tfq.evaluation.agreement import Decisions
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.latency import Latency
from tfq.evaluation.parts import Part
from tfq.evaluation.size import Size
from tfq.execution.delegation import Delegation
from tfq.recipe import Recipe
from tfq.report.verdict import float_outputs, verdict


def about(value, unit, spread=0.4):
    return Estimate(value, value - spread, value + spread, unit, 100)


def model(**changes):
    size = Size(4000, 3000, 900, 8.0, 8.0, 500)
    empty = dict.fromkeys(("score", "difference", "agreement", "sqnr", "latency")) | {"other_sqnr": ()}
    return ModelEvaluation(**{"name": "m", "size": size, **empty, **changes})


def timed(ratio):
    estimate = Estimate(ratio, 0.99 * ratio, 1.01 * ratio, "x", 9)
    return Latency(1.0, 1.0, estimate, 1, 1, 1, 1, delegate=True, times_ms=(1.0,))


def said(recipe=None, *, decisions=None, score=None, samples=100, attained=True, metric="top1", **changes):
    found = {"difference": about(-0.1, "points"), "agreement": about(97.0, "%"), "sqnr": about(30.0, "dB"), **changes}
    small = dataclasses.replace(model().size, download_bytes=870)
    models = (model(score=score), model(size=small, **found))
    options = {"model": "m.keras", "calibration_data": "x.npz", **(recipe or {})}
    evaluation = Evaluation(models, metric, True, "", ("y",), samples, 0, decisions=decisions)
    return verdict(evaluation, Recipe(**options), attained=attained)


def test_good_says_what_was_lost_and_gained():
    assert said(latency=timed(0.71)) == (
        "Good: -0.10 points [-0.50, +0.30], download 0.29x, 1.4 times as fast as float on this CPU (a phone differs:"
        " tfq-bench)."
    )
    assert said(latency=timed(1.005)).endswith(", as fast as float on this CPU.")
    assert said(difference=None) == "Good: 97.0 % agreement with float, download 0.29x."
    assert said(difference=None, agreement=None) == "Good: output SQNR 30.0 dB, download 0.29x."
    equal = Estimate(None, None, None, "dB", 100)
    assert said(difference=None, agreement=None, sqnr=equal).startswith("Good: outputs equal to float's")


def test_slower_names_the_operators_outside_and_the_target_that_has_them_written_anew():
    slow = {"latency": timed(2.35), "delegation": Delegation(21, 101, {"HARD_SWISH": 19, "SOFTMAX": 1})}
    cause = (
        "Slower than float: 2.35 x [2.33, 2.37] its time on this CPU; 19 HARD_SWISH, 1 SOFTMAX run outside XNNPACK; "
    )
    assert (
        said({"target": "micro"}, **slow) == f"{cause}`target='cpu'` writes what it can in operations that run in it."
    )
    assert said(**slow) == f"{cause}measure on your phone with tfq-bench."
    for_another = said({"target": "micro"}, latency=timed(2.35), delegation=Delegation(2, 9, {"SOFTMAX": 1}))
    assert for_another == "Good: -0.10 points [-0.50, +0.30], download 0.29x."  # its time on this CPU says nothing
    alone = {"latency": timed(2.35), "delegation": Delegation(1, 9, {})}
    assert said(**alone).endswith("all operations run in XNNPACK; measure on your phone with tfq-bench.")


@pytest.mark.parametrize(
    ("recipe", "remedy"),
    [
        ({}, "`pipeline='advanced'`"),
        ({"weight_bits": 4, "pipeline": "light"}, "`pipeline='advanced'`"),
        ({"weight_bits": 4, "pipeline": "advanced"}, "`weight_bits=8`"),
        ({"activation_bits": 4, "pipeline": "advanced"}, "`activation_bits=8`"),
        ({"pipeline": "advanced"}, "`precision='dynamic_range'`"),
        ({"per_channel": False}, "`per_channel=True`"),
        ({"precision": "dynamic_range"}, "`precision='float16'`"),
    ],
)
def test_a_loss_comes_with_what_to_try(recipe, remedy):
    assert said(recipe, difference=about(-78.6, "points")) == (
        f"Not usable: -78.60 points [-79.00, -78.20]; try {remedy}."
    )


def test_a_loss_counts_where_the_whole_interval_says_so():
    assert said(difference=about(-3.0, "points")).startswith("Less accurate than float: -3.00 points")
    assert said(difference=about(-3.0, "points", 4.0)).startswith("Good")
    assert said(difference=about(-0.9, "points")).startswith("Good")
    assert said(difference=about(-0.9, "dB"), agreement=about(50.0, "%")).startswith("Not usable: 50.0 % agreement")
    assert said(difference=None, agreement=about(90.0, "%")).startswith("Less accurate than float: 90.0 % agreement")
    assert said(difference=None, agreement=None, sqnr=about(3.0, "dB")).startswith("Not usable: output SQNR 3.0 dB")


def test_the_output_or_part_that_loses_most_is_told_and_may_make_a_model_useless():
    boxes, scores = Part(0, (0, 1, 2, 3), about(31.0, "dB")), Part(0, (4, 5, 7), about(12.0, "dB"))
    found = {"difference": None, "agreement": None, "parts": (boxes, scores)}
    assert said(**found) == "Good: output SQNR 30.0 dB, least 12.0 dB in 'y', channels 4-5, 7, download 0.29x."
    lost = Part(0, (4,), about(2.0, "dB"))
    assert said(**found | {"parts": (boxes, lost)}).startswith(
        "Not usable: output SQNR 30.0 dB, least 2.0 dB in 'y', channel 4; try"
    )
    assert said(parts=(boxes, lost)).startswith("Good: -0.10 points")  # the score says what it is worth


def decided(**changes):
    return dataclasses.replace(Decisions(classes=1000, given=90, certainty=0.8), **changes)


def test_one_class_for_all_samples_is_told_and_an_agreement_of_100_percent_is_not_praised():
    constant = {"decisions": decided(given=1), "difference": None, "agreement": about(100.0, "%")}
    assert said(**constant) == (
        "Not known: float gives one of its 1,000 classes for all 100 samples, so nothing shows what was lost; check the"
        " samples and their `preprocess`, or, if the outputs are no classes, choose another `metric`."
    )
    assert said(**constant | {"samples": 4}).startswith("Good: 100.0 % agreement")
    assert said(**constant | {"decisions": decided(given=2)}).startswith("Good: 100.0 % agreement")


def test_what_is_not_kept_or_not_told_is_not_good():
    asked = {"pipeline": "light", "max_accuracy_drop": 0.5}
    assert said(asked, attained=False).startswith("Less accurate than asked for: -0.10 points")
    assert "keeps `max_accuracy_drop=0.5` on the calibration samples; offer more" in said(asked, attained=False)
    wide = Estimate(0.0, 0.0, 97.5, "%", 1)
    assert said(difference=None, agreement=wide, samples=1).startswith(
        "Not known: 0.0 % agreement with float, which 1 sample cannot tell"
    )
    assert said(difference=None, agreement=about(100.0, "%"), samples=1).startswith("Good")


def test_where_float_guesses_no_option_is_named():
    lost = {"difference": None, "agreement": about(3.0, "%")}
    assert said(**lost, decisions=decided(certainty=0.0015)) == (
        "Not usable: 3.0 % agreement with float; float itself only guesses: its largest probability is 0.15 % on"
        " average, of 1,000 classes; check its weights and data."
    )
    by_chance = said(difference=about(-11.0, "points"), score=about(0.1, "%"), decisions=decided(certainty=None))
    assert "float itself only guesses: 0.10 % of its classes are right, of 1,000 classes" in by_chance
    assert said(score=about(0.1, "%"), decisions=decided()).startswith("Not known: float itself only guesses: 0.10 %")
    assert said(score=about(0.3, "%"), decisions=decided()).startswith("Good")
    for sure in (decided(), decided(certainty=None), decided(classes=2, certainty=0.51), None):
        assert said(**lost, decisions=sure).endswith("try `pipeline='advanced'`.")


def test_an_output_in_float_is_told_where_integers_were_asked_for():
    islands = operator_graphs.islands()
    samples = operator_graphs.draw(islands)
    (told,) = float_outputs(operator_graphs.specified(islands, samples))
    assert told == (
        "the output 'exponential' is float32, and not int8 as `output_type` says; 'keras_exponential' gives it: Unary"
        " has no int8 kernel that keeps the accuracy"
    )
    assert float_outputs(operator_graphs.specified(islands, samples, output_type="float32")) == ()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("ap50", "finds nothing: its ap50 is 0.00 %, so nothing shows what was lost; check that `decoder`, `outputs`"),
        ("map", "finds nothing: its map is 0.00 %, so nothing shows what was lost; check that `decoder`, `outputs`"),
        (
            "top5",
            "gets nothing right: its top5 is 0.00 %, so nothing shows what was lost; check the labels, their order",
        ),
        ("mine:own", "gets nothing right: its mine:own is 0.00 %"),
    ],
)
def test_where_float_finds_nothing_it_is_said_and_what_to_look_at(metric, expected):
    for lost in (about(0.0, "points"), about(-20.0, "points")):
        assert said(metric=metric, score=about(0.0, "%"), difference=lost).startswith(
            f"Not known: float itself {expected}"
        )
    assert said(metric=metric, score=about(30.0, "%")).startswith("Good")
