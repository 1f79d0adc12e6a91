"""The NumPy quantisers against exact rational arithmetic, and TensorFlow's fake-quant."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import integer_kernels
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.numerics import reference

BITS = st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16])
MAGNITUDE = st.floats(2.0**-30, 2.0**30, width=32)
SEED = st.integers(0, 2**32 - 1)


@st.composite
def ranges(draw):
    """[low, high], possibly without 0 or of width 0."""
    ends = [draw(st.sampled_from([-1.0, 0.0, 1.0])) * draw(MAGNITUDE) for _ in range(2)]
    return min(ends), max(ends)


def grids(bits, low, high):
    scale, zero_point = reference.asymmetric_parameters(low, high, bits)
    return (scale, zero_point, *reference.integer_range(bits, symmetric=False))


def values_around(rng, scale, zero_point, qmin, qmax, count=200):
    """Values inside, outside, on the grid, and at and next to the middles between its points."""
    steps = rng.uniform(qmin - zero_point - 2, qmax - zero_point + 2, count)
    steps[::4] = np.round(steps[::4])
    steps[1::4] = np.round(steps[1::4]) + 0.5
    values = (steps * float(scale)).astype(np.float32)
    values[3::4] = np.nextafter(values[1::4], rng.choice([-np.inf, np.inf], count // 4).astype(np.float32))
    return values


@settings(deadline=None, max_examples=200)
@given(BITS, ranges())
def test_asymmetric_grid_contains_zero_and_covers_the_widened_range_up_to_half_a_step(bits, limits):
    scale, zero_point, qmin, qmax = grids(bits, *limits)
    assert qmin <= zero_point <= qmax
    low, high = reference.real_range(scale, zero_point, qmin, qmax)
    widened = min(limits[0], 0.0), max(limits[1], 0.0)
    step = float(scale)
    assert low <= widened[0] + step * 0.5001
    assert high >= widened[1] - step * 0.5001
    if widened[1] > widened[0]:
        assert (high - low) <= (widened[1] - widened[0]) * (1 + 2.0 ** -min(bits + 2, 23 - bits))
    assert reference.quantize(np.zeros(1), scale, zero_point, qmin, qmax)[0] == zero_point


@settings(deadline=None, max_examples=200)
@given(BITS, ranges())
def test_real_range_is_exact_and_tensorflow_derives_the_same_grid_from_it(bits, limits):
    scale, zero_point, qmin, qmax = grids(bits, *limits)
    low, high = reference.real_range(scale, zero_point, qmin, qmax)
    assert Fraction(float(low)) == Fraction(float(scale)) * (qmin - zero_point)
    assert Fraction(float(high)) == Fraction(float(scale)) * (qmax - zero_point)
    # the double-precision derivation of TFLiteConverter (getNudgedScaleAndZeroPoint)
    derived = (float(high) - float(low)) / (qmax - qmin)
    assert np.float32(derived) == scale
    assert math.floor(qmin - float(low) / derived + 0.5) == zero_point


@settings(deadline=None, max_examples=100)
@given(BITS, ranges(), SEED)
def test_numpy_and_tf_fake_quant_agree_to_the_bit_per_tensor(bits, limits, seed):
    scale, zero_point, qmin, qmax = grids(bits, *limits)
    x = values_around(np.random.default_rng(seed), scale, zero_point, qmin, qmax)
    low, high = reference.real_range(scale, zero_point, qmin, qmax)
    expected = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits).numpy()
    np.testing.assert_array_equal(reference.fake_quantize(x, scale, zero_point, qmin, qmax), expected)


@settings(deadline=None, max_examples=100)
@given(BITS, SEED)
def test_numpy_and_tf_fake_quant_agree_to_the_bit_per_channel(bits, seed):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(40, 3)) * 2.0 ** rng.uniform(-20, 20, 3)).astype(np.float32)
    qmin, qmax = reference.integer_range(bits, symmetric=True)
    narrow = qmin == -qmax
    scales = reference.symmetric_scales(weights, bits, axis=1)
    weights = np.concatenate(
        [weights, np.stack([values_around(rng, s, 0, qmin, qmax) for s in scales], axis=1)], dtype=np.float32
    )
    low, high = reference.real_range(scales, 0, qmin, qmax)
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        weights, low, high, num_bits=bits, narrow_range=narrow
    ).numpy()
    np.testing.assert_array_equal(reference.fake_quantize(weights, scales, 0, qmin, qmax, axis=1), expected)
    moved = np.ascontiguousarray(weights.T)
    np.testing.assert_array_equal(reference.fake_quantize(moved, scales, 0, qmin, qmax, axis=0), expected.T)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([2, 3, 4, 5, 6, 7, 8]), ranges(), SEED)
def test_codes_are_nearest_in_exact_arithmetic_up_to_float32_rounding(bits, limits, seed):
    scale, zero_point, qmin, qmax = grids(bits, *limits)
    x = values_around(np.random.default_rng(seed), scale, zero_point, qmin, qmax, 40)
    codes = reference.quantize(x, scale, zero_point, qmin, qmax)
    for value, code in zip(x.tolist(), codes.tolist(), strict=True):
        exact = Fraction(value) / Fraction(float(scale)) + zero_point
        nearest = min(max(math.floor(exact + Fraction(1, 2)), qmin), qmax)
        tie = abs(exact - math.floor(exact) - Fraction(1, 2)) < Fraction(1, 2**13)
        assert code == nearest or (tie and abs(code - nearest) <= 1)


@settings(deadline=None, max_examples=100)
@given(BITS, ranges(), SEED)
def test_quantising_is_idempotent_and_monotonic(bits, limits, seed):
    grid = grids(bits, *limits)
    x = np.sort(values_around(np.random.default_rng(seed), *grid))
    codes = reference.quantize(x, *grid)
    assert (np.diff(codes) >= 0).all()
    np.testing.assert_array_equal(reference.quantize(reference.dequantize(codes, *grid[:2]), *grid), codes)
    every = np.arange(grid[2], grid[3] + 1, max(1, (grid[3] - grid[2]) // 300))
    np.testing.assert_array_equal(reference.quantize(reference.dequantize(every, *grid[:2]), *grid), every)


@settings(deadline=None, max_examples=200)
@given(BITS, st.floats(2.0**-90, 2.0**90))
def test_scales_are_the_next_of_few_bits_so_that_their_multiples_are_exact(bits, scale):
    activations = float(reference.activation_scale(scale, bits))
    assert scale <= activations <= scale * (1 + 2.0 ** -min(bits + 2, 23 - bits))
    exact = [activations]
    if bits <= 8:
        weights, nearest = (float(f(scale, bits)) for f in (reference.weight_scale, reference.nearest_weight_scale))
        assert scale <= weights <= scale * (1 + 2.0 ** -(3 + bits))
        assert abs(nearest - scale) <= scale * 2.0 ** -(4 + bits)
        exact += [weights, nearest]
    for found, steps in itertools.product(exact, (2**bits, 2**bits - 1, 2 ** (bits - 1) + 1)):
        assert float(np.float32(found) * np.float32(steps)) == found * steps


@given(st.floats(2.0**-40, 2.0**40), st.floats(2.0**-40, 2.0**40))
def test_the_scale_of_a_bias_is_exact_and_ends_in_zeros(weights, activations):
    factors = reference.weight_scale(weights, 4), reference.activation_scale(activations, 8)
    found = reference.bias_scale(factors[1], factors[0])
    assert float(found) == float(factors[0]) * float(factors[1])
    assert not np.float32(found).view(np.uint32) & 0b11111


def test_a_rounded_scale_leaves_the_codes_of_pixels_what_they_are():
    scale, zero_point = reference.asymmetric_parameters(0.0, 1.0, 8)
    pixels = np.arange(256)
    codes = reference.quantize((pixels / 255).astype(np.float32), scale, zero_point, -128, 127)
    np.testing.assert_array_equal(codes, pixels - 128)


def test_symmetric_scales_cover_the_weights_and_give_dead_channels_a_scale():
    weights = np.array([[0.5, 0.0, -3.0], [-0.25, 0.0, 1.0]], np.float32)
    for bits in (2, 4, 8):
        qmin, qmax = reference.integer_range(bits, symmetric=True)
        scales = reference.symmetric_scales(weights, bits, axis=1)
        tight = np.array([0.5 / qmax, 3.0 / -qmin, 3.0 / -qmin])
        tight[1:] = max(3.0 / -qmin, 1.0 / qmax)  # the channel of zeros takes the largest
        np.testing.assert_allclose(scales, tight, rtol=2.0 ** -(3 + bits))
        assert (scales * qmax >= weights.max(axis=0)).all()
        assert (scales * qmin <= weights.min(axis=0)).all()
        codes = reference.quantize(weights, scales, 0, qmin, qmax, axis=1)
        assert codes[0, 0] == qmax
        assert codes[0, 2] == qmin
        assert not codes[:, 1].any()
    assert reference.symmetric_scales(weights, 8).shape == (1,)
    assert reference.symmetric_scales(np.zeros((2, 2)), 8, axis=0).shape == (2,)


def test_axis_may_count_from_the_end():
    weights = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        reference.symmetric_scales(weights, 8, axis=-1), reference.symmetric_scales(weights, 8, axis=2)
    )


@pytest.mark.parametrize("limits", [(1.0, -1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_bad_ranges_are_refused(limits):
    with pytest.raises(ValueError, match="finite and ordered"):
        reference.asymmetric_parameters(*limits, 8)


def test_a_range_of_width_zero_gets_a_usable_grid():
    scale, zero_point = reference.asymmetric_parameters(0.0, 0.0, 8)
    assert zero_point == -128
    assert scale == pytest.approx(1 / 255, rel=2.0**-10)


@settings(deadline=None, max_examples=200)
@given(st.integers(-(2**31), 2**31 - 1), st.floats(1e-6, 0.99))
def test_multiply_by_quantized_multiplier_is_within_one_of_the_exact_product(accumulator, real):
    multiplier, shift = integer_kernels.quantize_multiplier(real)
    found = integer_kernels.multiply_by_quantized_multiplier(np.array([accumulator]), multiplier, shift)[0]
    exact = Fraction(accumulator) * int(multiplier) * Fraction(2) ** (int(shift) - 31)
    assert abs(found - exact) <= Fraction(3, 4)  # half a unit of each rounding, the first one scaled down
    assert abs(Fraction(int(multiplier)) * Fraction(2) ** (int(shift) - 31) / Fraction(real) - 1) < Fraction(1, 2**30)


def test_multipliers_carry_into_the_exponent():
    multiplier, shift = integer_kernels.quantize_multiplier(np.nextafter(1.0, 0.0))
    assert (int(multiplier), int(shift)) == (2**30, 1)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_halves_round_away_from_zero(values):
    values = [math.floor(v) + 0.5 for v in values] + values
    expected = [math.copysign(math.floor(abs(Fraction(v)) + Fraction(1, 2)), v) for v in values]
    np.testing.assert_array_equal(reference.round_half_away(np.array(values)), expected)
