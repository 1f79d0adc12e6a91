"""--fail_if: what it reads, and when a model fails."""

import dataclasses

import pytest
from tfq_tools.conditions import Condition, conditions, failures

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.latency import Latency
from tfq.evaluation.size import Size


def about(value, unit):
    return Estimate(value, value, value, unit, 100)


def evaluation(metric="top1", **changes):
    size = Size(4000, 3000, 900, 8.0, 8.0, 500)
    latency = Latency(1.0, 1.0, about(0.8, "x"), 1, 1, 1, 1, delegate=True, times_ms=(1.0,))
    empty = dict.fromkeys(("score", "difference", "agreement", "sqnr", "latency")) | {"other_sqnr": ()}
    float_model = ModelEvaluation(name="float", size=size, **empty)
    measured = {
        "difference": about(-0.6, "points"),
        "agreement": about(97.0, "%"),
        "sqnr": about(30.0, "dB"),
        "latency": latency,
    }
    small = dataclasses.replace(size, file_bytes=1000, download_bytes=870)
    model = ModelEvaluation(**{"name": "int8", "size": small, **empty, **measured, **changes})
    return Evaluation((float_model, model), metric, True, "", ("y",), 100, 0)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("drop>0.6", []),
        ("drop>0.5", ["drop>0.5: drop is 0.6, 0.1 over"]),
        ("drop > 0.5 , latency > 1.0", ["drop>0.5: drop is 0.6, 0.1 over"]),
        ("agreement<98,sqnr<31", ["agreement<98: agreement is 97, 1 under", "sqnr<31: sqnr is 30, 1 under"]),
        ("latency>.75", ["latency>0.75: latency is 0.8, 0.05 over"]),
        ("size>0.2,download>0.3", ["size>0.2: size is 0.25, 0.05 over"]),
        ("drop<-1", []),
    ],
)
def test_conditions_that_hold_are_failures(text, lines):
    assert failures(conditions(text), evaluation()) == lines


def test_the_drop_of_an_error_is_its_rise():
    found = evaluation("mse", difference=about(0.2, ""))
    assert failures(conditions("drop>0.1"), found) == ["drop>0.1: drop is 0.2, 0.1 over"]


def test_what_was_not_measured_fails():
    found = evaluation(difference=None, agreement=None, latency=None)
    lines = failures(conditions("drop>0.5,agreement<90,latency>1"), found)
    assert lines == [
        "drop>0.5: drop was not measured",
        "agreement<90: agreement was not measured",
        "latency>1: latency was not measured",
    ]


def test_equal_outputs_have_no_noise():
    assert failures(conditions("sqnr<100"), evaluation(sqnr=Estimate(None, None, None, "dB", 9))) == []


def test_a_condition_reads_as_it_is_written():
    assert conditions("drop>0.5") == (Condition("drop", ">", 0.5),)
    assert str(conditions("download < 0.30")[0]) == "download<0.3"


@pytest.mark.parametrize("text", ["drop", "drop>", "drop=1", "drops>1", "drop>1;latency>2", "drop>nan", ",", "drop>1,"])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match=r"--fail_if has .*expected one of drop, agreement"):
        conditions(text)
