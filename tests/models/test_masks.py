"""The masks that Keras keeps beside tensors, of both frameworks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

from tfq.models.equality import relative_error, run_graph
from tfq.models.load import load_model

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


def attended(library, x):
    layers = library.layers
    nested = library.Sequential([layers.Dense(4), layers.LayerNormalization(), layers.LSTM(3, return_sequences=True)])
    y = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    y = layers.MultiHeadAttention(2, 4)(y, x, use_causal_mask=True)
    y = layers.Concatenate()([layers.Attention()([y, x]), x])
    return layers.GlobalAveragePooling1D()(nested(layers.BatchNormalization()(y)))


def pooled_sum(library, x):
    return library.layers.GlobalAveragePooling1D()(x + library.layers.Dense(8)(x))


@both
@pytest.mark.parametrize("maker", ["Embedding", "Masking"])
@pytest.mark.parametrize("follow", [attended, pooled_sum])
def test_masks_are_those_that_keras_gives_in_a_run(library, maker, follow):
    if maker == "Embedding":
        x = library.Input((5,), dtype="int32")
        masked = library.layers.Embedding(9, 8, mask_zero=True)(x)
        samples = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [3, 0, 2, 0, 1]])
    else:
        x = library.Input((5, 8))
        masked = library.layers.Masking()(x)
        samples = np.random.default_rng(0).normal(size=(3, 5, 8)) * np.tri(3, 5, 2)[..., None]
    loaded = load_model(library.Model(x, follow(library, masked)))
    (name,) = loaded.graph.inputs
    arrays = {name: samples.astype(loaded.graph[name].config["dtype"])}
    assert relative_error(list(loaded.predict(arrays)), run_graph(loaded.graph, arrays)) < 1e-5
    carried = [node.config["work"].name for node in loaded.graph.nodes if node.kind == "Carried"]
    assert "BatchNormalization" not in carried
