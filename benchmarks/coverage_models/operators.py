"""Operators and layers that few networks have, and numbers that are hard on a grid, each in a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import Case, live, pictures, table, waves


def _between(middle: Callable[[Any], Any], *, units: int = 16, spread: float = 1.0) -> Case:
    """Dense, what is tried on [units], Dense."""
    inputs = keras.Input((12,))
    x = middle(layers.Dense(units)(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(x)), table(12, spread=spread))


def _along(middle: Callable[[Any], Any]) -> Case:
    """The same on [16, 12]."""
    inputs = keras.Input((16, 6))
    x = middle(layers.Dense(12)(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(x)), waves(16, 6))


def _picture(middle: Callable[[Any], Any]) -> Case:
    """The same on [16, 16, 8]."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Flatten()(layers.Conv2D(4, 1)(middle(layers.Conv2D(8, 3, padding="same")(inputs))))
    return live(keras.Model(inputs, layers.Dense(3)(x)), pictures(16, 16, 3))


def rms_normalization() -> Case:
    return _along(layers.RMSNormalization())


def layer_normalization_two_axes() -> Case:
    return _along(layers.LayerNormalization(axis=[1, 2]))


def layer_normalization_without_scale() -> Case:
    return _along(layers.LayerNormalization(center=False, scale=False))


def group_normalization() -> Case:
    return _picture(layers.GroupNormalization(4))


def instance_normalization() -> Case:
    return _picture(layers.GroupNormalization(-1))


def batch_normalization_other_axis() -> Case:
    return _along(layers.BatchNormalization(axis=1))


def local_response_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((16, 16, 3))
    x = tf.nn.local_response_normalization(k.Conv2D(8, 3, activation="relu")(inputs))
    return live(tf_keras.Model(inputs, k.Dense(3)(k.GlobalAveragePooling2D()(x))), pictures(16, 16, 3))


def unit_normalization_other_axis() -> Case:
    return _along(layers.UnitNormalization(axis=1))


def standardised_by_hand() -> Case:
    return _along(lambda x: (x - ops.mean(x, -1, keepdims=True)) / (ops.std(x, -1, keepdims=True) + 1e-5))


def minimum_maximum_scaled() -> Case:
    def scaled(x: Any) -> Any:
        low, high = ops.min(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)
        return (x - low) / (high - low + 1e-6)

    return _between(scaled)


def squeeze_and_excite() -> Case:
    def gate(x: Any) -> Any:
        s = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return x * layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="relu")(s))

    return _picture(gate)


def channel_and_spatial_attention() -> Case:
    def attention(x: Any) -> Any:
        mlp = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(8)])
        x = x * ops.sigmoid(mlp(ops.mean(x, (1, 2), keepdims=True)) + mlp(ops.max(x, (1, 2), keepdims=True)))
        around = ops.concatenate([ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)], -1)
        return x * layers.Conv2D(1, 5, padding="same", activation="sigmoid")(around)

    return _picture(attention)


def concatenation_of_unlike_ranges() -> Case:
    return _between(lambda x: ops.concatenate([x, 100 * ops.tanh(x), 0.01 * ops.sigmoid(x), x * x], -1))


def sum_of_unlike_ranges() -> Case:
    return _between(lambda x: x + 50 * ops.sigmoid(x[:, ::-1]) + 0.02 * ops.relu(x))


def product_of_three() -> Case:
    return _between(lambda x: x * ops.sigmoid(x) * ops.tanh(x))


def constant_for_every_place() -> Case:
    rng = np.random.default_rng(0)
    mask = rng.uniform(0.5, 1.5, (1, 16, 16, 1)).astype("float32")
    grid = rng.normal(size=(1, 16, 16, 8)).astype("float32")
    return _picture(lambda x: x * mask + grid)


def coordinates_appended() -> Case:
    at = np.stack(np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 16)), -1)[None].astype("float32")

    def coordinates(x: Any) -> Any:
        return ops.concatenate([x, ops.zeros_like(x[..., :2]) + at], axis=-1)

    return _picture(coordinates)


def einsum_bilinear() -> Case:
    inputs = keras.Input((16, 6))
    x = layers.Dense(8)(inputs)
    kernel = np.random.default_rng(0).normal(size=(8, 8, 4)).astype("float32") / 8
    return live(keras.Model(inputs, layers.Dense(3)(ops.einsum("bsi,ijk,bsj->bk", x, kernel, x))), waves(16, 6))


def einsum_dense_heads() -> Case:
    return _along(lambda x: layers.EinsumDense("abcd,cde->abe", (16, 10), bias_axes="e")(
        layers.EinsumDense("abc,cde->abde", (16, 2, 6), bias_axes="de", activation="gelu")(x)
    ))  # fmt: skip


def outer_product() -> Case:
    return _between(lambda x: layers.Flatten()(ops.expand_dims(x, 1) * ops.expand_dims(ops.tanh(x), 2)), units=6)


def gram_matrix() -> Case:
    def gram(x: Any) -> Any:
        flat = ops.reshape(x, (-1, 256, 8))
        return ops.reshape(ops.matmul(ops.transpose(flat, (0, 2, 1)), flat) / 256, (-1, 8, 8, 1))

    return _picture(gram)


def top_k_and_gather() -> Case:
    return _between(lambda x: ops.top_k(x, 5)[0])


def sorted_values() -> Case:
    return _between(lambda x: ops.sort(x, axis=-1))


def argmax_and_one_hot() -> Case:
    return _between(lambda x: ops.concatenate([x, ops.one_hot(ops.argmax(x, -1), 16)], -1))


def class_index_output() -> Case:
    inputs = keras.Input((12,))
    x = layers.Dense(5)(inputs)
    model = keras.Model(inputs, {"scores": ops.softmax(x), "label": ops.argmax(x, axis=-1)})
    return live(model, table(12))


def comparison_and_where() -> Case:
    return _between(lambda x: ops.where(x > 0.5, 2 * x, -0.5 * ops.square(x)))


def cumulative_sum() -> Case:
    return _along(lambda x: ops.cumsum(x, axis=1))


def rolled() -> Case:
    return _picture(lambda x: x - 0.5 * ops.roll(x, 1, axis=2))


def tiled_and_repeated() -> Case:
    return _along(
        lambda x: ops.concatenate(
            [ops.tile(ops.mean(x, 1, keepdims=True), (1, 16, 1)), ops.repeat(x[:, ::2], 2, 1)], -1
        )
    )


def padded_by_a_value() -> Case:
    return _picture(lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-1.0))


def unstacked() -> Case:
    return _along(
        lambda x: ops.stack(
            [a * b for a, b in zip(ops.unstack(x, axis=1)[:8], ops.unstack(x, axis=1)[8:], strict=True)], 1
        )
    )


def powers_and_roots() -> Case:
    return _between(lambda x: ops.concatenate([ops.power(ops.abs(x), 1.7), ops.sqrt(ops.abs(x) + 0.1), x**3], -1))


def logarithm_of_sum() -> Case:
    return _between(lambda x: ops.concatenate([x, ops.logsumexp(x, axis=-1, keepdims=True)], -1))


def reciprocal_and_exponential() -> Case:
    return _between(lambda x: 1.0 / (1.0 + ops.exp(-2.0 * x)) + ops.log1p(ops.exp(x)))


def trigonometry() -> Case:
    return _between(lambda x: ops.sin(x) + ops.cos(2 * x) + ops.arctan(x))


def floor_and_modulo() -> Case:
    return _between(lambda x: ops.concatenate([ops.floor(x), ops.mod(x, 1.0), ops.round(2 * x)], -1))


def error_function() -> Case:
    return _between(lambda x: 0.5 * x * (1 + ops.erf(x / np.sqrt(2.0))))


def variance_pooling() -> Case:
    return _along(
        lambda x: ops.concatenate([ops.mean(x, 1), ops.std(x, 1), ops.var(x, 1), ops.max(x, 1), ops.min(x, 1)], -1)
    )


def generalised_mean_pooling() -> Case:
    return _picture(lambda x: ops.power(ops.mean(ops.power(ops.maximum(x, 1e-6), 3.0), (1, 2), keepdims=True), 1 / 3))


def norms() -> Case:
    return _along(
        lambda x: ops.concatenate([ops.norm(x, axis=-1, keepdims=True), ops.norm(x, ord=1, axis=-1, keepdims=True)], -1)
    )


def cosine_similarity_head() -> Case:
    inputs = keras.Input((16,))
    x = ops.normalize(layers.Dense(12)(inputs), axis=-1)
    prototypes = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
    prototypes /= np.linalg.norm(prototypes, axis=0)
    return live(keras.Model(inputs, 16.0 * ops.matmul(x, prototypes)), table(16))


def resized_and_cropped() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.CenterCrop(16, 16)(layers.Resizing(20, 20)(inputs))
    x = layers.Conv2D(8, 3, strides=2)(x)
    x = ops.image.resize(x, (14, 14), interpolation="nearest")
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x))), pictures(24, 24, 3))


def bicubic_resizing() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Resizing(16, 16, interpolation="bicubic")(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), pictures(24, 24, 3))


def grey_picture() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(ops.image.rgb_to_grayscale(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), pictures(24, 24, 3))


def separable_3d_pooling() -> Case:
    inputs = keras.Input((6, 10, 10, 2))
    x = layers.AveragePooling3D(2)(layers.Conv3D(6, 3, padding="same", activation="relu")(inputs))
    x = layers.Conv3DTranspose(4, 2, strides=2)(layers.ZeroPadding3D(1)(x))
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling3D()(x))), pictures(6, 10, 10, 2))


def locally_connected_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((12, 12, 2))
    x = k.LocallyConnected2D(4, 3, activation="relu")(inputs)
    return live(tf_keras.Model(inputs, k.Dense(3)(k.Flatten()(x))), pictures(12, 12, 2))


def transposed_convolutions() -> Case:
    return _picture(
        lambda x: layers.Conv2DTranspose(6, 3, strides=2, output_padding=1, padding="same", activation="relu")(
            layers.Conv2DTranspose(6, 4, strides=1, padding="valid")(layers.MaxPooling2D(2)(x))
        )
    )


def dilated_depthwise() -> Case:
    return _picture(lambda x: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2)(x))


def weights_of_unlike_channels() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    scale = np.geomspace(0.01, 10, 8).astype("float32")
    x = layers.Conv2D(8, 3, activation="relu")(x * scale)
    return live(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), pictures(16, 16, 3))


def rare_large_values() -> Case:
    return _between(lambda x: ops.relu(x) + 0.02 * ops.exp(ops.minimum(x, 6.0)))


def squared_relu() -> Case:
    return _between(lambda x: ops.square(ops.relu(x)))


def gated_linear_units() -> Case:
    def gated(x: Any) -> Any:
        a, b = ops.split(x, 2, axis=-1)
        return a * ops.sigmoid(b)

    return _between(gated)


def soft_argmax_keypoints() -> Case:
    def expected(x: Any) -> Any:
        heat = ops.softmax(ops.reshape(4 * x, (-1, 256, 8)), axis=1)
        at = np.linspace(-1, 1, 16, dtype="float32")
        places = np.stack(np.meshgrid(at, at), -1).reshape(256, 2)
        return ops.reshape(ops.einsum("bpc,pk->bck", heat, places), (-1, 8, 2, 1))

    return _picture(expected)


def detection_boxes_decoded() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(inputs)
    raw = ops.reshape(layers.Conv2D(7, 1)(x), (-1, 64, 7))
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(1, 64, 2).astype("float32")
    centre = (ops.sigmoid(raw[..., :2]) * 2 - 0.5 + grid) * 2
    size = ops.square(ops.sigmoid(raw[..., 2:4]) * 2) * 4
    boxes = ops.concatenate([centre - size / 2, centre + size / 2, ops.sigmoid(raw[..., 4:])], -1)
    return live(keras.Model(inputs, boxes), pictures(16, 16, 3))


def distribution_focal_head() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="silu")(inputs)
    bins = ops.softmax(ops.reshape(layers.Conv2D(32, 1)(x), (-1, 64, 4, 8)), axis=-1)
    distances = ops.sum(bins * np.arange(8, dtype="float32"), axis=-1)
    return live(keras.Model(inputs, distances), pictures(16, 16, 3))
