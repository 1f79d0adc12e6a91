"""What a model loses by any metric: with labels, and by what the float model gives in their place."""

import numpy as np
import pytest

from tfq.allocation.drop import accuracy_drop
from tfq.allocation.metric_drop import check_drop, drop_of
from tfq.errors import UserError
from tfq.evaluation.bootstrap import point, resampled
from tfq.evaluation.metric import Predictions
from tfq.evaluation.metrics import find_metric

RNG = np.random.default_rng(5)
TRUE = RNG.integers(0, 4, 200)
FLOAT = (np.eye(4)[TRUE] + RNG.normal(0, 0.5, (200, 4))).astype(np.float32)
OTHER = (FLOAT + RNG.normal(0, 0.3, FLOAT.shape)).astype(np.float32)
INPUTS = {"x": np.zeros((200, 3))}


def drop(metric, float_outputs=FLOAT, outputs=OTHER, labels=TRUE):
    metric = find_metric(metric) if isinstance(metric, str) else metric
    return drop_of(metric, [float_outputs], ["y"], INPUTS, labels, seed=0)([outputs])


def test_top1_is_the_estimate_of_its_own():
    assert drop("top1") == accuracy_drop(FLOAT, OTHER, TRUE)
    assert drop("top1", labels=None) == accuracy_drop(FLOAT, OTHER)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_with_labels_it_is_the_difference_of_the_scores_and_its_paired_error(metric):
    statistics = [
        find_metric(metric).statistic(Predictions((values,), TRUE, INPUTS, (FLOAT,))) for values in (FLOAT, OTHER)
    ]
    scores, drawn = [point(statistic, 200) for statistic in statistics], resampled(statistics, 200, seed=0)
    found = drop(metric)
    assert found.points == pytest.approx(scores[0] - scores[1])
    assert found.standard_error == pytest.approx(np.std(drawn[0] - drawn[1], ddof=1))
    assert found.points > 0


def test_where_lower_is_better_more_is_lost():
    labels = FLOAT + 0.1
    assert drop("mse", labels=labels).points == pytest.approx(np.mean((OTHER - labels) ** 2) - 0.01, abs=1e-6)
    assert drop("mse", labels=None).points == pytest.approx(np.mean((OTHER - FLOAT) ** 2), abs=1e-6)


def test_without_labels_the_classes_of_float_take_their_place():
    differ = np.mean(FLOAT.argmax(1) != OTHER.argmax(1))
    assert drop("token_accuracy", labels=None).points == pytest.approx(100 * differ)


def test_without_labels_the_boxes_of_float_take_their_place():
    low = RNG.uniform(0, 0.5, (200, 5, 2))
    number, score = np.zeros((200, 5, 1)), RNG.uniform(0.05, 1, (200, 5, 1))
    boxes = np.concatenate([number, low, low + 0.3, score], axis=2)
    found = [drop("map", boxes, boxes, None).points]
    for shift in (0.02, 0.05, 0.1):
        moved = boxes.copy()
        moved[..., 1:5] += shift
        found.append(drop("map", boxes, moved, None).points)
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] > 1


def test_named_outputs_and_own_metrics():
    def right(outputs, labels):
        return 100.0 * (outputs.argmax(-1) == labels)

    outputs = [np.zeros((200, 2), np.float32), FLOAT]
    metric = find_metric(right, outputs=("classes",))
    lost = drop_of(metric, outputs, ["boxes", "classes"], INPUTS, TRUE, seed=0)
    expected = 100 * (np.mean(FLOAT.argmax(1) == TRUE) - np.mean(OTHER.argmax(1) == TRUE))
    assert lost([outputs[0], OTHER]).points == pytest.approx(expected)
    odds = np.exp(FLOAT) / np.exp(FLOAT).sum(1, keepdims=True)
    # probabilities: the classes of the float model are the labels
    assert drop(find_metric(right), odds, OTHER, None).points == pytest.approx(
        100 * np.mean(FLOAT.argmax(1) != OTHER.argmax(1))
    )


def test_what_cannot_be_told():
    check_drop(find_metric("eer"), TRUE)
    with pytest.raises(UserError, match="metric eer needs labels"):
        check_drop(find_metric("eer"), None)
    with pytest.raises(UserError, match="from which nothing can be lost"):
        drop("sqnr", labels=None)

    def wrong(outputs, labels):
        return float(np.mean((outputs - labels) ** 2))  # an error, which falls

    with pytest.raises(UserError, match="larger for better outputs"):
        drop(find_metric(wrong), labels=None)
