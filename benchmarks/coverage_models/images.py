"""Pictures to pictures, embeddings or text: networks of keras.io's examples, written small."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import SAMPLES, Case, live, pictures


def unet() -> Case:
    inputs = x = keras.Input((32, 32, 3))
    skips = []
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
        x = layers.Dropout(0.3)(layers.MaxPool2D(2)(skips[-1]))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    for skip in reversed(skips):
        x = layers.Conv2DTranspose(skip.shape[-1], 3, 2, padding="same")(x)
        x = layers.concatenate([x, skip])
        x = layers.Conv2D(skip.shape[-1], 3, padding="same", activation="relu")(x)
    return live(keras.Model(inputs, layers.Conv2D(3, 1, padding="same")(x)), pictures(32, 32, 3))


def oxford_pets_xception_unet() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(inputs)))
    previous = x
    x = layers.BatchNormalization()(layers.SeparableConv2D(16, 3, padding="same")(layers.Activation("relu")(x)))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.add([x, layers.Conv2D(16, 1, strides=2, padding="same")(previous)])
    for filters in (16, 8):
        previous = x
        x = layers.BatchNormalization()(
            layers.Conv2DTranspose(filters, 3, padding="same")(layers.Activation("relu")(x))
        )
        residual = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(previous))
        x = layers.add([layers.UpSampling2D(2)(x), residual])
    return live(keras.Model(inputs, layers.Conv2D(3, 3, activation="softmax", padding="same")(x)), pictures(32, 32, 3))


def deeplab_v3() -> Case:
    inputs = keras.Input((32, 32, 3))
    low = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(low)
    pooled = layers.AveragePooling2D(pool_size=(8, 8))(x)
    pooled = layers.UpSampling2D((8, 8), interpolation="bilinear")(layers.Conv2D(8, 1, activation="relu")(pooled))
    branches = [layers.Conv2D(8, 3, dilation_rate=r, padding="same", activation="relu")(x) for r in (1, 2, 3)]
    x = layers.Conv2D(8, 1, activation="relu")(layers.Concatenate()([pooled, *branches]))
    x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(x), layers.Conv2D(4, 1)(low)])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return live(keras.Model(inputs, layers.Conv2D(4, 1)(x)), pictures(32, 32, 3))


class SubPixel(tf_keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.nn.depth_to_space(x, 2)


def super_resolution_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = tf_keras.Input((24, 24, 1))
    x = k.Conv2D(16, 5, activation="relu", padding="same")(inputs)
    x = k.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = SubPixel()(k.Conv2D(4, 3, padding="same")(x))
    return live(tf_keras.Model(inputs, x), pictures(24, 24, 1))


def super_resolution_residual() -> Case:
    inputs = keras.Input((20, 20, 3))
    first = x = layers.Conv2D(16, 3, padding="same")(layers.Rescaling(1 / 255)(inputs))
    for _ in range(2):
        x = x + layers.Conv2D(16, 3, padding="same")(layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    x = layers.Conv2D(64, 3, padding="same")(x + first)
    x = ops.reshape(x, (-1, 20, 20, 2, 2, 16))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 40, 40, 16))
    x = ops.clip(layers.Rescaling(255.0)(layers.Conv2D(3, 3, padding="same")(x)), 0.0, 255.0)
    return live(keras.Model(inputs, x), pictures(20, 20, 3, top=255))


def low_light_zero_dce() -> Case:
    inputs = keras.Input((24, 24, 3))
    a = layers.Conv2D(8, 3, activation="relu", padding="same")(inputs)
    b = layers.Conv2D(8, 3, activation="relu", padding="same")(a)
    c = layers.Conv2D(8, 3, activation="relu", padding="same")(layers.Concatenate()([a, b]))
    curves = layers.Conv2D(12, 3, activation="tanh", padding="same")(c)
    x = inputs
    for i in range(4):
        x = x + curves[:, :, :, 3 * i : 3 * i + 3] * (ops.square(x) - x)
    return live(keras.Model(inputs, x), pictures(24, 24, 3))


def denoising_autoencoder() -> Case:
    inputs = keras.Input((28, 28, 1))
    x = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(16, 3, activation="relu", padding="same")(inputs))
    x = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(16, 3, activation="relu", padding="same")(x))
    x = layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same")(x)
    return live(keras.Model(inputs, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)), pictures(28, 28, 1))


class Sampling(layers.Layer):
    def call(self, inputs: Any, training: bool = False) -> Any:
        mean, spread = inputs
        if not training:
            return mean
        return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean))


def variational_autoencoder() -> Case:
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, activation="relu", strides=2, padding="same")(inputs)
    x = layers.Dense(16, "relu")(
        layers.Flatten()(layers.Conv2D(16, 3, activation="relu", strides=2, padding="same")(x))
    )
    mean, spread = layers.Dense(4)(x), layers.Dense(4)(x)
    z = Sampling()([mean, spread])
    y = layers.Reshape((7, 7, 16))(layers.Dense(7 * 7 * 16, "relu")(z))
    y = layers.Conv2DTranspose(8, 3, activation="relu", strides=2, padding="same")(y)
    y = layers.Conv2DTranspose(1, 3, activation="sigmoid", strides=2, padding="same")(y)
    return live(keras.Model(inputs, [mean, spread, y]), pictures(28, 28, 1))


def gan_generator() -> Case:
    inputs = keras.Input((32,))
    x = layers.Reshape((7, 7, 16))(layers.LeakyReLU(negative_slope=0.2)(layers.Dense(7 * 7 * 16)(inputs)))
    for _ in range(2):
        x = layers.LeakyReLU(negative_slope=0.2)(layers.Conv2DTranspose(16, 4, strides=2, padding="same")(x))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(SAMPLES, 32)).astype(np.float32)
    return live(keras.Model(inputs, layers.Conv2D(1, 7, padding="same", activation="tanh")(x)), noise)


def gan_discriminator_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = x = tf_keras.Input((28, 28, 1))
    for filters in (8, 16):
        x = k.Dropout(0.3)(k.LeakyReLU()(k.Conv2D(filters, 5, strides=2, padding="same")(x)))
    return live(tf_keras.Model(inputs, k.Dense(1)(k.Flatten()(x))), pictures(28, 28, 1))


class Reflect(layers.Layer):
    """Padding by reflection, as in CycleGAN."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def call(self, x: Any) -> Any:
        around = [[0, 0], [self.width, self.width], [self.width, self.width], [0, 0]]
        return ops.pad(x, around, mode="reflect")


def cycle_gan_generator() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.Activation("relu")(layers.GroupNormalization(-1)(layers.Conv2D(8, 7)(Reflect(3)(inputs))))
    x = layers.Activation("relu")(layers.GroupNormalization(-1)(layers.Conv2D(16, 3, strides=2, padding="same")(x)))
    y = layers.GroupNormalization(-1)(layers.Conv2D(16, 3)(Reflect(1)(x)))
    x = layers.add([x, y])
    x = layers.Activation("relu")(layers.GroupNormalization(-1)(layers.Conv2DTranspose(8, 3, 2, padding="same")(x)))
    x = layers.Conv2D(3, 7, activation="tanh")(Reflect(3)(x))
    return live(keras.Model(inputs, x), 2 * pictures(24, 24, 3) - 1)


def siamese_distance() -> Case:
    tower_input = keras.Input((28, 28, 1))
    x = layers.AveragePooling2D(2)(layers.Conv2D(4, 5, activation="tanh")(layers.BatchNormalization()(tower_input)))
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Conv2D(8, 5, activation="tanh")(x)))
    tower = keras.Model(tower_input, layers.Dense(10, activation="tanh")(layers.BatchNormalization()(x)))
    a, b = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))

    def distance(vectors: Any) -> Any:
        squares = ops.sum(ops.square(vectors[0] - vectors[1]), axis=1, keepdims=True)
        return ops.sqrt(ops.maximum(squares, keras.backend.epsilon()))

    x = layers.BatchNormalization()(layers.Lambda(distance)([tower(a), tower(b)]))
    model = keras.Model([a, b], layers.Dense(1, activation="sigmoid")(x))
    return live(model, pictures(28, 28, 1), pictures(28, 28, 1, seed=1))


def metric_learning() -> Case:
    inputs = x = keras.Input((24, 24, 3))
    for filters in (8, 16):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.UnitNormalization()(layers.Dense(8)(layers.GlobalAveragePooling2D()(x)))
    return live(keras.Model(inputs, x), pictures(24, 24, 3))


def face_embedding_tf_keras() -> Case:
    k = tf_keras.layers
    inputs = x = tf_keras.Input((32, 32, 3))
    for filters in (8, 16):
        x = k.PReLU(shared_axes=[1, 2])(k.BatchNormalization()(k.Conv2D(filters, 3, strides=2, padding="same")(x)))
    x = k.BatchNormalization()(k.Dense(16)(k.Flatten()(x)))
    x = k.Lambda(lambda v: tf.math.l2_normalize(v, axis=1))(x)
    return live(tf_keras.Model(inputs, x), 2 * pictures(32, 32, 3) - 1)


def optical_characters() -> Case:
    inputs = keras.Input((48, 16, 1))
    x = layers.MaxPooling2D((2, 2))(layers.Conv2D(8, 3, activation="relu", padding="same")(inputs))
    x = layers.MaxPooling2D((2, 2))(layers.Conv2D(16, 3, activation="relu", padding="same")(x))
    x = layers.Dense(24, activation="relu")(layers.Reshape((12, 64))(x))
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True, dropout=0.25))(x)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True, dropout=0.25))(x)
    return live(keras.Model(inputs, layers.Dense(12, activation="softmax")(x)), pictures(48, 16, 1))
