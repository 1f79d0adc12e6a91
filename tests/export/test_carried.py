"""Layers and operations that are carried in float32, through the whole road: file, verification, report."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

import tfq
from tfq.errors import UserError

K, OPS = keras.layers, keras.ops


def operations_model():
    x = keras.Input((8, 8, 3))
    y = K.Conv2D(6, 3, activation="relu", name="conv")(x)
    y = OPS.where(y > 0.3, y, 2 * y)
    values, places = OPS.top_k(OPS.reshape(y, (-1, 216)), 4)
    return keras.Model(x, K.Dense(3)(values * OPS.cast(places, "float32")))


def recurrent_model():
    x = keras.Input((6,), dtype="int32")
    words = K.Embedding(10, 8, mask_zero=True)(x)
    return keras.Model(x, K.Dense(3)(K.GRU(5)(K.LSTM(6, return_sequences=True)(words))))


def sorted_model():
    x = keras.Input((6,))
    return keras.Model(x, K.Dense(3)(OPS.cast(OPS.argsort(K.Dense(8)(x)), "float32")))


def begun_model(library=keras):
    x = library.Input((6, 4))
    state = library.layers.Dense(5)(x[:, 0])
    return library.Model(x, library.layers.Dense(3)(library.layers.LSTM(5)(x, initial_state=[state, state])))


def begun_model_of_tf_keras():
    return begun_model(tf_keras)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [operations_model, recurrent_model, sorted_model, begun_model, begun_model_of_tf_keras]
)
def test_a_model_with_carried_layers_is_quantised_and_verified(make):
    model = make()
    shape = (128, *model.inputs[0].shape[1:])
    rng = np.random.default_rng(0)
    words = make is recurrent_model
    x = rng.integers(0, 10, shape, np.int32) if words else rng.normal(size=shape).astype("float32")
    found = tfq.quantize(model, x)
    reasons = {layer.kind: layer.reason for layer in found.report.layers if layer.precision == "float32"}
    assert "there is no int8 rule for" in reasons["Carried"]
    assert any(layer.precision == "int8" for layer in found.report.layers)
    assert found.report.verification.float_operators > 0


def test_two_copies_of_a_float_tensor_may_become_one_operation():
    """The sum between float layers and the carried layer both read a copy of the first normalisation."""
    x = keras.Input((6, 4))
    y = K.LayerNormalization()(K.Dense(4)(x))
    y = K.LayerNormalization()(y + OPS.cumsum(y, axis=1))
    found = tfq.quantize(keras.Model(x, K.Dense(2)(y)), np.random.default_rng(0).normal(size=(16, 6, 4)))
    assert {layer.kind for layer in found.report.layers if layer.precision == "float32"} >= {"Add", "Carried"}


def test_an_operation_that_tflite_lacks_is_refused_before_the_long_work():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, K.Conv2D(2, 3)(OPS.image.resize(x, (12, 12), interpolation="bicubic")))
    with pytest.raises(UserError, match=r"layer 'resize.*no builtin operation for its tf\.ResizeBicubic"):
        tfq.quantize(model, np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"))


def test_samples_that_mix_are_refused():
    x = keras.Input((4,))

    class Centred(K.Layer):
        def call(self, x):
            return x - OPS.flip(x, 0)

    model = keras.Model(x, Centred()(x))
    with pytest.raises(UserError, match="depends on the other samples of its batch"):
        tfq.quantize(model, np.random.default_rng(0).normal(size=(16, 4)).astype("float32"))
