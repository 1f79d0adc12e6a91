"""Inputs that no single 8-bit grid can hold stay float where that saves the model, and are told of."""

import keras
import numpy as np
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.execution.interpreter import TfliteModel
from tfq.execution.predict import predict
from tfq.export.package import export_quantized
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.models.wide import find_wide, spread_of
from tfq.verify.structure import verify_structure

K = keras.layers
RNG = np.random.default_rng(3)


def sqnr_and_notes(model, samples, *, look=True):
    """(dB of the int8 file, notes, the file's input type)."""
    loaded, arrays = load_model(model), {"x": samples}
    wide = find_wide(loaded.graph, arrays) if look else None
    prepared = prepare(loaded.graph, {"x": samples[:8]}, original=loaded, wide=wide)
    ranges = calibrate(prepared.graph, iter([arrays]), method="minmax", total=len(samples)).ranges
    quantized = specify(prepared.graph, ranges)
    content = export_quantized(quantized, lambda: iter([{"x": samples[:1]}]))
    verify_structure(content, quantized)
    (expected,), (found,) = loaded.predict(arrays), predict(content, arrays, threads=1)
    sqnr = 10 * np.log10(expected.var() / np.mean((expected - found) ** 2))
    return sqnr, prepared.notes, TfliteModel(content).inputs[0].dtype.name


def features(scale, *, normalized):
    keras.utils.set_random_seed(0)
    x = keras.Input((len(scale),), name="x")
    h = K.Normalization(mean=[0.0] * len(scale), variance=(scale**2).tolist())(x) if normalized else x
    first = K.Dense(8, activation="relu")
    model = keras.Model(x, K.Dense(1)(first(h)))
    if not normalized:  # as training on such features leaves the weights
        kernel, bias = first.get_weights()
        first.set_weights([kernel / scale[:, None], bias])
    return model, (RNG.normal(size=(200, len(scale))) * scale).astype("float32")


@pytest.mark.parametrize("ratio", [1e3, 1e5])
@pytest.mark.parametrize("normalized", [True, False])
def test_features_of_very_different_scales_keep_their_accuracy(ratio, normalized):
    model, samples = features(np.array([1.0, ratio]), normalized=normalized)
    sqnr, (note,), dtype = sqnr_and_notes(model, samples)
    assert sqnr > 25
    assert dtype == "float32"
    assert note.startswith("input 'x' stays float32 in the file, and so does ")
    assert "steps of" in note
    assert "channel 0 varies by" in note
    assert "\n" not in note


def test_a_sensor_far_from_zero_keeps_its_accuracy():
    mean, std = np.array([0.0, 9.8, 101325.0]), np.array([1.0, 1.0, 300.0])
    x = keras.Input((16, 3), name="x")
    h = K.Conv1D(8, 3, activation="relu")(K.Normalization(mean=mean.tolist(), variance=(std**2).tolist())(x))
    model = keras.Model(x, K.Dense(3)(K.GlobalAveragePooling1D()(h)))
    sqnr, notes, dtype = sqnr_and_notes(model, (mean + std * RNG.normal(size=(100, 16, 3))).astype("float32"))
    assert sqnr > 25
    assert (len(notes), dtype) == (1, "float32")


def test_a_model_that_does_not_need_the_lost_channel_stays_as_it_is():
    model, samples = features(np.array([1.0, 1e5]), normalized=True)
    first = next(layer for layer in model.layers if isinstance(layer, K.Dense))
    kernel, bias = first.get_weights()
    first.set_weights([kernel * [[0.0], [1.0]], bias])
    _, notes, dtype = sqnr_and_notes(model, samples)
    assert (notes, dtype) == ((), "int8")


def test_what_cannot_be_saved_is_told_with_the_way_out():
    scale = np.array([1.0, 1e4])
    x = keras.Input((2,), name="x")
    model = keras.Model(x, K.Dense(2)(keras.ops.tanh(x * (1 / scale).astype("float32")) + keras.ops.sin(x)))
    _, (note,), _ = sqnr_and_notes(model, (RNG.normal(size=(100, 2)) * scale).astype("float32"))
    assert note.startswith("input 'x' is too coarse on one 8-bit grid: ")
    assert note.endswith("bring its channels to one scale, by a Normalization layer or before the model")


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        (RNG.normal(size=(100, 3)), ()),
        (RNG.uniform(0, 255, (20, 8, 8, 3)), ()),
        (np.eye(50)[RNG.integers(0, 50, 2000)], ()),  # one-hot: rare, but on the grid
        (np.stack([RNG.normal(size=100), np.full(100, 7.7)], 1), ()),  # constant
        (np.stack([RNG.normal(size=100), 1e4 * RNG.normal(size=100)], 1), (0,)),
        (273 + 0.5 * RNG.normal(size=(100, 1)), (0,)),
    ],
    ids=["normal", "pixels", "one-hot", "constant", "two scales", "far from zero"],
)
def test_a_channel_is_lost_where_it_varies_by_less_than_the_grids_error(values, lost):
    assert spread_of(values).lost == lost
