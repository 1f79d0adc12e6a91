"""Models that are files: .keras, .h5, SavedModels of both libraries, and float .tflite, some of no Keras model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import Case, folder, live, pack, pictures, table, tokens, waves


def _net(library: Any) -> Any:
    k = library.layers
    inputs = library.Input((24, 24, 3), name="picture")
    x = k.ReLU()(k.BatchNormalization()(k.Conv2D(8, 3, strides=2, padding="same")(inputs)))
    y = k.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = k.GlobalAveragePooling2D()(k.Add()([x, y]))
    return library.Model(inputs, k.Dense(5, name="scores")(x))


def _stored(case: Case, path: Path, save: Callable[[Path], Any]) -> Case:
    """The same model as the file or folder that `save` writes."""
    save(path)
    return Case(str(path), case.samples, lambda values: case.model(pack(case.model, values), training=False))


def _saved(library: Any, name: str) -> Case:
    """The network of pictures as its `save` writes it under this name."""
    case = live(_net(library), pictures(24, 24, 3))
    return _stored(case, folder() / name, case.model.save)


def keras_file() -> Case:
    return _saved(keras, "model.keras")


def h5_file_keras() -> Case:
    return _saved(keras, "model.h5")


def h5_file_tf_keras() -> Case:
    return _saved(tf_keras, "model.h5")


def saved_model_tf_keras() -> Case:
    return _saved(tf_keras, "model")


def saved_model_tf_keras_lstm() -> Case:
    k = tf_keras.layers
    case = live(tf_keras.Sequential([k.LSTM(8, input_shape=(12, 4)), k.Dense(2)]), waves(12, 4))
    return _stored(case, folder() / "model", case.model.save)


def exported_keras_3() -> Case:
    case = live(_net(keras), pictures(24, 24, 3))
    return _stored(case, folder() / "model", lambda path: case.model.export(str(path), verbose=False))


def saved_module() -> Case:
    kernel = tf.Variable(np.random.default_rng(0).normal(size=(12, 8)).astype("float32"))

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 12), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return tf.nn.relu(x @ kernel)

    module = Module()
    module.kernel = kernel
    path = folder() / "model"
    tf.saved_model.save(module, str(path))
    return Case(str(path), {"x": table(12)}, lambda values: module(values["x"]))


def _tflite(function: Callable[..., Any], **samples: np.ndarray) -> Case:
    """TFLiteConverter's float file of a function of TensorFlow tensors, for one sample."""
    specs = [tf.TensorSpec((1, *value.shape[1:]), value.dtype, name=name) for name, value in samples.items()]
    traced = tf.function(lambda *values: function(*values)).get_concrete_function(*specs)
    path = folder() / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())
    return Case(str(path), samples, lambda values: function(*(values[name] for name in samples)))


def _weights(*shape: int, seed: int = 0) -> np.ndarray:
    fan = int(np.prod(shape[:-1])) or 1
    return (np.random.default_rng(seed).normal(size=shape) * np.sqrt(2 / fan)).astype("float32")


def _converted_keras(model: Any, *arrays: np.ndarray) -> Case:
    case = live(model, *arrays)
    return _tflite(lambda *xs: model(pack(model, dict(zip(case.samples, xs, strict=True))), training=False), **{
        name.replace(":", "_"): values for name, values in case.samples.items()
    })  # fmt: skip


def tflite_convolutions() -> Case:
    return _converted_keras(_net(keras), pictures(24, 24, 3))


def tflite_channels_first() -> Case:
    """Transpositions and paddings around every convolution, as exporters of PyTorch write them."""
    kernels = [_weights(3, 3, a, b, seed=b) for a, b in ((3, 8), (8, 12))]

    def network(x: Any) -> Any:
        for kernel in kernels:
            y = tf.pad(tf.transpose(x, (0, 2, 3, 1)), [[0, 0], [1, 1], [1, 1], [0, 0]])
            x = tf.nn.relu(tf.transpose(tf.nn.conv2d(y, kernel, 2, "VALID"), (0, 3, 1, 2)))
        return tf.reshape(tf.reduce_mean(x, (2, 3)), (1, 12)) @ _weights(12, 4)

    return _tflite(network, x=np.ascontiguousarray(pictures(24, 24, 3).transpose(0, 3, 1, 2)))


def tflite_transformer() -> Case:
    w = [_weights(24, 24, seed=i) * 0.7 for i in range(6)]

    def norm(x: Any) -> Any:
        mean, variance = tf.nn.moments(x, (-1,), keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-5)

    def heads(x: Any) -> Any:
        return tf.transpose(tf.reshape(x, (1, 12, 2, 12)), (0, 2, 1, 3))

    def network(x: Any) -> Any:
        y = norm(x)
        q, k, v = (heads(y @ w[i]) for i in range(3))
        y = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / np.sqrt(12)) @ v
        x = x + tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (1, 12, 24)) @ w[3]
        return x + tf.nn.gelu(norm(x) @ w[4]) @ w[5]

    return _tflite(network, x=waves(12, 24))


def tflite_lstm() -> Case:
    model = tf_keras.Sequential([tf_keras.layers.LSTM(8, input_shape=(12, 4)), tf_keras.layers.Dense(2)])
    return _converted_keras(model, waves(12, 4))


def tflite_tokens() -> Case:
    table_, kernel = _weights(100, 16), _weights(16, 4)
    return _tflite(lambda ids: tf.reduce_mean(tf.gather(table_, ids), 1) @ kernel * 8, ids=tokens(12, 100))


def tflite_detection_head() -> Case:
    kernel, head = _weights(3, 3, 3, 12), _weights(1, 1, 12, 6)

    def network(x: Any) -> Any:
        y = tf.reshape(tf.nn.conv2d(tf.nn.relu6(tf.nn.conv2d(x, kernel, 2, "SAME")), head, 1, "SAME"), (1, 64, 6))
        boxes, scores = tf.split(y, [4, 2], -1)
        return tf.concat([boxes[..., :2] + 0.5, tf.exp(tf.minimum(boxes[..., 2:], 2.0))], -1), tf.sigmoid(scores)

    return _tflite(network, x=pictures(16, 16, 3))


def tflite_pooling_and_power() -> Case:
    kernel, head = _weights(3, 3, 3, 8), _weights(16, 3)

    def network(x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        pooled = tf.pow(tf.reduce_mean(tf.pow(y + 0.01, 3.0), (1, 2)), 1 / 3)
        return tf.concat([pooled, tf.reduce_max(y, (1, 2))], -1) @ head

    return _tflite(network, x=pictures(16, 16, 3))


def tflite_float16_weights() -> Case:
    case = live(_net(keras), pictures(24, 24, 3))
    converter = tf.lite.TFLiteConverter.from_keras_model(case.model)
    converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
    path = folder() / "model.tflite"
    path.write_bytes(converter.convert())
    return Case(str(path), case.samples, lambda values: case.model(pack(case.model, values), training=False))


def tflite_two_inputs() -> Case:
    a, b = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    shared = layers.Dense(12, "relu")
    model = keras.Model([a, b], [layers.Dense(2)(shared(a) * shared(b)), ops.tanh(shared(a) - shared(b))])
    return _converted_keras(model, table(8), table(8, seed=1))


def tflite_upsampling() -> Case:
    kernel, last = _weights(3, 3, 3, 8), _weights(3, 3, 16, 4)

    def network(x: Any) -> Any:
        y = tf.nn.leaky_relu(tf.nn.conv2d(x, kernel, 2, "SAME"), 0.1)
        y = tf.concat([tf.image.resize(y, (24, 24)), tf.image.resize(y, (24, 24), "nearest")], -1)
        return tf.nn.depth_to_space(tf.nn.conv2d(y, last, 1, "SAME"), 2)

    return _tflite(network, x=pictures(24, 24, 3))


def tflite_select_and_compare() -> Case:
    kernel, head = _weights(12, 16), _weights(16, 3)

    def network(x: Any) -> Any:
        y = x @ kernel
        return tf.where(y > 0.2, y, tf.abs(y) * 0.1) @ head

    return _tflite(network, x=table(12))
