"""The accuracy drop with labels and without."""

import numpy as np
import pytest

from tfq.allocation.drop import Drop, accuracy_drop, optimism
from tfq.errors import UserError

RNG = np.random.default_rng(0)


def probabilities(*shape):
    scores = np.exp(2 * RNG.normal(size=shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def sure(*shape):
    """Probabilities of float models that are sure of every class: no second one has a margin."""
    p = np.full(shape, 1e-3 / (shape[-1] - 1), np.float32)
    np.put_along_axis(p, RNG.integers(0, shape[-1], (*shape[:-1], 1)), 0.999, -1)
    return p


def noisy(p, size):
    """Outputs whose log-probabilities carry an error of one size, wherever they lie."""
    scores = np.log(p) + size * RNG.normal(size=p.shape)
    q = np.exp(scores - scores.max(-1, keepdims=True))
    return (q / q.sum(-1, keepdims=True)).astype(np.float32)


def drawn_from(p):
    """Labels by which the float model is calibrated."""
    return (p.cumsum(1) > RNG.uniform(size=(len(p), 1))).argmax(1)


def test_with_labels_it_is_the_paired_difference_of_the_accuracies_where_no_margin_is_known():
    p, q, labels = sure(200, 5), probabilities(200, 5), RNG.integers(0, 5, 200)
    found = accuracy_drop(p, q, labels)
    right, still = (p.argmax(1) == labels).astype(float), (q.argmax(1) == labels).astype(float)
    assert found.points == pytest.approx(100 * (right.mean() - still.mean()))
    each = (right - still).astype(float)
    assert found.standard_error == pytest.approx(100 * np.sqrt(200 * each.var() + 0.25) / 200)
    assert found.n == 200


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("size", [0.3, 1.0])
def test_it_has_no_bias(size, share):
    """Also where some samples alone carry an error; truth is counted on many samples with labels."""
    p = probabilities(40_000, 4)
    q = np.where(RNG.uniform(size=(len(p), 1)) < share, noisy(p, size), p)
    labels = drawn_from(p)
    right = [(values.argmax(1) == labels).astype(float) for values in (p, q)]
    each = 100 * (right[0] - right[1])
    true, error = each.mean(), each.std() / 200
    assert true > 0.1
    for given in (None, labels):
        found = accuracy_drop(p, q, given)
        assert abs(found.points - true) < 4 * error + 0.05 * true
        assert found.standard_error < 1.05 * error


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_the_standard_error_is_that_of_many_draws_and_below_that_of_counting(size):
    found, counted = [], []
    for _ in range(60):
        p = probabilities(400, 4)
        q = noisy(p, size)
        found.append(accuracy_drop(p, q))
        rows = np.arange(400)
        counted.append(100 * (p[rows, p.argmax(1)] - p[rows, q.argmax(1)]).mean())
    spread = np.std([drop.points for drop in found])
    assert 0.7 < np.mean([drop.standard_error for drop in found]) / spread < 1.4
    assert spread < 0.95 * np.std(counted)


def test_equal_outputs_lose_nothing_and_logits_are_taken_through_a_softmax():
    p = probabilities(50, 3)
    assert accuracy_drop(p, p) == Drop(0.0, 0.0, len(p), pytest.approx(100 * p.max(-1).mean()))
    few = p[:20]
    unchanged = accuracy_drop(few, few)  # no change seen is not: no change
    assert (unchanged.points, unchanged.standard_error, unchanged.n) == (0.0, pytest.approx(50 / 20), 20)
    q = probabilities(50, 3)
    logits = [np.log(values) + RNG.normal(size=(50, 1)) for values in (p, q)]
    assert accuracy_drop(*logits).points == pytest.approx(accuracy_drop(p, q).points, rel=0.02)


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
    even, each = np.full(16, 0.2), np.where(held, 0.3, 0.2)
    assert optimism(each, even, held) == pytest.approx(1.5)
    assert optimism(each, np.where(held, 0.24, 0.2), held) == pytest.approx(1.25)  # they are harder anyway
    assert optimism(each, each, held) == pytest.approx(1.0)
    assert optimism(np.where(held, 0.1, 0.2), even, held) == pytest.approx(0.5)
    assert optimism(np.where(held, 0.1, 0.0), even, held) == optimism(each, even, np.zeros(16, bool)) == 1.0
    assert optimism(each, np.where(held, 0.0, 0.2), held) == 1.0
    assert Drop(2.0, 0.5, 16).corrected(1.5) == Drop(3.0, 0.75, 16)
    assert Drop(-2.0, 0.5, 16).corrected(1.5) == Drop(-2.0, 0.75, 16)


def test_no_model_loses_more_than_float_has():
    p = probabilities(64, 4)
    wrong = np.roll(p, 1, axis=-1)
    for labels, most in ((None, 100 * p.max(-1).mean()), (p.argmax(-1), 100.0)):
        found = accuracy_drop(p, wrong, labels)
        assert found.most == pytest.approx(most)
        assert found.points <= found.most
        assert found.corrected(1000.0).points <= found.most
        assert found.corrected(1000.0).on_the_safe_side <= found.most
    assert Drop(90.0, 3.0, 16, most=95.0).corrected(1.5).points == 95.0
    assert Drop(94.0, 3.0, 16, most=95.0).on_the_safe_side == 95.0


def test_the_seed_draws_the_samples_of_the_bootstrap_and_no_more():
    p = probabilities(200, 4)
    q = probabilities(200, 4)
    first, other = (accuracy_drop(p, q, seed=seed) for seed in (0, 1))
    assert first.points == other.points
    assert first.standard_error != other.standard_error
    assert accuracy_drop(p, q) == first
