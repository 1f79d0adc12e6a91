import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.data.features import FEATURES, PooledProjection, pooled
from tfq.data.samples import InputSignature
from tfq.data.selection import Reservoir, balanced_positions, coverage_positions, random_positions


def radius(features, chosen):
    return np.linalg.norm(features[:, None] - features[list(chosen)][None], axis=2).min(axis=1).max()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_coverage_radius_is_at_most_twice_the_optimum_of_brute_force(count, limit, seed):
    features = np.random.default_rng(seed).standard_normal((count, 2))
    chosen = coverage_positions(features, limit)
    best = min(radius(features, c) for c in itertools.combinations(range(count), min(limit, count)))
    assert len(set(chosen)) == min(limit, count)
    assert radius(features, chosen) <= 2 * best + 1e-9


def test_coverage_takes_one_of_each_cluster_where_the_first_ones_are_all_alike():
    centres = np.repeat(np.eye(5) * 100, [50, 1, 1, 1, 1], axis=0)
    features = centres + np.random.default_rng(0).standard_normal(centres.shape)
    assert set(np.argmax(features[coverage_positions(features, 5)], axis=1)) == set(range(5))


def test_coverage_of_identical_samples_takes_distinct_positions():
    np.testing.assert_array_equal(coverage_positions(np.ones((4, 3)), 3), [0, 1, 2])


def test_coverage_is_each_step_the_farthest_sample():
    features = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
    start = int(np.argmin(((features - features.mean(0)) ** 2).sum(1)))
    chosen = [start]
    while len(chosen) < 8:
        distance = ((features[:, None] - features[chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(distance)))
    np.testing.assert_array_equal(coverage_positions(features, 8), sorted(chosen))


def test_reservoir_takes_every_subset_about_equally_often():
    counts = {c: 0 for c in itertools.combinations(range(5), 2)}
    trials = 6000
    for seed in range(trials):
        counts[tuple(random_positions(5, 2, seed).tolist())] += 1
    expected = trials / len(counts)
    chi_squared = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_squared < 27.9  # 9 degrees of freedom, p = 0.001


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_random_positions_are_those_a_reservoir_over_a_stream_ends_up_with(count, limit, seed):
    reservoir, slots = Reservoir(limit, seed), {}
    for position in range(count):
        slot = reservoir.slot(position)
        if slot is not None:
            slots[slot] = position
    assert sorted(slots) == list(range(min(limit, count)))
    np.testing.assert_array_equal(random_positions(count, limit, seed), sorted(slots.values()))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_balanced_counts_differ_by_one_unless_a_class_ran_out(labels, limit, seed):
    labels = np.array(labels)
    chosen = balanced_positions(labels, limit, seed)
    assert len(set(chosen.tolist())) == min(limit, len(labels))
    assert (np.diff(chosen) > 0).all()
    taken = {c: int((labels[chosen] == c).sum()) for c in np.unique(labels)}
    unfinished = [n for c, n in taken.items() if n < (labels == c).sum()]
    if unfinished:
        assert max(taken.values()) - min(unfinished) <= 1


def test_balanced_draws_within_a_class():
    labels = np.repeat([0, 1], 50)
    assert len({tuple(balanced_positions(labels, 4, seed)) for seed in range(6)}) == 6


def test_projection_keeps_distances_roughly_and_repeats_with_its_seed():
    signature = InputSignature("i", (900,), "float32")
    batch = np.random.default_rng(0).standard_normal((40, 900)).astype(np.float32)
    features = PooledProjection(signature, 3)({"i": batch})
    assert features.shape == (40, FEATURES)
    np.testing.assert_array_equal(features, PooledProjection(signature, 3)({"i": batch}))
    assert not np.array_equal(features, PooledProjection(signature, 4)({"i": batch}))
    ratio = np.linalg.norm(features[1:] - features[0], axis=1) / np.linalg.norm(batch[1:] - batch[0], axis=1)
    assert 0.6 < ratio.min() < ratio.max() < 1.5


def test_pooling_is_the_mean_over_blocks():
    image = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)
    blocks = image.reshape(2, 16, 4, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(pooled(image), blocks.reshape(2, -1), atol=1e-6)
    assert pooled(np.zeros((2, 16000), np.float32)).shape == (2, 4096)
    np.testing.assert_allclose(pooled(np.ones((1, 37, 41, 1), np.float32)), 1.0)


def test_short_inputs_are_their_own_features():
    batch = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    np.testing.assert_array_equal(PooledProjection(InputSignature("i", (7,), "float32"), 0)({"i": batch}), batch)


@pytest.mark.parametrize("count", [1, 3])
def test_random_positions_of_too_few_are_all(count):
    np.testing.assert_array_equal(random_positions(count, 5, 0), np.arange(count))
