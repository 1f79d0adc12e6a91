"""Encodings of whole numbers written in TFLite's operations, against the layers of both libraries."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

from tfq.models.encodings import as_operations

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("mode", "width"), [("one_hot", 1), ("multi_hot", 1), ("multi_hot", 4), ("count", 4)])
def test_category_encoding(library, mode, width):
    layer = LIBRARIES[library].layers.CategoryEncoding(num_tokens=6, output_mode=mode)
    x = np.random.default_rng(0).integers(0, 6, (5, width), np.int32)
    np.testing.assert_array_equal(as_operations(layer)(x), layer(x))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mask", [None, 0])
def test_integer_lookup(library, mask):
    layer = LIBRARIES[library].layers.IntegerLookup(vocabulary=[30, 7, 11], mask_token=mask)
    x = np.array([[30, 7, 8], [0, 11, -5]])
    np.testing.assert_array_equal(as_operations(layer)(x), layer(x))


def test_others_are_left():
    hashed = keras.layers.IntegerLookup(vocabulary=[1, 2], num_oov_indices=3)
    assert as_operations(hashed) is None
    assert as_operations(keras.layers.Dense(2)) is None
