"""Tables, recommendations, graphs and points."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers, ops

from benchmarks.coverage_models.making import SAMPLES, Case, categories, columns, live, table


def wide_and_deep() -> Case:
    numbers, kind = keras.Input((8,), name="numbers"), keras.Input((1,), dtype="int32", name="kind")
    wide = layers.Concatenate()([numbers, layers.CategoryEncoding(12, "one_hot")(kind)])
    deep = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(12, 4)(kind))])
    for units in (32, 32):
        deep = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(deep)))
    x = layers.concatenate([layers.BatchNormalization()(wide), deep])
    return live(keras.Model([numbers, kind], layers.Dense(2, "softmax")(x)), table(8), categories(12))


def deep_and_cross() -> Case:
    numbers, kinds = keras.Input((6,)), keras.Input((3,), dtype="int32")
    x0 = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(15, 4)(kinds))])
    cross = x0
    for _ in range(2):
        cross = x0 * layers.Dense(x0.shape[-1])(cross) + cross
    deep = layers.Dense(16, "relu")(x0)
    return live(
        keras.Model([numbers, kinds], layers.Dense(1)(layers.Concatenate()([cross, deep]))),
        table(6),
        categories(15, 8, 4),
    )


def factorization_machine() -> Case:
    kinds = keras.Input((5,), dtype="int32")
    offset = kinds + np.array([[0, 10, 20, 30, 40]], "int32")
    v = layers.Embedding(50, 6, embeddings_initializer="normal")(offset) * 10
    square = ops.square(ops.sum(v, axis=1)) - ops.sum(ops.square(v), axis=1)
    linear = ops.sum(layers.Embedding(50, 1)(offset), axis=1)
    out = ops.sigmoid(linear + 0.5 * ops.sum(square, axis=-1, keepdims=True))
    return live(keras.Model(kinds, out), categories(10, 10, 10, 10, 10))


def matrix_factorization() -> Case:
    user, item = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    initial = keras.initializers.RandomNormal(stddev=0.6)
    u, v = (layers.Flatten()(layers.Embedding(40, 8, embeddings_initializer=initial)(x)) for x in (user, item))
    x = layers.Dot(axes=1)([u, v]) + layers.Flatten()(layers.Embedding(40, 1)(user))
    return live(keras.Model([user, item], layers.Activation("sigmoid")(x)), categories(40), categories(40, seed=1))


def two_towers() -> Case:
    a, b = keras.Input((10,)), keras.Input((14,))
    one, two = (ops.normalize(layers.Dense(8)(layers.Dense(24, "relu")(x))) for x in (a, b))
    return live(keras.Model([a, b], ops.sum(one * two, axis=-1, keepdims=True) * 10), table(10), table(14, seed=1))


def tab_transformer() -> Case:
    kinds, numbers = keras.Input((4,), dtype="int32"), keras.Input((5,))
    x = layers.Embedding(20, 16, embeddings_initializer="normal")(kinds) * 10
    x = x + layers.Embedding(4, 16, embeddings_initializer="normal")(ops.arange(4)) * 10
    for _ in range(2):
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([layers.MultiHeadAttention(2, 8)(x, x), x]))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([layers.Dense(16)(layers.Dense(16, "gelu")(x)), x]))
    x = layers.concatenate([layers.Flatten()(x), layers.LayerNormalization(epsilon=1e-6)(numbers)])
    x = layers.Dense(24, "selu")(layers.BatchNormalization()(x))
    return live(keras.Model([kinds, numbers], layers.Dense(1, "sigmoid")(x)), categories(20, 8, 4, 12), table(5))


def many_scalar_inputs() -> Case:
    names = [f"feature_{i}" for i in range(6)]
    inputs = {name: keras.Input((1,), name=name) for name in names}
    x = layers.Concatenate()([layers.Dense(4)(inputs[name]) for name in names])
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(16, "relu")(x)))
    return live(model, *columns(table(6, spread=30.0)))


def structured_data_preprocessing() -> Case:
    age, kind, code = keras.Input((1,)), keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    values = table(1)
    normal = layers.Normalization(mean=float(values.mean()), variance=float(values.var()))(age)
    buckets = layers.Discretization([-1.0, 0.0, 1.0])(age)
    buckets = layers.CategoryEncoding(4, "one_hot")(buckets)
    encoded = layers.CategoryEncoding(8, "one_hot")(kind)
    looked = layers.CategoryEncoding(6, "one_hot")(layers.IntegerLookup(vocabulary=[3, 5, 7, 9, 11])(code))
    x = layers.Dense(16, "relu")(layers.concatenate([normal, buckets, encoded, looked]))
    model = keras.Model([age, kind, code], layers.Dense(1)(x))
    return live(model, values, categories(8), 2 * categories(7, seed=1) + 1)


def columns_of_unlike_scales() -> Case:
    inputs = keras.Input((12,))
    x = layers.BatchNormalization()(inputs)
    return live(keras.Model(inputs, layers.Dense(2)(layers.Dense(24, "relu")(x))), table(12, spread=1e4))


def regression_normalised() -> Case:
    inputs = keras.Input((9,))
    values = table(9, spread=100.0) + 20
    x = layers.Normalization(mean=values.mean(0), variance=values.var(0))(inputs)
    x = layers.Dense(32, "relu")(layers.Dense(32, "relu")(x))
    return live(keras.Model(inputs, layers.Dense(1)(x)), values)


def regression_unnormalised_tf_keras() -> Case:
    dense = tf_keras.layers.Dense
    model = tf_keras.Sequential([dense(32, "relu", input_shape=(9,)), dense(32, "relu"), dense(1)])
    return live(model, table(9, spread=20.0))


def gated_residual_selection() -> Case:
    inputs = keras.Input((6,))
    features = [layers.Dense(12)(inputs[:, i : i + 1]) for i in range(6)]
    v = layers.Concatenate()(features)
    v = layers.Dense(6)(layers.Dense(12, "elu")(v))
    weights = ops.expand_dims(layers.Softmax()(v), -1)
    stacked = ops.stack(features, axis=1)
    x = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), stacked), axis=1)
    return live(keras.Model(inputs, layers.Dense(2)(x)), table(6))


def soft_decision_tree() -> Case:
    inputs = keras.Input((10,))
    decisions = ops.expand_dims(layers.Dense(7, "sigmoid")(layers.BatchNormalization()(inputs)), 2)
    decisions = layers.concatenate([decisions, 1 - decisions], axis=2)
    mu, begin = decisions[:, :1, :], 1
    for level in range(1, 3):
        part = decisions[:, begin : begin + 2**level, :]
        mu = ops.reshape(mu, (-1, 2**level, 1)) * part
        begin += 2**level
    x = layers.Dense(3, use_bias=False)(ops.reshape(mu, (-1, 8)))
    return live(keras.Model(inputs, x), table(10))


def self_normalising() -> Case:
    inputs = x = keras.Input((16,))
    for _ in range(3):
        x = layers.AlphaDropout(0.1)(layers.Dense(24, "selu", kernel_initializer="lecun_normal")(x))
    return live(keras.Model(inputs, layers.Dense(3)(x)), table(16))


def maxout() -> Case:
    inputs = keras.Input((16,))
    x = ops.max(layers.Reshape((12, 3))(layers.Dense(36)(inputs)), axis=-1)
    return live(keras.Model(inputs, layers.Dense(3)(x)), table(16))


def mixture_density() -> Case:
    inputs = keras.Input((6,))
    x = layers.Dense(24, "tanh")(inputs)
    weights, means = layers.Dense(4, "softmax")(x), layers.Dense(4)(x)
    spreads = layers.Dense(4, lambda v: ops.elu(v) + 1 + 1e-6)(x)
    return live(keras.Model(inputs, layers.Concatenate()([weights, means, spreads])), table(6))


def radial_basis() -> Case:
    inputs = keras.Input((4,))
    centres = np.random.default_rng(0).normal(size=(1, 12, 4)).astype("float32") * 2
    squares = ops.sum(ops.square(ops.expand_dims(inputs, 1) - centres), axis=-1)
    return live(keras.Model(inputs, layers.Dense(2)(ops.exp(-0.2 * squares))), table(4))


def neural_radiance_field() -> Case:
    inputs = keras.Input((3,))
    waves = [f(inputs * 2.0**i) for i in range(4) for f in (ops.sin, ops.cos)]
    x0 = x = layers.Concatenate()([inputs, *waves])
    for i in range(3):
        x = layers.Dense(32, "relu")(x)
        x = layers.Concatenate()([x, x0]) if i == 1 else x
    x = layers.Dense(4)(x)
    return live(keras.Model(inputs, [ops.sigmoid(x[:, :3]), ops.relu(x[:, 3:])]), table(3) * 0.5)


def policy_and_value() -> Case:
    inputs = keras.Input((8,))
    x = layers.Dense(32, "relu")(inputs)
    return live(keras.Model(inputs, [layers.Dense(4, "softmax")(x), layers.Dense(1)(x)]), table(8))


def duelling_q_network() -> Case:
    inputs = keras.Input((8,))
    x = layers.Dense(32, "relu")(inputs)
    value, advantage = layers.Dense(1)(x), layers.Dense(4)(x)
    q = value + (advantage - ops.mean(advantage, axis=1, keepdims=True))
    return live(keras.Model(inputs, q), table(8))


def _edges(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, 10, 24), np.sort(np.r_[np.arange(10), rng.integers(0, 10, 14)])])


def graph_convolution() -> Case:
    nodes, adjacency = keras.Input((10, 6)), keras.Input((10, 10))
    x = layers.ReLU()(ops.matmul(adjacency, layers.Dense(12)(nodes)))
    x = ops.matmul(adjacency, layers.Dense(12)(x))
    rng = np.random.default_rng(0)
    links = (rng.random((SAMPLES, 10, 10)) < 0.3) + np.eye(10)
    links = (links / links.sum(-1, keepdims=True)).astype("float32")
    features = table(60).reshape(SAMPLES, 10, 6)
    return live(keras.Model([nodes, adjacency], layers.Dense(3)(layers.GlobalAveragePooling1D()(x))), features, links)


def graph_gather() -> Case:
    nodes = keras.Input((10, 6))
    source, target = _edges()
    x = layers.Dense(12, "relu")(nodes)
    messages = layers.Dense(12, "relu")(ops.concatenate([ops.take(x, source, axis=1), ops.take(x, target, axis=1)], -1))
    sums = np.zeros((10, 24), "float32")
    sums[target, np.arange(24)] = 1 / np.bincount(target, minlength=10)[target]
    x = layers.Dense(12, "relu")(ops.concatenate([x, ops.matmul(sums, messages)], -1))
    return live(keras.Model(nodes, layers.Dense(3)(layers.GlobalMaxPooling1D()(x))), table(60).reshape(SAMPLES, 10, 6))


class GraphAttention(layers.Layer):
    def build(self, *_: Any) -> None:
        self.project = layers.Dense(12, use_bias=False)
        self.left, self.right = layers.Dense(1, use_bias=False), layers.Dense(1, use_bias=False)

    def call(self, x: Any, links: Any) -> Any:
        x = self.project(x)
        scores = ops.leaky_relu(self.left(x) + ops.transpose(self.right(x), (0, 2, 1)), 0.2)
        scores = ops.where(links > 0, scores, -1e9)
        return ops.elu(ops.matmul(ops.softmax(scores, axis=-1), x))


def graph_attention() -> Case:
    nodes, links = keras.Input((10, 6)), keras.Input((10, 10))
    x = GraphAttention()(GraphAttention()(nodes, links), links)
    given = ((np.random.default_rng(0).random((SAMPLES, 10, 10)) < 0.3) + np.eye(10)).astype("float32")
    model = keras.Model([nodes, links], layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return live(model, table(60).reshape(SAMPLES, 10, 6), given)


def message_passing_tf_keras() -> Case:
    k = tf_keras.layers
    nodes = tf_keras.Input((10, 6))
    source, target = _edges()
    x = k.Dense(12, "relu")(nodes)
    messages = tf.gather(x, source, axis=1)
    summed = tf.transpose(tf.math.segment_sum(tf.transpose(messages, (1, 0, 2)), target), (1, 0, 2))
    x = k.GlobalAveragePooling1D()(k.Dense(12, "relu")(tf.concat([x, summed], -1)))
    return live(tf_keras.Model(nodes, k.Dense(3)(x)), table(60).reshape(SAMPLES, 10, 6))


def _cloud(points: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(SAMPLES, points, 3))
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return (found * rng.uniform(0.3, 1.5, (SAMPLES, 1, 3))).astype("float32")


def point_net() -> Case:
    inputs = keras.Input((32, 3))

    def conv_bn(x: Any, filters: int) -> Any:
        return layers.Activation("relu")(layers.BatchNormalization()(layers.Conv1D(filters, 1)(x)))

    def transform(x: Any, size: int) -> Any:
        y = layers.GlobalMaxPooling1D()(conv_bn(conv_bn(x, 8), 16))
        y = layers.Dense(size * size, bias_initializer=keras.initializers.Constant(np.eye(size).flatten()))(y)
        return layers.Dot(axes=(2, 1))([x, layers.Reshape((size, size))(y)])

    x = conv_bn(transform(inputs, 3), 8)
    x = layers.GlobalMaxPooling1D()(conv_bn(conv_bn(transform(x, 8), 8), 24))
    return live(keras.Model(inputs, layers.Dense(4)(layers.Dense(16, "relu")(x))), _cloud(32))


def deep_sets() -> Case:
    inputs = keras.Input((32, 3))
    x = ops.max(layers.Dense(16, "relu")(layers.Dense(16, "relu")(inputs)), axis=1)
    return live(keras.Model(inputs, layers.Dense(4)(x)), _cloud(32))


def edge_convolution() -> Case:
    inputs = keras.Input((16, 3))
    left, right = ops.expand_dims(inputs, 2), ops.expand_dims(inputs, 1)
    difference = left - right
    pairs = ops.concatenate([ops.repeat(left, 16, axis=2), difference], -1)
    x = ops.max(layers.Dense(12, "relu")(pairs), axis=2)
    return live(keras.Model(inputs, layers.Dense(4)(ops.mean(x, axis=1))), _cloud(16))
