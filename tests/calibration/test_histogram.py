"""The streamed histogram against np.histogram, and its independence of order."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.calibration import histogram as h

FLOAT32 = st.one_of(
    st.floats(-1e4, 1e4, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False), st.just(0.0)
)
VALUES = st.lists(FLOAT32, min_size=1, max_size=60).map(lambda v: np.array(v, np.float32))


def same(a, b):
    return (a.exponent, a.first, a.zeros, a.counts.tolist()) == (b.exponent, b.first, b.zeros, b.counts.tolist())


@settings(deadline=None, max_examples=300)
@given(VALUES, st.randoms(use_true_random=False))
def test_result_depends_neither_on_order_nor_on_batch_size(values, random):
    whole = h.histogram(values)
    shuffled = list(values)
    random.shuffle(shuffled)
    streamed = h.EMPTY
    while shuffled:
        size = random.randint(1, len(shuffled))
        streamed = h.merge(streamed, h.histogram(np.array(shuffled[:size])))
        del shuffled[:size]
    assert same(streamed, whole)


@settings(deadline=None, max_examples=200)
@given(VALUES, VALUES)
def test_merging_is_the_histogram_of_the_union(a, b):
    union = h.histogram(np.concatenate([a, b]))
    assert same(h.merge(h.histogram(a), h.histogram(b)), union)
    assert same(h.merge(h.histogram(b), h.histogram(a)), union)


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_counts_equal_numpys_over_the_same_edges(values):
    found = h.histogram(values)
    other = values[values != 0].astype(np.float64)
    expected = np.histogram(other, bins=np.append(found.edges[:-1], np.inf))[0]
    np.testing.assert_array_equal(found.counts, expected)
    assert found.zeros == values.size - other.size
    assert found.total == values.size
    assert other.max(initial=-np.inf) < found.edges[-1]


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_memory_is_fixed_and_the_bins_are_as_narrow_as_it_allows(values):
    found = h.histogram(values)
    assert len(found.counts) <= h.MAX_BINS
    span = max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
    if span > 2.0**-80:
        assert span / 2.0**found.exponent > h.MAX_BINS / 2 - 2
    assert found.first <= 0 <= found.last


def test_coarser_bins_hold_the_same_values():
    values = np.random.default_rng(0).normal(size=5000)
    fine = h.histogram(values)
    for doublings in (1, 2, 5):
        coarse = fine.coarsen(doublings)
        np.testing.assert_array_equal(coarse.counts, np.histogram(values, bins=coarse.edges)[0])
        assert coarse.edges[1] - coarse.edges[0] == 2.0 ** (fine.exponent + doublings)


def test_summary_is_small_json_over_the_same_values():
    values = np.concatenate([np.random.default_rng(0).normal(size=3000), np.zeros(7)])
    found = json.loads(json.dumps(h.summary(h.histogram(values))))
    assert 32 <= len(found["counts"]) <= 64
    assert found["zeros"] == 7
    np.testing.assert_array_equal(found["counts"], np.histogram(values[:3000], bins=found["edges"])[0])
