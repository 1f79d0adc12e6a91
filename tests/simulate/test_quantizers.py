"""The tfmot quantizers against the NumPy reference, to the bit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from tfq.grid import Grid
from tfq.numerics import reference
from tfq.simulate.quantizers import FixedQuantizer, SpecQuantizeConfig, fake_quant

VALUES = st.floats(-8, 8, width=32)


def by_reference(values, grid):
    low, high = grid.integer_range
    return reference.fake_quantize(values, np.asarray(grid.scale), grid.zero_point, low, high, grid.axis)


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=VALUES), st.data())
def test_per_tensor_activations(values, data):
    low, high = data.draw(st.floats(-6, 0)), data.draw(st.floats(0.01, 6))
    scale, zero_point = reference.asymmetric_parameters(low, high, 8)
    grid = Grid((scale,), zero_point, 8, "int8", symmetric=False)
    np.testing.assert_array_equal(fake_quant(tf.constant(values), grid), by_reference(values, grid))


@pytest.mark.parametrize("bits", range(2, 8))
@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=VALUES),
    st.floats(-6, 0),
    st.floats(0.01, 6),
)
def test_activations_of_fewer_bits(bits, values, low, high):
    scale, zero_point = reference.asymmetric_parameters(low, high, bits)
    grid = Grid((scale,), zero_point, bits, "int8", symmetric=False)
    found = fake_quant(tf.constant(values), grid).numpy()
    np.testing.assert_array_equal(found, by_reference(values, grid))
    # and without the reference: the nearest of the 2^b values, of which 0 is one
    levels = scale * (np.arange(2**bits) - 2 ** (bits - 1) - zero_point)
    assert 0 in levels
    assert np.isin(found.astype(np.float64), levels).all()
    nearest = np.abs(values[..., None].astype(np.float64) - levels).min(-1)
    np.testing.assert_allclose(np.abs(values.astype(np.float64) - found), nearest, atol=1e-6 * scale * 2**bits)


AXES = {
    "one scale": ((3, 3, 4, 5), None),
    "last axis, convolution": ((3, 3, 4, 5), 3),
    "last axis, dense": ((6, 5), 1),
    "depthwise": ((3, 3, 5, 1), 2),
    "depthwise with multiplier": ((3, 3, 5, 2), 2),
    "transposed convolution": ((3, 3, 5, 4), 2),
    "first axis": ((5, 4), 0),
}


@pytest.mark.parametrize("case", AXES)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_on_every_axis(case, seed):
    shape, axis = AXES[case]
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 1)).astype(np.float32)
    # narrower than the values, so that some are clipped
    scales = reference.symmetric_scales(values * np.float32(0.8), 8, axis)
    grid = Grid(tuple(map(float, scales)), 0, 8, "int8", symmetric=True, axis=axis)
    np.testing.assert_array_equal(fake_quant(tf.constant(values), grid), by_reference(values, grid))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("case", AXES)
def test_values_on_a_narrower_grid_pass_unchanged(case, bits):
    shape, axis = AXES[case]
    values = np.random.default_rng(bits).normal(size=shape).astype(np.float32)
    scales = reference.symmetric_scales(values, bits, axis)
    grid = Grid(tuple(map(float, scales)), 0, bits, "int8", symmetric=True, axis=axis)
    snapped = by_reference(values, grid)
    np.testing.assert_array_equal(fake_quant(tf.constant(snapped), grid), snapped)


def test_gradients_pass_straight_through_inside_the_range():
    grid = Grid((1 / 128,), 0, 8, "int8", symmetric=False)
    values = tf.constant([-2.0, -0.5, 0.1, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(fake_quant(values, grid))
    np.testing.assert_array_equal(tape.gradient(total, values), [0, 1, 1, 0])


def _wrapped_model():
    kernel = Grid((0.5, 0.25, 0.125), 0, 8, "int8", symmetric=True, axis=3)
    output = Grid((0.125,), -3, 8, "int8", symmetric=False)
    layer = tf_keras.layers.Conv2D(3, 3, padding="same", name="conv")
    inputs = tf_keras.Input((5, 5, 2), name="image")
    grid = Grid((2.0**-5,), 4, 8, "int8", symmetric=False)
    entry = QuantizeWrapperV2(tf_keras.layers.Activation("linear"), SpecQuantizeConfig({}, grid), name="entry")
    wrapper = QuantizeWrapperV2(layer, SpecQuantizeConfig({"kernel": kernel}, output), name="quant_conv")
    return tf_keras.Model(inputs, wrapper(entry(inputs)))


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_wrapped_model_survives_saving(tmp_path, suffix):
    tf_keras.utils.set_random_seed(0)
    model = _wrapped_model()
    model.save(tmp_path / f"model.{suffix}")
    with tf_keras.utils.custom_object_scope(
        {"QuantizeWrapperV2": QuantizeWrapperV2, "SpecQuantizeConfig": SpecQuantizeConfig}
    ):
        again = tf_keras.models.load_model(tmp_path / f"model.{suffix}")
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 2)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)
    config = again.get_layer("quant_conv").quantize_config
    assert config.get_config() == model.get_layer("quant_conv").quantize_config.get_config()
    assert config.weights["kernel"].axis == 3


def test_configs_round_trip():
    grid = Grid((0.5, 0.25), 0, 4, "int4", symmetric=True, axis=1)
    assert FixedQuantizer.from_config(FixedQuantizer(grid).get_config()).grid == grid
    config = SpecQuantizeConfig({"kernel": grid}, None)
    again = SpecQuantizeConfig.from_config(config.get_config())
    assert (again.weights, again.output) == ({"kernel": grid}, None)
