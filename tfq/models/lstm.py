"""Keras 3's LSTM as tf_keras', which TFLiteConverter makes one operation of (UNIDIRECTIONAL_SEQUENCE_LSTM).

It knows the LSTM by a mark that tf_keras leaves in the graph; of any other recurrent layer it makes a loop.
"""

from __future__ import annotations

from typing import Any

import keras
import tf_keras

_KEPT = ("units", "use_bias", "return_sequences", "return_state", "go_backwards")


def as_tf_keras(layer: Any) -> Any | None:
    """The same LSTM, or Bidirectional of two, with the same weights; None for any other layer."""
    made = _made(layer)
    if made is not None:
        made.build(tuple(layer._build_shapes_dict["sequences_shape"]))
        made.set_weights([variable.numpy() for variable in layer.weights])
    return made


def as_loop(layer: Any) -> Any:
    """tf_keras' LSTM, or Bidirectional of two, without the mark: TFLite's operation takes no initial state."""
    if isinstance(layer, tf_keras.layers.Bidirectional):
        pair = [as_loop(layer.forward_layer), as_loop(layer.backward_layer)]
        return tf_keras.layers.Bidirectional(pair[0], backward_layer=pair[1], merge_mode=layer.merge_mode)
    if not isinstance(layer, tf_keras.layers.LSTM):
        return layer
    options = {key: getattr(layer, key) for key in ("return_sequences", "return_state", "go_backwards")}
    return tf_keras.layers.RNN(layer.cell, **options)


def _made(layer: Any) -> Any | None:
    if type(layer) is keras.layers.Bidirectional:
        pair = [_made(layer.forward_layer), _made(layer.backward_layer)]
        if None in pair:
            return None
        return tf_keras.layers.Bidirectional(pair[0], backward_layer=pair[1], merge_mode=layer.merge_mode)
    usual = (keras.activations.tanh, keras.activations.sigmoid)
    if type(layer) is not keras.layers.LSTM or (layer.cell.activation, layer.cell.recurrent_activation) != usual:
        return None
    config = layer.get_config()
    return tf_keras.layers.LSTM(**{key: config[key] for key in _KEPT})
