"""The accuracy drop with labels and without."""

import numpy as np
import pytest

from tfq.allocation.drop import Drop, accuracy_drop, optimism
from tfq.errors import UserError

RNG = np.random.default_rng(0)


def probabilities(*shape):
    scores = np.exp(2 * RNG.normal(size=shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def test_with_labels_it_is_the_paired_difference_of_the_accuracies():
    p, q, labels = probabilities(200, 5), probabilities(200, 5), RNG.integers(0, 5, 200)
    found = accuracy_drop(p, q, labels)
    right, still = (p.argmax(1) == labels).astype(float), (q.argmax(1) == labels).astype(float)
    assert found.points == pytest.approx(100 * (right.mean() - still.mean()))
    each = (right - still).astype(float)
    assert found.standard_error == pytest.approx(100 * np.sqrt(200 * each.var() + 0.25) / 200)
    assert found.n == 200


def test_without_labels_it_has_no_bias_where_the_float_model_is_calibrated():
    p = probabilities(20_000, 4)
    q = np.where(RNG.uniform(size=(20_000, 1)) < 0.3, probabilities(20_000, 4), p)
    labels = (p.cumsum(1) > RNG.uniform(size=(20_000, 1))).argmax(1)  # drawn from p: it is calibrated
    estimated, true = accuracy_drop(p, q), accuracy_drop(p, q, labels)
    assert estimated.points > 5
    assert abs(estimated.points - true.points) < 4 * true.standard_error
    assert estimated.standard_error < true.standard_error


def test_equal_outputs_lose_nothing_and_logits_are_taken_through_a_softmax():
    p = probabilities(50, 3)
    assert accuracy_drop(p, p) == Drop(0.0, pytest.approx(50 / len(p)), len(p))  # no change seen is not: no change
    q = probabilities(50, 3)
    logits = np.log(p) + RNG.normal(size=(50, 1))
    assert accuracy_drop(logits, q).points == pytest.approx(accuracy_drop(p, q).points, rel=1e-4)


def test_positions_of_a_sample_are_averaged():
    p, q = probabilities(10, 6, 6, 3), probabilities(10, 6, 6, 3)
    whole = accuracy_drop(p, q)
    assert whole.n == 10
    assert whole.points == pytest.approx(accuracy_drop(p.reshape(-1, 3), q.reshape(-1, 3)).points)


@pytest.mark.parametrize(("shape", "labels"), [((8, 1), None), ((8,), None), ((8, 3), np.zeros(7, int))])
def test_what_is_no_classifier_or_does_not_fit_is_refused(shape, labels):
    with pytest.raises(UserError, match=r"needs scores of two classes|labels have the shape"):
        accuracy_drop(np.zeros(shape), np.zeros(shape), labels)


def test_a_drop_is_corrected_by_how_much_more_held_back_samples_depart_from_float():
    held = np.arange(16) % 8 == 7
    each = np.where(held, 0.3, 0.2)
    assert optimism(each, held) == pytest.approx(1.5)
    assert optimism(np.where(held, 0.1, 0.2), held) == 1.0
    assert optimism(np.where(held, 0.1, 0.0), held) == optimism(each, np.zeros(16, bool)) == 1.0
    assert Drop(2.0, 0.5, 16).corrected(1.5) == Drop(3.0, 0.75, 16)
    assert Drop(-2.0, 0.5, 16).corrected(1.5) == Drop(-2.0, 0.75, 16)
