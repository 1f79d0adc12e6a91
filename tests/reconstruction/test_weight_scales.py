"""Scales against every set of codes that some scale gives, enumerated."""

import itertools

import numpy as np
import operator_graphs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfq.numerics import reference
from tfq.operations.table import OPERATORS
from tfq.precision import Precision
from tfq.reconstruction.steps import with_mse_scales
from tfq.reconstruction.weight_scales import mse_scales

BITS = st.integers(2, 8)
KERNELS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-8, 8, width=16)
)


def error(w, scale, bits, importance=1.0):
    w = np.asarray(w, np.float64)
    codes = np.clip(np.rint(w / scale), *reference.integer_range(bits, symmetric=True))
    return float((importance * (w - scale * codes) ** 2).sum())


def smallest_error(w, bits, importance=None):
    """The minimum of the error over all scales: between two neighbouring breakpoints it is a parabola."""
    w = np.asarray(w, np.float64).ravel()
    h = np.ones_like(w) if importance is None else np.asarray(importance, np.float64).ravel()
    ends = reference.integer_range(bits, symmetric=True)
    breakpoints = np.unique([abs(x) / (j + 0.5) for x in w if x for j in range(abs(ends[int(x > 0)]))])
    edges = np.concatenate([[0.0], breakpoints, [2 * breakpoints[-1]]])
    best = np.inf
    for low, high in itertools.pairwise(edges):
        q = np.clip(np.rint(w / ((low + high) / 2)), *ends)
        vertex = (h * w * q).sum() / (h * q * q).sum() if (h * q).any() else high
        scale = np.clip(vertex, low, high)
        best = min(best, (h * (w - scale * q) ** 2).sum())
    return best


@given(KERNELS, st.integers(2, 5))
def test_the_error_is_the_smallest_there_is(kernel, bits):
    scales = mse_scales(kernel, bits, 1)
    for channel, scale in zip(kernel.T, scales, strict=True):
        if channel.any():
            assert error(channel, scale, bits) <= smallest_error(channel, bits) + 1e-9 * np.square(channel).sum()
    scale = mse_scales(kernel, bits, None)
    assert scale.shape == (1,)
    if kernel.any():
        assert error(kernel, scale[0], bits) <= smallest_error(kernel, bits) + 1e-9 * np.square(kernel).sum()


@given(KERNELS, st.integers(2, 4), st.integers(0, 2**31))
def test_the_weighted_error_is_the_smallest_there_is(kernel, bits, seed):
    importance = np.random.default_rng(seed).choice([0, 0.1, 1, 10], kernel.shape)
    for w, h, scale in zip(kernel.T, importance.T, mse_scales(kernel, bits, 1, importance=importance), strict=True):
        assert np.isfinite(scale)
        assert scale > 0
        if (h * w).any():
            assert error(w, scale, bits, h) <= smallest_error(w, bits, h) + 1e-9 * (h * w * w).sum()


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("kind", ["normal", "laplace", "student"])
def test_long_channels_come_close_to_the_smallest_error(bits, kind):
    """Those whose breakpoints are too many are searched on a lattice first."""
    rng = np.random.default_rng(bits)
    draw = {"normal": rng.normal, "laplace": rng.laplace, "student": lambda size: rng.standard_t(3, size)}[kind]
    kernel = draw(size=(5000, 2))
    scales = mse_scales(kernel, bits, 1)
    limit = 2 ** (bits - 1) - 1
    for w, scale in zip(kernel.T, scales, strict=True):
        tried = np.abs(w).max() / limit * np.geomspace(0.01, 2, 4000)
        assert error(w, scale, bits) <= min(error(w, s, bits) for s in tried) * (1 + 1e-9)


@given(KERNELS, BITS)
def test_never_worse_than_minmax(kernel, bits):
    minmax = np.abs(kernel).max(axis=0) / (2 ** (bits - 1) - 1)
    for w, found, given_scale in zip(kernel.T, mse_scales(kernel, bits, 1), minmax, strict=True):
        if w.any():
            assert error(w, found, bits) <= error(w, given_scale, bits) + 1e-12 * np.square(w).sum()


@given(KERNELS, BITS, st.integers(-40, 40))
def test_scales_follow_the_kernel(kernel, bits, exponent):
    factor = 2.0**exponent
    # of zeros alone there is nothing to follow
    if kernel.any():
        np.testing.assert_array_equal(
            mse_scales(kernel.astype(np.float64) * factor, bits, 1), mse_scales(kernel, bits, 1) * factor
        )
    if bits == 8:  # with fewer bits the grid reaches further below 0
        np.testing.assert_array_equal(mse_scales(-kernel, bits, 1), mse_scales(kernel, bits, 1))


@given(KERNELS, BITS, st.permutations(range(9)))
def test_the_order_of_the_elements_does_not_matter(kernel, bits, order):
    order = [i for i in order if i < len(kernel)]
    a, b = mse_scales(kernel, bits, 1), mse_scales(kernel[order], bits, 1)
    for w, first, second in zip(kernel.T, a, b, strict=True):
        if w.any():
            assert abs(error(w, first, bits) - error(w, second, bits)) <= 1e-9 * np.square(w).sum()


def test_channels_of_zeros_get_the_largest_scale():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 2)).astype(np.float32)
    kernel[:, :, 1] = 0
    scales = mse_scales(kernel, 4, 2)
    assert scales[1] == scales.max()
    np.testing.assert_array_equal(mse_scales(np.zeros((3, 2)), 4, 1), [1 / 7, 1 / 7])
    assert reference.symmetric_scales(np.zeros((3, 2)), 4, 1)[0] == pytest.approx(1 / 7, rel=2.0**-7)


def test_depthwise_channels_are_those_of_their_axis():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 2))
    scales = mse_scales(kernel, 3, 2)
    assert scales.shape == (4,)
    for channel in range(4):
        np.testing.assert_allclose(scales[channel], mse_scales(kernel[:, :, channel], 3, None)[0])


def test_a_wrong_importance_is_refused():
    for importance in (np.ones(3), -np.ones((3, 2))):
        with pytest.raises(ValueError, match="importance"):
            mse_scales(np.ones((3, 2)), 4, 1, importance=importance)


def test_every_kernel_of_a_model_gets_them():
    graph = operator_graphs.convolutions()
    model = operator_graphs.specified(graph, operator_graphs.draw(graph), Precision(weight_bits=3))
    changed = with_mse_scales(model)
    seen = set()
    for before, after in zip(model.layers, changed.layers, strict=True):
        name = OPERATORS[before.kind].kernel
        if before.kind not in ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"):
            assert before is after
            continue
        seen.add(before.kind)
        kernel, grid = graph[before.name].weights[name], after.weight_grids[name]
        np.testing.assert_allclose(grid.scale, mse_scales(kernel, 3, grid.axis), rtol=2.0**-7)
        assert grid.scale != before.weight_grids[name].scale
        if "bias" in after.weights:
            step = changed.grids[before.inputs[0]].scale[0]
            repeats = len(after.weight_grids["bias"].scale) // len(grid.scale)
            np.testing.assert_allclose(
                after.weight_grids["bias"].scale, step * np.repeat(grid.scale, repeats), rtol=1e-6
            )
    assert len(seen) == 4
