"""Each range method against an oracle that works on the raw samples or in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.calibration.choose import METHODS, choose_range, find_method
from tfq.calibration.deviations import deviations_range
from tfq.calibration.histogram import histogram
from tfq.calibration.kl import CANDIDATES, FLOOR, kl_range
from tfq.calibration.minmax import minmax_range
from tfq.calibration.moving_average import moving_average_range
from tfq.calibration.mse import mse_range, squared_errors
from tfq.calibration.percentile import percentile_range
from tfq.calibration.statistics import Range, TensorStatistics, merge_statistics
from tfq.errors import UserError
from tfq.numerics import reference


def statistics(values):
    """Statistics of one tensor whose samples are all alike."""
    values = np.asarray(values, np.float32)
    low, high = float(values.min()), float(values.max())
    return TensorStatistics(low, high, low * 0.9, high * 0.9, histogram(values), 1)


def data(kind, count=60_000, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "normal": lambda: rng.normal(size=count),
        "laplace": lambda: rng.laplace(size=count) + 0.3,
        "relu": lambda: np.maximum(rng.normal(size=count), 0),
        "relu6": lambda: np.clip(4 * rng.normal(size=count), 0, 6),
        "swish": lambda: (lambda v: v / (1 + np.exp(-v)))(3 * rng.normal(size=count)),
        "negative": lambda: -rng.exponential(size=count),
        "outliers": lambda: np.append(rng.normal(size=count), [60.0, -35.0]),
    }[kind]()
    return x.astype(np.float32)


KINDS = ("normal", "laplace", "relu", "relu6", "swish", "negative", "outliers")


def true_error(x, low, high, bits):
    grid = reference.asymmetric_parameters(low, high, bits)
    back = reference.fake_quantize(x, *grid, *reference.integer_range(bits, symmetric=False))
    return float(np.mean((back.astype(np.float64) - x) ** 2))


def ranges_of(found, bits=8):
    return {name: method.fitter()(found, bits) for name, method in METHODS.items()}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=50).map(lambda v: np.array(v, np.float32)),
    st.sampled_from([2, 4, 8, 16]),
)
def test_every_range_contains_zero_has_width_and_lies_within_min_max(values, bits):
    found = statistics(values)
    widest = minmax_range(found)
    for method, cut in ranges_of(found, bits).items():
        assert cut.low <= 0 <= cut.high, method
        assert cut.low < cut.high, method
        if (values != 0).any():
            assert widest.low <= cut.low or cut.low == 0, method
            assert cut.high <= widest.high or (cut.low, cut.high) == (0.0, 1.0), method


def test_a_tensor_of_zeros_gets_a_range():
    for cut in ranges_of(statistics(np.zeros(10))).values():
        assert (cut.low, cut.high) == (0.0, 1.0)


def test_minmax_and_moving_average_read_their_fields():
    found = TensorStatistics(-2.0, 8.0, -1.5, 5.0, histogram(np.array([1.0])), 3)
    assert minmax_range(found) == Range(-2.0, 8.0)
    assert moving_average_range(found) == Range(-1.5, 5.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [99.9, 99.0, 90.0])
def test_percentile_leaves_the_wanted_share_of_the_raw_values_outside(kind, percentile):
    x = data(kind)
    found = percentile_range(statistics(x), percentile=percentile)
    sides = int(x.min() < 0) + int(x.max() > 0)
    outside = (100 - percentile) / 100 / sides
    width = 2.0 ** histogram(x).exponent
    # the raw share outside the range brackets the wanted one when the range moves by the width of a bin
    if x.max() > 0:
        assert np.mean(x > found.high + width) <= outside <= np.mean(x > found.high - 2 * width)
    if x.min() < 0:
        assert np.mean(x < found.low - width) <= outside <= np.mean(x < found.low + 2 * width)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deviations", [0.5, 3.0, 100.0])
def test_deviations_reach_as_far_as_those_of_the_raw_values_and_no_further_than_these(kind, deviations):
    x = data(kind)
    found = deviations_range(statistics(x), deviations=deviations)
    mean, deviation = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    expected = Range(max(x.min(), mean - deviations * deviation), min(x.max(), mean + deviations * deviation))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.01, abs=0.01 * deviation)


def test_percentile_100_is_min_max_even_where_the_histogram_missed_it():
    found = statistics(np.arange(-10.0, 20.0)).replace(minimum=-50.0, maximum=70.0)
    assert percentile_range(found, percentile=100.0) == Range(-50.0, 70.0)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_expected_error_equals_the_error_measured_on_the_raw_values(kind, bits):
    x = data(kind)
    ends = [(x.min(), x.max()), (x.min() * 0.5, x.max() * 0.3), (x.min() * 0.9, x.max() * 0.95)]
    low, high = (np.array(e, np.float64) for e in zip(*ends, strict=True))
    measured = [true_error(x, a, b, bits) for a, b in zip(low, high, strict=True)]
    np.testing.assert_allclose(squared_errors(statistics(x), low, high, bits=bits), measured, rtol=0.01)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_range_is_as_good_as_exhaustive_search_on_the_raw_values(kind, bits):
    x = data(kind, 4000)
    found = mse_range(statistics(x), bits=bits)
    fractions = np.linspace(0.02, 1.0, 50)
    lows = fractions * min(float(x.min()), 0.0) if x.min() < 0 else [0.0]
    highs = fractions * max(float(x.max()), 0.0) if x.max() > 0 else [0.0]
    best = min(true_error(x, a, b, bits) for a in lows for b in highs)
    assert true_error(x, found.low, found.high, bits) <= 1.03 * best


@pytest.mark.parametrize("kind", KINDS)
def test_mse_range_never_loses_to_min_max(kind):
    for bits in (2, 4, 8):
        found = statistics(data(kind))
        cut, widest = mse_range(found, bits=bits), minmax_range(found)
        low, high = np.array([cut.low, widest.low]), np.array([cut.high, widest.high])
        ours, theirs = squared_errors(found, low, high, bits=bits)
        assert ours <= theirs


def test_mse_keeps_the_clamp_of_relu6():
    assert mse_range(statistics(data("relu6")), bits=8).high == pytest.approx(6.0, rel=0.01)


def divergence_in_loops(found, cut, reach, bits):
    """KL(P || Q) as the docstring of kl.py states it, bin by bin."""
    scale, zero_point = reference.asymmetric_parameters(cut.low, cut.high, bits)
    first, last = max(found.first, -reach), min(found.last, reach - 1)
    p = {i: 0.0 for i in range(first, last + 1)}
    levels = {}
    for number, count in zip(range(found.first, found.last + 1), found.counts.tolist(), strict=True):
        p[min(max(number, first), last)] += count
        if first <= number <= last and count:
            centre = (number + 0.5) * 2.0**found.exponent
            code = math.floor(centre / float(scale) + 0.5) + zero_point
            levels.setdefault(min(max(code, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1), []).append((number, count))
    q = {}
    for bins in levels.values():
        for number, _ in bins:
            q[number] = sum(count for _, count in bins) / len(bins)
    total_p, total_q = sum(p.values()), sum(q.values())
    return sum(
        v / total_p * math.log(v / total_p / (q[i] / total_q if i in q else FLOOR)) for i, v in p.items() if v > 0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [4, 8])
def test_kl_range_has_the_smallest_divergence_computed_in_plain_loops(kind, bits):
    found = statistics(data(kind, 20_000))
    bins = found.histogram
    furthest = max(-bins.first, bins.last + 1)
    reaches = sorted({int(r) for r in np.linspace(min(2**bits, furthest), furthest, CANDIDATES)})
    divergences = {}
    for reach in reaches:
        if min(bins.last, reach - 1) - max(bins.first, -reach) + 1 >= 2**bits:
            threshold = reach * 2.0**bins.exponent
            cut = Range(max(found.minimum, -threshold), min(found.maximum, threshold))
            divergences[cut] = divergence_in_loops(bins, cut, reach, bits)
    assert divergences[kl_range(found, bits=bits)] == pytest.approx(min(divergences.values()), rel=1e-9, abs=1e-12)


def test_kl_cuts_lonely_outliers_and_keeps_an_even_spread():
    assert kl_range(statistics(data("outliers")), bits=8).high < 15
    even = np.random.default_rng(0).uniform(0, 1, 50_000)
    assert kl_range(statistics(even), bits=8).high > 0.95


def choose(x, other, **options):
    whole = merge_statistics(statistics(x), statistics(other))
    return choose_range(statistics(x), statistics(other), whole, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_auto_takes_the_smallest_error_on_the_held_back_values_or_min_max_when_close(kind):
    x, other = data(kind), data(kind, seed=1)
    choice = choose(x, other, method="auto", bits=8)
    there = {m: true_error(other, r.low, r.high, 8) for m, r in ranges_of(statistics(x)).items()}
    back = {m: true_error(x, r.low, r.high, 8) for m, r in ranges_of(statistics(other)).items()}
    measured = {name: (there[name] + back[name]) / 2 for name, method in METHODS.items() if method.in_auto}
    assert set(choice.errors) == set(measured)
    for method in measured:
        assert choice.errors[method] == pytest.approx(measured[method], rel=0.01)
    best = min(choice.errors.values())
    expected_bound = 1.01 * best if choice.method == "minmax" else best
    assert choice.errors[choice.method] <= expected_bound
    if choice.errors["minmax"] <= 1.01 * best:
        assert choice.method == "minmax"
    assert not choice.rolled_back


def test_the_range_is_fitted_once_more_to_all_samples():
    x, other = data("normal"), data("normal", seed=1)
    choice = choose(x, other, method="minmax", bits=8)
    assert (choice.range.low, choice.range.high) == (min(x.min(), other.min()), max(x.max(), other.max()))


def test_a_method_that_loses_to_min_max_is_rolled_back_and_says_so():
    x = np.concatenate([data("normal", 20_000), np.full(600, 9.0), np.full(500, -7.0)])  # what 95 % cuts off matters
    choice = choose(x, x, method="percentile=95", bits=8)
    assert choice.rolled_back
    assert choice.method == "minmax"
    assert choice.errors["percentile"] > choice.errors["minmax"]
    assert choice.range == Range(x.min(), x.max())


def test_a_method_that_wins_is_kept():
    found = statistics(data("outliers"))
    choice = choose_range(found, found, found, method="mse", bits=8)
    assert (choice.method, choice.rolled_back) == ("mse", False)
    assert set(choice.errors) == {"minmax", "mse"}


def test_a_method_takes_its_number_or_its_default():
    found = statistics(data("normal"))
    for text, percentile in (("percentile", 99.9), ("percentile=99.9", 99.9), ("percentile=90", 90.0)):
        name, fitters = find_method(text)
        assert name == "percentile"
        assert list(fitters) == ["minmax", "percentile"]
        assert fitters["percentile"](found, 8) == percentile_range(found, percentile=percentile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropy", "'entropy'; it must be auto or one of minmax"),
        ("", "''; it must be auto or one of minmax"),
        ("auto=1", "'auto=1'; it must be"),
        ("kl=2", "'kl=2'; kl takes no number, leave it out"),
        ("percentile=50", r"number of percentile must lie in \(50, 100\], as percentile=99.9"),
        ("percentile=", "number of percentile"),
        ("percentile=nan", "number of percentile"),
    ],
)
def test_what_is_no_method_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        find_method(text)


def test_merged_statistics_are_those_of_both_tensors():
    a, b = data("normal"), data("relu")
    merged = merge_statistics(statistics(a), statistics(b))
    expected = statistics(np.concatenate([a, b]))
    assert (merged.minimum, merged.maximum) == (expected.minimum, expected.maximum)
    np.testing.assert_array_equal(merged.histogram.counts, expected.histogram.counts)
    assert merged.histogram.zeros == expected.histogram.zeros


def test_a_range_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        Range(0.0, math.inf)
