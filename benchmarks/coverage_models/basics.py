"""Ways to build a model: sequential, functional, nested, shared, subclassed, with custom layers or several inputs."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import Case, categories, live, pictures, table, tokens, waves


def mlp_sequential() -> Case:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, "relu"), layers.Dense(32, "tanh"), layers.Dense(5)])
    return live(model, table(16))


def mlp_tf_keras() -> Case:
    dense = tf_keras.layers.Dense
    model = tf_keras.Sequential([dense(32, "relu", input_shape=(16,)), dense(16, "elu"), dense(4, "softmax")])
    return live(model, table(16))


def mnist_convnet() -> Case:
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    return live(model, pictures(28, 28, 1))


def cnn_tf_keras_bn() -> Case:
    k = tf_keras.layers
    inputs = x = tf_keras.Input((24, 24, 3))
    for filters in (8, 16):
        x = k.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = k.ReLU(max_value=6.0)(k.BatchNormalization()(x))
        x = k.DepthwiseConv2D(3, padding="same")(x)
        x = k.LeakyReLU(0.1)(k.BatchNormalization()(x))
    return live(tf_keras.Model(inputs, k.Dense(6)(k.GlobalAveragePooling2D()(x))), pictures(24, 24, 3))


def built_on_first_call() -> Case:
    model = keras.Sequential([layers.Conv2D(8, 3, activation="relu"), layers.GlobalMaxPooling2D(), layers.Dense(3)])
    samples = pictures(16, 16, 3)
    model(samples[:1])
    return live(model, samples)


def nested_backbone() -> Case:
    backbone = keras.Sequential(
        [keras.Input((24, 24, 3)), layers.Conv2D(8, 3, strides=2), layers.BatchNormalization(), layers.ReLU()],
        name="backbone",
    )
    augmentation = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1)])
    inputs = keras.Input((24, 24, 3))
    x = backbone(layers.Rescaling(1 / 127.5, -1)(augmentation(inputs)), training=False)
    return live(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))), pictures(24, 24, 3, top=255))


def shared_layers() -> Case:
    a, b = keras.Input((12,)), keras.Input((12,))
    tower = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(8)])
    one, two = tower(a), tower(b)
    joined = layers.Concatenate()([one, two, layers.Multiply()([one, two]), layers.Subtract()([one, two])])
    return live(keras.Model([a, b], layers.Dense(1, "sigmoid")(joined)), table(12), 3 * table(12, seed=1))


class Block(layers.Layer):
    def __init__(self, units: int, **options: Any):
        super().__init__(**options)
        self.first, self.second = layers.Dense(4 * units, "gelu"), layers.Dense(units)
        self.norm = layers.LayerNormalization()

    def call(self, x: Any) -> Any:
        return x + self.second(self.first(self.norm(x)))


def custom_layer_of_layers() -> Case:
    inputs = keras.Input((10, 16))
    x = Block(16)(Block(16)(inputs))
    return live(keras.Model(inputs, layers.Dense(3)(ops.mean(x, axis=1))), waves(10, 16))


class Scaled(layers.Layer):
    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 8), initializer="glorot_uniform", name="kernel")
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def call(self, x: Any) -> Any:
        return ops.tanh(ops.matmul(x, self.kernel) * ops.exp(self.temperature) * 0.3) ** 2


def custom_layer_of_weights() -> Case:
    inputs = keras.Input((12,))
    return live(keras.Model(inputs, layers.Dense(2)(Scaled()(inputs))), table(12))


class TfLayer(tf_keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.w = self.add_weight("w", (shape[-1], 12))
        self.b = self.add_weight("bias", (12,), initializer="zeros")

    def call(self, x: Any) -> Any:
        y = tf.nn.relu(tf.matmul(x, self.w) + self.b)
        return tf.concat([y, tf.reduce_max(y, -1, keepdims=True)], -1)


def custom_tf_keras_layer() -> Case:
    inputs = tf_keras.Input((9,))
    return live(tf_keras.Model(inputs, tf_keras.layers.Dense(3)(TfLayer()(inputs))), table(9))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = [layers.Conv2D(8, 3, strides=2, padding="same") for _ in range(3)]
        self.head = layers.Dense(4)

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: ARG002
        for convolution in self.convolutions:
            x = ops.relu(convolution(x))
        x = ops.reshape(x, (ops.shape(x)[0], -1))
        return self.head(x)


def subclassed() -> Case:
    model, samples = Subclassed(), pictures(24, 24, 3)
    model(samples[:1])
    return live(model, samples)


class SubclassedDict(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = layers.Embedding(50, 8), layers.Dense(16, "relu")
        self.heads = {"score": layers.Dense(1), "kind": layers.Dense(3)}

    def call(self, inputs: Any) -> Any:
        x = ops.concatenate([ops.mean(self.embed(inputs["words"]), 1), inputs["numbers"]], -1)
        x = self.mix(x)
        return {name: head(x) for name, head in self.heads.items()}


def subclassed_dict() -> Case:
    words, numbers = keras.Input((6,), dtype="int32", name="words"), keras.Input((5,), name="numbers")
    model = keras.Model({"numbers": numbers, "words": words}, SubclassedDict()({"words": words, "numbers": numbers}))
    return live(model, table(5), tokens(6, 50))


class TfSubclassed(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tf_keras.layers.Dense(16, "relu"), tf_keras.layers.Dense(16)
        self.out = tf_keras.layers.Dense(2)

    def call(self, x: Any, training: Any = None) -> Any:  # noqa: ARG002
        y = self.a(x)
        return self.out(tf.nn.swish(y + self.b(y)))


def subclassed_tf_keras() -> Case:
    model, samples = TfSubclassed(), table(10)
    model(samples[:1])
    return live(model, samples)


def two_inputs_two_outputs() -> Case:
    picture, facts = keras.Input((16, 16, 3), name="picture"), keras.Input((6,), name="facts")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, activation="relu")(picture))
    x = layers.Concatenate()([x, layers.Dense(8, "relu")(facts)])
    model = keras.Model([picture, facts], {"age": layers.Dense(1, "softplus")(x), "kind": layers.Dense(4)(x)})
    return live(model, pictures(16, 16, 3), table(6))


def intermediate_outputs() -> Case:
    inputs = keras.Input((24, 24, 3))
    a = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    b = layers.Conv2D(8, 3, strides=2, activation="relu")(a)
    return live(keras.Model(inputs, [a, b, layers.GlobalMaxPooling2D()(b)]), pictures(24, 24, 3))


def residual_functional() -> Case:
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        y = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(y))
        x = layers.Activation("relu")(x + y)
    return live(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))), pictures(24, 24, 3))


def mixed_precision() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu", dtype="mixed_float16")(inputs)
    x = layers.GlobalAveragePooling2D(dtype="mixed_float16")(x)
    return live(keras.Model(inputs, layers.Dense(3, dtype="float32")(x)), pictures(16, 16, 3))


def fixed_batch_of_one() -> Case:
    inputs = keras.Input(batch_shape=(1, 16, 16, 3))
    x = ops.reshape(layers.Conv2D(4, 3)(inputs), (1, -1))
    model = keras.Model(inputs, layers.Dense(3)(x))
    return live(model, pictures(16, 16, 3))


def lambda_layer() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.Lambda(lambda x: (x - 0.5) * 4.0)(inputs)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.Lambda(lambda x: ops.mean(ops.square(x), axis=(1, 2)))(x)
    return live(keras.Model(inputs, layers.Dense(3)(x)), pictures(16, 16, 3))


def uint8_input() -> Case:
    inputs = keras.Input((20, 20, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255.0)(ops.cast(inputs, "float32"))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    return live(keras.Model(inputs, layers.Dense(3)(x)), pictures(20, 20, 3, top=255).astype("uint8"))


def weight_normalised() -> Case:
    inputs = keras.Input((16, 16, 3))
    x = layers.SpectralNormalization(layers.Conv2D(8, 3, activation="relu"))(inputs)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return live(keras.Model(inputs, layers.Dense(3)(x)), pictures(16, 16, 3))


def every_activation() -> Case:
    inputs = keras.Input((16,))
    names = [
        *("relu", "relu6", "elu", "selu", "softplus", "softsign", "silu", "gelu", "tanh", "sigmoid", "mish"),
        *("hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid", "celu", "squareplus", "sparse_plus"),
        *("tanh_shrink", "soft_shrink", "hard_shrink", "threshold", "exponential", "softmax", "log_softmax"),
        *("sparsemax", "sparse_sigmoid"),
    ]
    branches = []
    for name in names:
        x = layers.Dense(8)(inputs)
        if name == "threshold":
            branches.append(ops.threshold(x, 0.3, 0.0))
        else:
            branches.append(layers.Activation(name)(x))
    return live(keras.Model(inputs, layers.Dense(6)(layers.Concatenate()(branches))), table(16))


def categorical_input() -> Case:
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(20, 6)(inputs))
    return live(keras.Model(inputs, layers.Dense(2)(layers.Dense(16, "relu")(x))), categories(20, 10, 5, 15))
