import numpy as np
import pytest

from tfq.evaluation.bootstrap import Statistic, estimate, point, resampled
from tfq.evaluation.metric import mean_of


def test_resamples_are_draws_with_replacement():
    seen = []

    def record(weights):
        seen.append(weights.copy())
        return np.zeros(len(weights))

    resampled([Statistic(record)], 7, seed=0)
    weights = np.concatenate(seen)
    assert weights.shape == (2000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == np.rint(weights)).all()
    # each weight is binomial(7, 1/7): mean 1, variance 6/7
    assert weights.mean() == pytest.approx(1.0)
    assert weights.var() == pytest.approx(6 / 7, rel=0.05)


def test_same_seed_same_numbers_and_models_share_the_resamples():
    scores = np.random.default_rng(0).normal(size=50)
    first = resampled([mean_of(scores), mean_of(scores + 2)], 50, seed=3)
    np.testing.assert_array_equal(first, resampled([mean_of(scores), mean_of(scores + 2)], 50, seed=3))
    np.testing.assert_allclose(first[1] - first[0], 2.0)
    assert not np.array_equal(first, resampled([mean_of(scores), mean_of(scores + 2)], 50, seed=4))


def test_interval_matches_the_normal_one_of_a_mean():
    scores = np.random.default_rng(1).normal(size=400)
    found = estimate(scores.mean(), resampled([mean_of(scores)], 400, seed=0)[0], unit="", n=400)
    error = scores.std() / 20
    assert found.value == scores.mean()
    assert found.low == pytest.approx(scores.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(scores.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_of_a_difference_covers_the_truth_as_often_as_it_says():
    """200 pairs of classifiers, 80 % and 77 % right and right together; the truth is -3 points."""
    generator = np.random.default_rng(2)
    covered, width, unpaired = 0, [], []
    for trial in range(200):
        draw = generator.uniform(size=150)
        right = [100.0 * (draw < 0.80), 100.0 * ((draw < 0.75) | (draw > 0.98))]
        values = resampled([mean_of(r) for r in right], 150, seed=trial)
        found = estimate(right[1].mean() - right[0].mean(), values[1] - values[0], unit="points", n=150)
        covered += found.low <= -3.0 <= found.high
        width.append(found.high - found.low)
        unpaired.append(2 * 1.96 * 100 * np.sqrt((0.8 * 0.2 + 0.77 * 0.23) / 150))
    # binomial(200, 0.95): 4 standard deviations are 12
    assert covered >= 190 - 12
    assert np.mean(width) < 0.6 * np.mean(unpaired), "pairing must pay"


def test_undefined_resamples_and_values():
    found = estimate(2.0, np.array([1.0, np.nan, 3.0, np.inf]), unit="dB", n=4)
    assert 1.0 <= found.low < found.high <= 3.0
    assert estimate(np.inf, np.array([1.0, 2.0]), unit="dB", n=2) == estimate(np.nan, np.array([1.0]), unit="dB", n=2)
    assert estimate(np.inf, np.array([1.0]), unit="dB", n=2).value is None
    assert estimate(1.0, np.array([np.nan]), unit="", n=2).low is None


def test_point_is_the_score_itself():
    assert point(mean_of(np.array([1.0, 2.0, 6.0])), 3) == pytest.approx(3.0)


@pytest.mark.parametrize(("unit", "value", "limits"), [("points", 0.0, (-100, 100)), ("%", 100.0, (0, 100))])
def test_that_no_sample_differs_does_not_say_that_none_would(unit, value, limits):
    alike = np.full(2000, value)
    found = estimate(value, alike, unit=unit, n=360)
    # the largest share of which 360 samples hold none once in 40 times
    unseen = 100 * (1 - 0.025 ** (1 / 360))
    assert 0.9 < unseen < 1.1
    assert found.low == pytest.approx(max(value - unseen, limits[0]))
    assert found.high == pytest.approx(min(value + unseen, limits[1]))
    assert estimate(value, alike, unit="dB", n=360).low == value
