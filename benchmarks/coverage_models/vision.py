"""Pictures to classes: networks of the field and of keras.io's examples, written small."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.coverage_models.making import Case, live, pictures


def _patches(x: Any, size: int, width: int) -> Any:
    """[height, width, c] -> [patches, width]."""
    x = layers.Conv2D(width, size, strides=size)(x)
    return layers.Reshape((-1, width))(x)


def _mlp(x: Any, *units: int) -> Any:
    for count in units:
        x = layers.Dropout(0.1)(layers.Dense(count, activation=keras.activations.gelu)(x))
    return x


class Positions(layers.Layer):
    """Learnt vectors for every position are added."""

    def build(self, shape: Any) -> None:
        self.vectors = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal", name="vectors")

    def call(self, x: Any) -> Any:
        return x + self.vectors


class ClassToken(layers.Layer):
    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="token")

    def call(self, x: Any) -> Any:
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)


def _encoder(x: Any, width: int, depth: int = 2) -> Any:
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([layers.MultiHeadAttention(2, width // 2, dropout=0.1)(y, y), x])
        x = layers.Add()([_mlp(layers.LayerNormalization(epsilon=1e-6)(x), 2 * width, width), x])
    return layers.LayerNormalization(epsilon=1e-6)(x)


class Patches(layers.Layer):
    """As in keras.io's vision transformer: `ops.image.extract_patches`."""

    def call(self, images: Any) -> Any:
        patches = ops.image.extract_patches(images, size=6)
        return ops.reshape(patches, (ops.shape(images)[0], 16, 108))


class PatchEncoder(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.projection, self.position = layers.Dense(32), layers.Embedding(16, 32)

    def call(self, patch: Any) -> Any:
        positions = ops.expand_dims(ops.arange(0, 16, 1), axis=0)
        return self.projection(patch) + self.position(positions)


def vision_transformer() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = _encoder(PatchEncoder()(Patches()(inputs)), 32)
    x = _mlp(layers.Flatten()(x), 32)
    return live(keras.Model(inputs, layers.Dense(6)(x)), pictures(24, 24, 3))


def vision_transformer_class_token() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = _encoder(Positions()(ClassToken()(_patches(inputs, 6, 32))), 32)
    return live(keras.Model(inputs, layers.Dense(6)(x[:, 0])), pictures(24, 24, 3))


def mlp_mixer() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = _patches(inputs, 6, 24)
    for _ in range(2):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        x = x + layers.Permute((2, 1))(layers.Dense(16)(layers.Dense(32, "gelu")(y)))
        x = x + layers.Dense(24)(layers.Dense(48, "gelu")(layers.LayerNormalization()(x)))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return live(keras.Model(inputs, layers.Dense(6)(x)), pictures(24, 24, 3))


def conv_mixer() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(24, 3, strides=3)(inputs)))
    for _ in range(2):
        y = layers.Activation("gelu")(layers.DepthwiseConv2D(5, padding="same")(x))
        x = layers.Add()([layers.BatchNormalization()(y), x])
        x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(24, 1)(x)))
    return live(keras.Model(inputs, layers.Dense(6)(layers.GlobalAvgPool2D()(x))), pictures(24, 24, 3))


def gmlp() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = _patches(inputs, 6, 24)
    for _ in range(2):
        y = layers.Dense(48, "gelu")(layers.LayerNormalization()(x))
        u, v = ops.split(y, 2, axis=-1)
        v = layers.LayerNormalization()(v)
        v = ops.transpose(layers.Dense(16, bias_initializer="ones")(ops.transpose(v, (0, 2, 1))), (0, 2, 1))
        x = x + layers.Dense(24)(u * v)
    return live(keras.Model(inputs, layers.Dense(6)(layers.GlobalAveragePooling1D()(x))), pictures(24, 24, 3))


def external_attention() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = Positions()(_patches(inputs, 6, 32))
    for _ in range(2):
        y = ops.transpose(ops.reshape(layers.Dense(64)(layers.LayerNormalization()(x)), (-1, 16, 4, 16)), (0, 2, 1, 3))
        y = layers.Softmax(axis=2)(layers.Dense(16)(y))
        y = layers.Lambda(lambda v: v / (1e-9 + ops.sum(v, axis=-1, keepdims=True)))(y)
        y = ops.reshape(ops.transpose(layers.Dense(16)(y), (0, 2, 1, 3)), (-1, 16, 64))
        x = x + layers.Dense(32)(y)
    return live(keras.Model(inputs, layers.Dense(6)(layers.GlobalAveragePooling1D()(x))), pictures(24, 24, 3))


class Windows(layers.Layer):
    """Attention inside shifted windows with a bias of relative positions, as in Swin."""

    def __init__(self, side: int, size: int, shift: int):
        super().__init__()
        self.side, self.size, self.shift = side, size, shift

    def build(self, shape: Any) -> None:
        self.width = shape[-1]
        self.qkv, self.out = layers.Dense(3 * self.width), layers.Dense(self.width)
        span = 2 * self.size - 1
        self.bias_table = self.add_weight(shape=(span * span, 2), initializer="random_normal", name="bias_table")
        at = np.stack(np.meshgrid(np.arange(self.size), np.arange(self.size), indexing="ij")).reshape(2, -1)
        relative = (at[:, :, None] - at[:, None, :]) + self.size - 1
        self.index = relative[0] * span + relative[1]
        region = np.zeros((self.side, self.side), int)
        if self.shift:
            region[-self.size :], region[:, -self.size :] = 1, region[:, -self.size :] + 2
        cells = self.side // self.size
        region = region.reshape(cells, self.size, cells, self.size).transpose(0, 2, 1, 3).reshape(-1, self.size**2)
        self.mask = np.where(region[:, None] == region[:, :, None], 0.0, -100.0).astype("float32")[None, :, None]

    def call(self, x: Any) -> Any:
        side, size, cells, width = self.side, self.size, self.side // self.size, self.width
        x = ops.roll(x, (-self.shift, -self.shift), axis=(1, 2)) if self.shift else x
        x = ops.reshape(x, (-1, cells, size, cells, size, width))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, cells * cells, size * size, width))
        q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        q, k, v = (
            ops.transpose(ops.reshape(t, (-1, cells * cells, size * size, 2, width // 2)), (0, 1, 3, 2, 4))
            for t in (q, k, v)
        )
        scores = ops.matmul(q * (width // 2) ** -0.5, ops.transpose(k, (0, 1, 2, 4, 3)))
        bias = ops.transpose(ops.take(self.bias_table, self.index, axis=0), (2, 0, 1))
        scores = scores + bias[None, None] + self.mask
        x = ops.transpose(ops.matmul(ops.softmax(scores), v), (0, 1, 3, 2, 4))
        x = ops.reshape(
            self.out(ops.reshape(x, (-1, cells * cells, size * size, width))), (-1, cells, cells, size, size, width)
        )
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side, side, width))
        return ops.roll(x, (self.shift, self.shift), axis=(1, 2)) if self.shift else x


def swin() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.LayerNormalization()(layers.Conv2D(16, 2, strides=2)(inputs))
    for shift in (0, 2):
        x = x + Windows(8, 4, shift)(layers.LayerNormalization()(x))
        x = x + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    return live(keras.Model(inputs, layers.Dense(6)(layers.GlobalAveragePooling2D()(x))), pictures(16, 16, 3))


def compact_convolutional_transformer() -> Case:
    inputs = x = keras.Input((24, 24, 3))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, activation="relu")(x)
        x = layers.MaxPooling2D(3, 2, "same")(layers.ZeroPadding2D(1)(x))
    x = _encoder(Positions()(layers.Reshape((-1, 32))(x)), 32)
    weights = ops.softmax(layers.Dense(1)(x), axis=1)
    pooled = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), 1)
    return live(keras.Model(inputs, layers.Dense(6)(pooled)), pictures(24, 24, 3))


class Involution(layers.Layer):
    """As in keras.io's example: a kernel for every position, made from the pixel."""

    def build(self, shape: Any) -> None:
        self.height, self.width, self.channels = shape[1:]
        self.make = keras.Sequential(
            [layers.Conv2D(4, 1), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(9, 1)]
        )
        self.make.build(shape)

    def call(self, x: Any) -> Any:
        kernel = ops.reshape(self.make(x), (-1, self.height, self.width, 9, 1, 1))
        patches = ops.image.extract_patches(x, 3, strides=1, padding="same")
        patches = ops.reshape(patches, (-1, self.height, self.width, 9, self.channels, 1))
        product = ops.sum(kernel * patches, axis=3)
        return ops.reshape(product, (-1, self.height, self.width, self.channels))


def involution() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.MaxPooling2D(2)(layers.ReLU()(Involution()(inputs)))
    x = layers.Flatten()(layers.ReLU()(Involution()(x)))
    return live(keras.Model(inputs, layers.Dense(6)(layers.Dense(24, "relu")(x))), pictures(16, 16, 3))
