"""Layers that encode whole numbers, in operations that TFLite has: Keras writes them with a bincount or a hash table.

CategoryEncoding   one_hot: the row of each number; multi_hot: the largest of a sample's rows; count: their sum,
                   without weights
IntegerLookup      the place of the token that equals the number, or that of unknown ones
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


def as_operations(layer: Any) -> tf_keras.layers.Layer | None:
    """A layer of either library that computes what `layer` does; None for any other layer."""
    makers = {"CategoryEncoding": _category_encoding, "IntegerLookup": _integer_lookup}
    make = makers.get(type(layer).__name__)
    function = None if make is None else make(layer)
    return None if function is None else tf_keras.layers.Lambda(function)


def _category_encoding(layer: Any) -> Callable[..., Any] | None:
    if layer.sparse:
        return None
    mode, depth = layer.output_mode, layer.num_tokens

    def encode(x: Any) -> Any:
        if mode == "one_hot":
            return tf.one_hot(tf.squeeze(x, -1) if x.shape[-1] == 1 else x, depth)
        rows = tf.one_hot(x, depth)
        return tf.reduce_max(rows, -2) if mode == "multi_hot" else tf.reduce_sum(rows, -2)

    return encode


def _integer_lookup(layer: Any) -> Callable[..., Any] | None:
    if layer.output_mode != "int" or layer.invert or layer.sparse or layer.num_oov_indices != 1:
        return None
    tokens = np.array(layer.get_vocabulary(include_special_tokens=False), np.int32)
    unknown = int(layer.mask_token is not None)  # 0 is the place of the mask
    places = np.arange(len(tokens), dtype=np.int32) + unknown + 1

    def look_up(x: Any) -> Any:
        x = tf.cast(x, tf.int32)
        found = tf.reduce_max(tf.where(x[..., None] == tokens, places, unknown), -1)
        return tf.where(x == layer.mask_token, 0, found) if unknown else found

    return look_up
