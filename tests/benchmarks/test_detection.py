"""The detector's page and bars on made-up figures."""

import dataclasses

import pytest

from benchmarks import common, detection
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.latency import Latency
from tfq.evaluation.size import Size
from tfq.execution.delegation import Delegation

NAMES = (detection.FLOAT, detection.INT8, detection.WITHIN_DROP)


def evaluation(lost):
    """Of float and of two files of tfq's, which lose so many points; their standard error is 0.51."""

    def model(name):
        difference = None if name == detection.FLOAT else Estimate(-lost, -lost - 1, -lost + 1, "points", 128)
        latency = Latency(1.0, 1.0, Estimate(0.5, 0.4, 0.6, "x", 48), 48, 5, 1, 1, delegate=True, times_ms=(1.0,))
        return ModelEvaluation(
            name,
            Size(4000, 3000, 900, 8.0, 8.0, 500),
            Estimate(34.5, 30.0, 40.0, "%", 128),
            difference,
            agreement=None,
            sqnr=Estimate(15.0, 14.0, 16.0, "dB", 128),
            other_sqnr=(),
            latency=latency,
            delegation=Delegation(1, 70, {}),
        )

    return Evaluation(tuple(map(model, NAMES)), "ap50", True, "", ("detections",), 128, 0)


@pytest.mark.parametrize(("lost", "passed"), [(0.2, [True, True]), (0.9, [False, True]), (1.1, [False, False])])
def test_int8_keeps_its_points_and_the_drop_holds_within_a_standard_error(lost, passed):
    found = detection.Measured(dict.fromkeys(NAMES, 60.0), evaluation(lost), evaluation(lost))
    demands = detection.bars(found)
    assert [bar.passed for bar in demands] == passed
    page = detection.page(found, demands, common.environment("benchmarks.detection"))
    assert all(str(bar) in page for bar in demands)
    assert all(f"| {name} | 34.50 % |" in page for name in NAMES)
    assert "times_ms" not in str(found.figures())


def test_the_bar_is_on_the_mean_of_all_orders():
    first, others = evaluation(0.4), evaluation(0.1)
    models = [m for m in others.models if m.name in (detection.FLOAT, detection.INT8)]
    named = {detection.FLOAT: detection.FLOAT, detection.INT8: detection.in_order(detection.INT8, 1)}
    models = tuple(dataclasses.replace(m, name=named[m.name]) for m in models)
    found = detection.Measured({}, first, first, dataclasses.replace(others, models=models))
    bar = detection.bars(found)[0]
    assert str(bar) == "pass  tfq int8: AP50 lost, the mean of 2 orders: +0.25 points, bar at most +0.30 points"
    text = " ".join(detection._orders_section(found))
    assert "-0.25 points from float in the mean, with a standard deviation of 0.21" in text
    assert "| 1 | 34.50 % | -0.10 points [-1.10, +0.90] | 15.0 dB |" in text
