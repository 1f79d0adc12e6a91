"""Codebooks: against all codebooks of small problems and scikit-learn's k-means, and rounding to their codes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.numerics.codebook import LARGEST, Codes, best_codebook, clustered


def error(values, weights, codebook):
    """Sum of weights * (value - nearest code)^2, written out."""
    return (weights * np.square(values[:, None] - np.asarray(codebook)).min(1)).sum()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_it_is_the_best_of_all_codebooks(count):
    rng = np.random.default_rng(count)
    for _ in range(10):
        values, weights = rng.uniform(-6.5, 6.5, 12), rng.uniform(0, 1, 12)
        found = best_codebook(values, weights, count, 7)
        every = min(error(values, weights, codes) for codes in itertools.combinations(range(-7, 8), count))
        assert len(found) == count
        assert error(values, weights, found) == pytest.approx(every)


@pytest.mark.parametrize("law", ["normal", "laplace", "uniform"])
def test_k_means_finds_no_better_one(law):
    cluster = pytest.importorskip("sklearn.cluster")
    values = getattr(np.random.default_rng(0), law)(size=2000)
    values *= LARGEST / np.abs(values).max()
    weights = np.random.default_rng(1).uniform(size=2000)
    found = error(values, weights, best_codebook(values, weights, 8, LARGEST))
    fitted = cluster.KMeans(8, n_init=5, random_state=0).fit(values[:, None], sample_weight=weights)
    rounded = np.rint(fitted.cluster_centers_[:, 0])
    assert found <= error(values, weights, rounded) + 1e-6
    assert found == pytest.approx(fitted.inertia_, rel=0.02)  # whose centres are no integers


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
@settings(max_examples=30)
def test_more_codes_lose_no_more(seed, count):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(0, 40, 300), rng.uniform(size=300)
    few, many = (error(values, weights, best_codebook(values, weights, k, LARGEST)) for k in (count, count + 1))
    assert many <= few + 1e-6


@given(seed=st.integers(0, 10**6), count=st.integers(1, 255))
@settings(max_examples=50)
def test_values_go_to_the_nearest_code_and_steps_lead_to_the_next(seed, count):
    rng = np.random.default_rng(seed)
    codebook = tuple(sorted(rng.choice(np.arange(-LARGEST, LARGEST + 1), count, replace=False).tolist()))
    allowed = Codes(-LARGEST, LARGEST, codebook)
    values = np.concatenate([rng.uniform(-140, 140, 200), rng.integers(-260, 260, 50) / 2])
    found = allowed.nearest(values)
    assert set(found) <= set(codebook)
    np.testing.assert_allclose(np.abs(values - found), np.abs(values[:, None] - np.asarray(codebook)).min(1))
    up, down = allowed.steps(np.asarray(codebook))
    np.testing.assert_array_equal(up, [*np.diff(codebook), 0])
    np.testing.assert_array_equal(down, [0, *np.diff(codebook)])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_channels_of_other_sizes_share_a_codebook_and_one_of_zeros_stays_nearly_zero(axis):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(40, 50)) * (
        1.0 if axis is None else np.expand_dims(10.0 ** rng.uniform(-3, 3, (40, 50)[axis]), 1 - axis)
    )
    if axis == 0:
        kernel[7] = 0
    scales, codebook = clustered(kernel, 16, axis)
    steps = scales if axis is None else np.expand_dims(scales, 1 - axis)
    rounded = Codes(-LARGEST, LARGEST, codebook).nearest(kernel / steps) * steps
    size = np.square(kernel).sum(axis if axis is None else 1 - axis)
    lost = np.square(rounded - kernel).sum(axis if axis is None else 1 - axis)
    assert len(codebook) == 16
    assert -16 <= codebook[0] < codebook[-1] <= 16
    assert (lost <= 0.03 * size + 1e-6 * size.max()).all()


def test_of_zeros_alone_every_scale_is_above_zero():
    scales, codebook = clustered(np.zeros((3, 4)), 4, 0)
    assert (scales > 0).all()
    assert len(codebook) == 4
