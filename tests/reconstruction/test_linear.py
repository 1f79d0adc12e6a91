"""Layers as matrix products, against the Keras layers themselves."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfq.models.equality import node_function
from tfq.models.graph import Node
from tfq.reconstruction.linear import LinearForm
from tfq.reconstruction.problem import product

KERNEL = {"DepthwiseConv2D": "depthwise_kernel"}


def made(kind, input_shape, kernel_shape, outputs, **config):
    """(linear form, inputs, the Keras layer's output) of a layer with random weights and three samples."""
    rng = np.random.default_rng(0)
    weights = {
        KERNEL.get(kind, "kernel"): rng.normal(size=kernel_shape).astype(np.float32),
        "bias": rng.normal(size=outputs).astype(np.float32),
    }
    node = Node("layer", kind, config, ("x",), weights)
    inputs = rng.normal(size=(3, *input_shape)).astype(np.float32)
    expected = node_function(node)([tf.constant(inputs)]).numpy()
    return LinearForm(node, input_shape, expected.shape[1:]), inputs, expected


def image_layer(kind, size, kernel, *, channels=2, filters=3, multiplier=2, **config):
    shapes = {
        "Conv2D": ((*kernel, channels, filters), filters, {"filters": filters}),
        "Conv2DTranspose": ((*kernel, filters, channels), filters, {"filters": filters}),
        "DepthwiseConv2D": ((*kernel, channels, multiplier), channels * multiplier, {"depth_multiplier": multiplier}),
    }
    kernel_shape, outputs, own = shapes[kind]
    return made(kind, (*size, channels), kernel_shape, outputs, kernel_size=kernel, **own, **config)


def check(form, inputs, expected, *, per_sample=4, seed=0):
    """The product gives the layer's output at sampled positions, and a kernel survives the way there and back."""
    kernel, bias = form.node.weights[form.kernel_name], form.node.weights["bias"]
    matrix = form.matrix(kernel)
    assert matrix.shape == form.matrix_shape
    np.testing.assert_array_equal(form.kernel(matrix), kernel)
    positions = form.sample_positions(len(inputs), per_sample, np.random.default_rng(seed))
    count = min(per_sample, form.positions)
    assert positions.shape == (len(inputs), count)
    assert all(len(set(drawn)) == count for drawn in positions.tolist())
    rows = form.rows(inputs, positions)
    groups, taps, outputs = form.matrix_shape
    assert rows.shape == (positions.size, groups, taps)
    assert rows[0].size == form.row_size
    found = product(rows, matrix) + bias.reshape(groups, outputs)
    every = expected.reshape(len(inputs), -1, groups, outputs)
    assert every.shape[1] == form.positions
    wanted = np.concatenate([every[i, drawn] for i, drawn in enumerate(positions)])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (1, 4), (5, 2), (1, 1)])
@pytest.mark.parametrize("size", [(7, 8), (6, 5)])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", ["Conv2D", "Conv2DTranspose"])
def test_convolutions_at_every_position(kind, padding, strides, size, kernel):
    check(*image_layer(kind, size, kernel, strides=(strides, strides), padding=padding), per_sample=10_000)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3)])
@pytest.mark.parametrize(("padding", "output_padding"), [("same", 0), ("same", 1), ("valid", 1)])
def test_output_padding_of_a_transposed_convolution(padding, output_padding, kernel):
    options = {"strides": (2, 2), "padding": padding, "output_padding": (output_padding, output_padding)}
    check(*image_layer("Conv2DTranspose", (5, 4), kernel, **options), per_sample=10_000)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dilation", [(2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_dilation(kind, dilation, padding):
    check(*image_layer(kind, (9, 8), (3, 2), dilation_rate=dilation, padding=padding), per_sample=10_000)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 5)])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_at_every_position(multiplier, kernel, strides, padding):
    options = {"strides": (strides, strides), "padding": padding}
    check(*image_layer("DepthwiseConv2D", (7, 6), kernel, multiplier=multiplier, **options), per_sample=10_000)


@pytest.mark.parametrize("input_shape", [(5,), (4, 5), (3, 2, 5)], ids=["rank 2", "rank 3", "rank 4"])
@pytest.mark.parametrize("per_sample", [1, 3, 100])
def test_dense_of_any_rank(input_shape, per_sample):
    check(*made("Dense", input_shape, (5, 6), 6, units=6), per_sample=per_sample)


@given(
    kind=st.sampled_from(["Conv2D", "Conv2DTranspose", "DepthwiseConv2D"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.integers(1, 4),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid"]),
    channels=st.integers(1, 4),
    outputs=st.integers(1, 4),
    per_sample=st.integers(1, 12),
    seed=st.integers(0, 100),
)
@settings(max_examples=150)
def test_any_configuration(kind, size, kernel, strides, dilation, padding, channels, outputs, per_sample, seed):
    if kind == "Conv2DTranspose" or strides > 1:
        dilation = (1, 1)  # TensorFlow has no strides with dilation; tfq's transposed convolutions are not dilated
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(kind == "Conv2DTranspose" or padding == "same" or all(r <= s for r, s in zip(reach, size, strict=True)))
    options = {"channels": channels, "filters": outputs, "multiplier": outputs}
    config = {"strides": (strides, strides), "dilation_rate": dilation, "padding": padding}
    check(*image_layer(kind, size, kernel, **options, **config), per_sample=per_sample, seed=seed)


@pytest.mark.parametrize("strides", [2, (2, 2), [2, 2]])
def test_configurations_may_be_written_as_one_number(strides):
    check(*image_layer("Conv2D", (6, 6), (3, 3), strides=strides, padding="same"))


def test_the_same_seed_draws_the_same_positions_and_another_does_not():
    form, inputs, _ = image_layer("Conv2D", (9, 9), (3, 3), padding="same")
    first, same, other = (form.sample_positions(3, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert (first[0] != first[1]).any()  # nor do all samples share theirs
    assert first.max() < form.positions == 81
    assert len(inputs) == 3
