"""Calibration data made from a model: its statistics, its range, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfq
from tfq.data import synthetic
from tfq.data.synthetic import synthetic_samples
from tfq.errors import UserError
from tfq.models.load import load_model


def trained(low, high, *, rescales=False):
    """A convolution net whose batch normalisations have seen smooth images within this range."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / high)] if rescales else []
    for filters in (8, 12):
        layers += [keras.layers.Conv2D(filters, 3), keras.layers.BatchNormalization(momentum=0.0), keras.layers.ReLU()]
    model = keras.Sequential([keras.Input((16, 16, 3), name="image"), *layers, keras.layers.GlobalAveragePooling2D()])
    rng = np.random.default_rng(1)
    coarse = rng.uniform(low, high, (64, 4, 4, 3))
    images = np.asarray(tf.image.resize(coarse, (16, 16), "bicubic")).clip(low, high).astype(np.float32)
    model(images, training=True)  # which leaves the statistics of this batch alone
    return model, images


def read_by_the_second(model, images):
    """(mean, deviation) by channel of what the second batch normalisation reads."""
    before = keras.Model(model.inputs, [model.layers[-4].output])
    values = np.asarray(before(images))
    return values.mean((0, 1, 2)), values.std((0, 1, 2))


@pytest.mark.parametrize(("low", "high", "rescales"), [(0, 1, False), (-1, 1, False), (0, 255, True)])
def test_made_inputs_have_the_range_and_the_statistics_of_the_training_data(low, high, rescales):
    model, images = trained(low, high, rescales=rescales)
    samples = synthetic_samples(load_model(model).graph, 64)
    made = samples.arrays["image"]
    assert made.shape == images.shape
    assert made.dtype == np.float32
    assert low <= made.min() < made.max() <= high * 1.01
    assert made.max() - made.min() > 0.5 * (high - low)
    mean, deviation = read_by_the_second(model, images)
    made_mean, made_deviation = read_by_the_second(model, made)
    noise = np.random.default_rng(2).uniform(low, high, images.shape).astype(np.float32)
    far = np.abs(read_by_the_second(model, noise)[1] / deviation - 1).mean()
    assert np.abs((made_mean - mean) / deviation).mean() < 0.1
    assert np.abs(made_deviation / deviation - 1).mean() < 0.1 < far
    assert f"made from the model: 64 inputs within {low} to" in samples.warnings[0]


def test_the_preprocessing_says_the_range_and_the_seed_the_samples(monkeypatch):
    monkeypatch.setattr(synthetic, "_STEPS", 3)
    graph = load_model(trained(0, 1)[0]).graph
    one, same, other = (
        synthetic_samples(graph, 10, preprocess="minus_one_one", seed=s).arrays["image"] for s in (0, 0, 1)
    )
    assert len(one) == 10
    assert -1 <= one.min() < -0.3
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_models_without_batch_normalisation_and_whole_numbers_are_refused():
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(UserError, match="no batch normalisation, whose statistics"):
        tfq.quantize(plain, "synthetic")
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    hidden = keras.layers.BatchNormalization()(keras.layers.Embedding(9, 4)(tokens))
    with pytest.raises(UserError, match="its input 'tokens' holds int32"):
        tfq.quantize(keras.Model(tokens, hidden), "synthetic")


def test_a_model_is_quantised_with_them_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(synthetic, "_STEPS", 10)
    model = trained(0, 1)[0]
    found = tfq.quantize(model, "synthetic", num_calibration_samples=48)
    assert found.report.calibration_samples == 48
    assert any("made from the model" in warning for warning in found.report.warnings)
    assert found.report.recipe.calibration_data == "synthetic"
    assert found.report.evaluation.models[-1].sqnr.value > 20
