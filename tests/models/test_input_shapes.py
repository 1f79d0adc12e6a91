"""Inputs whose model leaves sizes open, and shapes given for them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.errors import UserError
from tfq.input_shapes import InputShapes, as_texts
from tfq.models.equality import relative_error, run_graph
from tfq.models.load import load_model


def image_model(library):
    x = library.Input((None, None, 3), name="image")
    y = library.layers.Conv2D(4, 3, strides=2, padding="same")(x)
    nested = library.Sequential([library.Input((None, None, 4)), library.layers.DepthwiseConv2D(3)])
    return library.Model(x, library.layers.GlobalAveragePooling2D()(library.layers.UpSampling2D()(nested(y))))


def file_of(path):
    signature = [tf.TensorSpec((1, None, 4), name="x")]
    net = tf.function(lambda x: tf.reshape(tf.nn.relu(x[:, 1:] @ tf.ones((4, 2))), [1, -1]), signature)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()]).convert())
    return path


def check(model, texts, shape):
    loaded = load_model(model, input_shapes=InputShapes.read(texts))
    (name,) = loaded.graph.inputs
    given = {name: np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)}
    assert relative_error(list(loaded.predict(given)), run_graph(loaded.graph, given)) < 1e-5


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_a_shape_binds_what_a_keras_model_leaves_open(library):
    model = image_model(library)
    check(model, ["image:9,12,3"], (9, 12, 3))
    with pytest.raises(UserError, match=r"\(\?, \?, 3\).*give it one, as `input_shape='image:224,224,3'`"):
        load_model(model)
    for texts, words in ((["9,12,1"], "the model declares"), (["x:9,12,3"], "the model has image")):
        with pytest.raises(UserError, match=words):
            load_model(model, input_shapes=InputShapes.read(texts))


def test_a_shape_binds_what_a_file_leaves_open(tmp_path):
    path = file_of(tmp_path / "net.tflite")
    check(path, ["5,4"], (5, 4))
    with pytest.raises(UserError, match="`input_shape='x:128,4'`"):
        load_model(path)


def test_programs_give_numbers():
    assert as_texts({"a": (1, 2), "b": [3]}) == ("a:1,2", "b:3")
    assert as_texts((224, 224, 3)) == ("224,224,3",)
    assert as_texts(["a:1,2"]) == ["a:1,2"]
