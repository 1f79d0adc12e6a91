"""Keras 3 takes almost any text as a layer's name, TensorFlow does not; the user's own name stays in `origin`."""

import keras
import pytest

from tfq.models.graph import build_model
from tfq.models.load import load_model


@pytest.mark.parametrize(
    ("given", "used"),
    [("größe 1", "gr_e_1"), ("x:y", "x_y"), ("_hidden", "layer_hidden"), ("Ünd", "layer_nd"), ("-1", "layer-1")],
)
def test_a_name_that_tensorflow_refuses_is_changed(given, used):
    inputs = keras.Input((4,), name="image")
    graph = load_model(keras.Model(inputs, keras.layers.Dense(3, name=given)(inputs))).graph
    assert (graph.nodes[1].name, graph.nodes[1].origin) == (used, (given,))
    assert build_model(graph).count_params() == 15
