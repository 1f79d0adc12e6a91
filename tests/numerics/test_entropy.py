"""Entropy against its definition and against deflate, and the scale that gives codes a wanted one."""

import math

import numpy as np
import pytest

from tfq.execution.deflate import deflated
from tfq.numerics.entropy import entropy, scale_of_entropy


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_the_entropy_is_near_what_deflate_makes_of_independent_integers(bits):
    top = 2 ** (bits - 1) - 1
    values = np.random.default_rng(bits).normal(0, top / 2, 40000)
    codes = np.clip(np.rint(values), -top, top).astype(np.int8)
    counts = [np.sum(codes == code) for code in range(-top, top + 1)]
    expected = -sum(c * math.log2(c / codes.size) for c in counts if c)
    assert entropy(codes) * codes.size == pytest.approx(expected)
    # a Huffman code spends whole bits, which costs most where there are few levels
    assert expected / 8 * 0.99 < len(deflated(codes.tobytes())) < expected / 8 * 1.4


def test_equal_integers_have_no_entropy_and_equally_frequent_ones_their_number_of_bits():
    assert entropy(np.full((3, 4), 7)) == 0
    assert entropy(np.repeat(np.arange(16), 5)) == pytest.approx(4)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("law", ["normal", "laplace", "uniform"])
def test_codes_have_the_entropy_asked_for(law, bits):
    weights = 0.03 * getattr(np.random.default_rng(bits), law)(size=(3, 3, 32, 64))
    scale = scale_of_entropy(weights, bits)
    codes = np.rint(weights / scale)
    assert entropy(codes) == pytest.approx(bits, abs=0.02)
    assert np.abs(codes).max() <= 127
    assert scale_of_entropy(1000 * weights, bits) == pytest.approx(1000 * scale, rel=1e-3)  # scales are rounded


def test_a_normal_density_has_the_step_of_the_theory():
    """h(w) - log2 s = H for small steps: s = sigma sqrt(2 pi e) / 2^H."""
    weights = np.random.default_rng(0).normal(0, 0.1, 100000)
    assert scale_of_entropy(weights, 5) == pytest.approx(0.1 * math.sqrt(2 * math.pi * math.e) / 32, rel=0.01)


def test_the_largest_weight_keeps_its_code():
    weights = np.append(np.random.default_rng(0).normal(0, 1e-3, 5000), 1.0)
    scale = scale_of_entropy(weights, 5)
    assert scale == pytest.approx(1 / 127, rel=1e-3)
    assert entropy(np.rint(weights / scale)) < 5


@pytest.mark.parametrize("weights", [np.zeros((3, 3, 1, 2)), np.full(5, 0.25), np.array([1e-30])])
def test_weights_that_cannot_have_the_entropy_get_a_finite_scale(weights):
    scale = scale_of_entropy(weights, 3)
    assert math.isfinite(scale)
    assert scale > 0
