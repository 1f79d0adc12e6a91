"""Metrics of segmentation, pictures, keypoints, embeddings, language and tables against other definitions of them."""

import numpy as np
import pytest
from scipy import stats

from tfq.errors import UserError
from tfq.evaluation.bootstrap import point
from tfq.evaluation.metric import Predictions
from tfq.evaluation.metrics import METRICS, find_metric


def judged(metric, outputs, labels=None, baseline=None, weights=None):
    outputs = np.asarray(outputs, np.float32)
    labels = None if labels is None else np.asarray(labels)
    baseline = outputs if baseline is None else np.asarray(baseline, np.float32)
    found = Predictions((outputs,), labels, {"x": np.zeros((len(outputs), 9))}, (baseline,))
    statistic = find_metric(metric).statistic(found)
    if weights is not None:
        return statistic.of_weights(np.asarray([weights], float))[0]
    return point(statistic, len(outputs))


def rng():
    return np.random.default_rng(3)


def masks(classes=4, void=True):
    """(class scores [n, h, w, classes], masks [n, h, w])."""
    outputs = rng().integers(0, 3, (5, 6, 7, classes)).astype(np.float32)
    labels = rng().integers(0, classes - 1, (5, 6, 7))  # the last class occurs in predictions alone
    labels[rng().random(labels.shape) < 0.2] = 255 if void else 0
    return outputs, labels


def test_miou_and_pixel_accuracy_by_counting_pixels():
    outputs, labels = masks()
    predicted, counted = outputs.argmax(-1), labels != 255
    each = []
    for c in range(4):
        guessed, true = (predicted == c) & counted, labels == c
        each.append(np.sum(guessed & true) / np.sum(guessed | true))
    assert judged("miou", outputs, labels) == pytest.approx(100 * np.mean(each), abs=1e-9)
    accuracy = 100 * np.mean(predicted[counted] == labels[counted])
    assert judged("pixel_accuracy", outputs, labels) == pytest.approx(accuracy, abs=1e-9)


def test_a_map_is_enlarged_to_its_mask():
    outputs, labels = masks(void=False)
    twice = labels.repeat(2, axis=1).repeat(2, axis=2)
    for name in ("miou", "pixel_accuracy"):
        assert judged(name, outputs, twice[..., None]) == pytest.approx(judged(name, outputs, labels), abs=1e-9)


def test_two_classes_of_one_unit():
    outputs = np.array([[[[0.9], [0.2]], [[0.7], [0.1]]]])
    assert judged("miou", outputs, [[[1, 0], [0, 0]]]) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_psnr_and_ssim_as_tensorflow_has_them():
    import tensorflow as tf

    for low, high, peak in ((0, 1, 1.0), (-1, 1, 2.0), (0, 255, 255.0)):
        target = rng().uniform(low, high, (3, 16, 14, 3)).astype(np.float32)
        outputs = np.clip(target + 0.05 * (high - low) * rng().normal(size=target.shape), low, high).astype(np.float32)
        for name, function in (("psnr", tf.image.psnr), ("ssim", tf.image.ssim)):
            expected = function(outputs, target, max_val=peak).numpy().mean()
            assert judged(name, outputs, baseline=target) == pytest.approx(expected, abs=2e-4)
            assert judged(name, outputs, target) == pytest.approx(expected, abs=2e-4)


def test_pck_counts_keypoints_near_their_place():
    labels = np.array([[[0, 0, 1], [10, 0, 1], [0, 4, 1], [99, 99, 0]]])
    outputs = labels[..., :2] + np.array([[[0.9, 0], [1.1, 0], [0, 0.5], [0, 0]]])
    assert judged("pck", outputs, labels) == pytest.approx(100 * 2 / 3)  # the box is 10 wide: within 1
    assert judged("pck", outputs.reshape(1, -1), labels[..., :2]) == pytest.approx(100.0)  # now within 9.9


def test_correlations_are_those_of_scipy():
    outputs = rng().integers(0, 6, 40).astype(float)
    labels = outputs + rng().normal(size=40).round(1)
    weights = rng().integers(0, 3, 40)
    again = [np.repeat(values, weights) for values in (outputs, labels)]
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        assert judged(name, outputs[:, None], labels) == pytest.approx(function(outputs, labels)[0])
        assert judged(name, outputs, labels, weights=weights) == pytest.approx(function(*again)[0])
    assert np.isnan(judged("pearson", np.ones(4), [1, 2, 3, 4]))


def test_matthews_of_two_classes_is_the_phi_coefficient():
    labels, predicted = rng().integers(0, 2, (2, 50))
    expected = np.corrcoef(labels, predicted)[0, 1]
    assert judged("matthews", np.eye(2)[predicted], labels) == pytest.approx(expected)
    assert judged("matthews", np.eye(5)[[1, 1, 1]], [0, 1, 2]) == 0


def test_tokens_without_a_label_do_not_count():
    outputs = np.eye(3)[[[0, 1, 2, 0], [1, 1, 1, 1]]]
    labels = [[0, 1, 1, -100], [1, 1, -100, -100]]
    assert judged("token_accuracy", outputs, labels) == pytest.approx(100 * 4 / 5)
    assert judged("exact_match", outputs, labels) == pytest.approx(50.0)


def test_retrieval_finds_the_nearest_of_the_same_label():
    embeddings = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [-1, -1]])
    assert judged("recall1", embeddings, [0, 0, 1, 1, 2]) == pytest.approx(100.0)  # the last has no other of its label
    assert judged("recall1", embeddings, [0, 1, 1, 0, 2]) == 0


def test_equal_error_rate_of_samples_and_of_pairs():
    scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), [0, 0, 1, 1]
    assert judged("eer", scores, labels) == pytest.approx(0.5)
    assert judged("eer", [[0.1], [0.2], [0.7], [0.8]], labels) == 0
    assert judged("eer", [[0.8], [0.7], [0.2], [0.1]], labels) == pytest.approx(1.0)
    apart = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]])
    assert judged("eer", apart, [7, 7, 8, 8]) == 0
    assert judged("eer", apart, [7, 8, 7, 8]) > 0.5


# metric -> outputs and labels of seven samples
SEVEN = {
    "matthews": (rng().random((7, 3)), rng().integers(0, 3, 7)),
    "token_accuracy": (rng().random((7, 4, 3)), rng().integers(-1, 3, (7, 4))),
    "exact_match": (rng().random((7, 2, 2)), rng().integers(-1, 2, (7, 2))),
    "miou": (rng().random((7, 3, 3, 3)), rng().integers(0, 3, (7, 3, 3))),
    "pixel_accuracy": (rng().random((7, 3, 3, 3)), rng().integers(-1, 3, (7, 3, 3))),
    "psnr": (rng().random((7, 4)), rng().random((7, 4))),
    "pck": (rng().random((7, 3, 2)), rng().random((7, 3, 2))),
    "eer": (rng().random((7, 1)), np.array([0, 1, 1, 0, 1, 0, 0])),
}


@pytest.mark.parametrize("metric", SEVEN)
def test_weights_count_as_repetitions(metric):
    outputs, labels = SEVEN[metric]
    weights = np.array([2, 1, 1, 0, 3, 1, 1])
    again = [np.repeat(values, weights, axis=0) for values in (outputs, labels)]
    assert judged(metric, outputs, labels, weights=weights) == pytest.approx(judged(metric, *again))


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "message"),
    [
        ("miou", np.zeros((2, 5)), np.zeros((2, 5)), "height, width, classes"),
        ("miou", np.zeros((2, 3, 3, 4)), np.full((2, 3, 3), 4), "reach 4"),
        ("ssim", np.zeros((2, 8, 8, 3)), None, "11 x 11"),
        ("pck", np.zeros((2, 6)), np.zeros((2, 4, 2)), "keypoints"),
        ("pearson", np.zeros((2, 3)), np.zeros(2), "a label for each output"),
        ("recall1", np.zeros((3, 4)), [0, 1, 2], "share a label"),
        ("recall5", np.zeros((4, 4)), [0, 0, 1, 1], "more than 5 samples"),
        ("eer", np.zeros((3, 4)), [[0, 1], [1, 0], [1, 1]], "one label a sample"),
    ],
)
def test_what_they_cannot_judge(metric, outputs, labels, message):
    with pytest.raises(UserError, match=message):
        judged(metric, outputs, labels)


def test_named_outputs_are_judged_in_the_order_of_their_names():
    first, second = np.zeros((4, 3), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    found = Predictions((first, second), np.array([0, 1, 2, 0]), {}, (first, second), ("boxes", "classes"))
    metric = find_metric("top1", outputs=("classes",))
    assert point(metric.statistic(found), 4) == 100
    assert metric.first(found.names) == 1
    with pytest.raises(UserError, match="names 'scores'; the model's outputs are boxes, classes"):
        find_metric("top1", outputs=("scores",)).statistic(found)


def test_every_metric_that_needs_labels_says_so_where_there_are_none():
    for metric in METRICS.values():
        if metric.needs_labels:
            with pytest.raises(UserError, match="needs labels"):
                metric.statistic(Predictions((np.zeros((4, 16, 16, 2), np.float32),), None, {}, ()))
