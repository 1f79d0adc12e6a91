"""Operators of both frameworks become layer nodes that compute the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.errors import UserError
from tfq.models.load import load_model

VECTOR = np.linspace(-1.0, 2.0, 6).astype("float32")
MATRIX = np.random.default_rng(5).normal(size=(6, 5)).astype("float32")
IMAGE = np.random.default_rng(6).normal(size=(8, 10, 6)).astype("float32")
OPS = keras.ops

# name -> (tf_keras function, Keras 3 function) of x [batch, 8, 10, 6]
COMMON = {
    "a + b * 2": lambda x: x + x[:, ::-1] * 2,
    "3 - x": lambda x: 3 - x,
    "x - 3": lambda x: x - 3,
    "2 / x": lambda x: 2.0 / (x * x + 1.0),
    "x / 7": lambda x: x / 7,
    "x / y": lambda x: x / (x * x + 1.0),
    "-x": lambda x: -x,
    "x ** 2": lambda x: x**2,
    "per channel": lambda x: x * VECTOR + VECTOR,
    "a constant per position": lambda x: x + IMAGE,
    "a constant per column": lambda x: x * IMAGE[None, :1],
    "rows": lambda x: x[:, 1:3],
    "last row": lambda x: x[:, -1],
    "strided": lambda x: x[:, ::2, 1::3],
    "ellipsis": lambda x: x[..., 2],
    "ellipsis and slice": lambda x: x[..., 1:3],
    "new axis": lambda x: x[:, None, :, :, 0] + 1.0,
}
TWO = {
    "relu": (tf.nn.relu, OPS.relu),
    "relu6": (lambda x: tf.nn.relu6(x + 3) / 6, lambda x: OPS.relu6(x + 3) / 6),
    "sigmoid": (tf.sigmoid, OPS.sigmoid),
    "tanh": (tf.tanh, OPS.tanh),
    "softmax": (tf.nn.softmax, OPS.softmax),
    "softmax of axis 1": (lambda x: tf.nn.softmax(x, axis=1), lambda x: OPS.softmax(x, axis=1)),
    "log softmax": (tf.nn.log_softmax, OPS.log_softmax),
    "gelu": (tf.nn.gelu, lambda x: OPS.gelu(x, approximate=False)),
    "gelu approximate": (lambda x: tf.nn.gelu(x, approximate=True), lambda x: OPS.gelu(x, approximate=True)),
    "silu": (tf.nn.silu, OPS.silu),
    "elu": (tf.nn.elu, OPS.elu),
    "selu": (tf.nn.selu, OPS.selu),
    "leaky relu": (lambda x: tf.nn.leaky_relu(x, 0.3), lambda x: OPS.leaky_relu(x, 0.3)),
    "softplus": (tf.nn.softplus, OPS.softplus),
    "exp": (tf.exp, OPS.exp),
    "abs": (tf.abs, OPS.abs),
    "square": (tf.square, OPS.square),
    "sqrt": (lambda x: tf.sqrt(tf.abs(x)), lambda x: OPS.sqrt(OPS.abs(x))),
    "rsqrt": (lambda x: tf.math.rsqrt(x * x + 1.0), lambda x: OPS.rsqrt(x * x + 1.0)),
    "maximum of two": (lambda x: tf.maximum(x, -2 * x), lambda x: OPS.maximum(x, -2 * x)),
    "maximum of a number": (lambda x: tf.maximum(x, 0.3), lambda x: OPS.maximum(x, 0.3)),
    "minimum of two": (lambda x: tf.minimum(x, -2 * x), lambda x: OPS.minimum(x, -2 * x)),
    "minimum of a number": (lambda x: tf.minimum(0.3, x), lambda x: OPS.minimum(0.3, x)),
    "clip": (lambda x: tf.clip_by_value(x, -0.5, 1.5), lambda x: OPS.clip(x, -0.5, 1.5)),
    "reshape": (lambda x: tf.reshape(x, (-1, 80, 6)), lambda x: OPS.reshape(x, (-1, 80, 6))),
    "reshape with an open axis": (lambda x: tf.reshape(x, (-1, 480)), lambda x: OPS.reshape(x, (-1, 480))),
    "transpose": (lambda x: tf.transpose(x, [0, 3, 1, 2]), lambda x: OPS.transpose(x, [0, 3, 1, 2])),
    "squeeze": (lambda x: tf.squeeze(x[:, :1], 1), lambda x: OPS.squeeze(x[:, :1], 1)),
    "expand": (lambda x: tf.expand_dims(x, -1), lambda x: OPS.expand_dims(x, -1)),
    "concat": (lambda x: tf.concat([x, x * 2], -1), lambda x: OPS.concatenate([x, x * 2], -1)),
    "tile": (lambda x: tf.tile(x[:, :1], [1, 3, 1, 2]), lambda x: OPS.tile(x[:, :1], [1, 3, 1, 2])),
    "repeat": (lambda x: tf.repeat(x, 2, 1), lambda x: OPS.repeat(x, 2, 1)),
    "roll": (lambda x: tf.roll(x, [2, -1], [1, 2]), lambda x: OPS.roll(x, [2, -1], [1, 2])),
    "stack": (lambda x: tf.stack([x, x * 2], 1), lambda x: OPS.stack([x, x * 2], 1)),
    "split": (lambda x: tf.split(x, 3, -1)[1], lambda x: OPS.split(x, 3, -1)[1]),
    "split by size": (lambda x: tf.split(x, [1, 3, -1], -1)[2], lambda x: OPS.split(x, [1, 4], -1)[2]),
    "unstack": (lambda x: tf.unstack(x, axis=1)[3], lambda x: OPS.unstack(x, axis=1)[3]),
    "pad": (lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]]),
            lambda x: OPS.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]])),
    "mean": (lambda x: tf.reduce_mean(x, [1, 2]), lambda x: OPS.mean(x, [1, 2])),
    "mean that keeps": (lambda x: tf.reduce_mean(x, -1, keepdims=True), lambda x: OPS.mean(x, -1, keepdims=True)),
    "sum": (lambda x: tf.reduce_sum(x, [1, 2]), lambda x: OPS.sum(x, [1, 2])),
    "max": (lambda x: tf.reduce_max(x, [1, 2]), lambda x: OPS.max(x, [1, 2])),
    "max of channels": (lambda x: tf.reduce_max(x, -1), lambda x: OPS.amax(x, -1)),
    "max of columns": (lambda x: tf.reduce_max(x, 2, keepdims=True), lambda x: OPS.max(x, 2, keepdims=True)),
    "matmul": (lambda x: tf.matmul(x, tf.transpose(x, [0, 1, 3, 2])),
               lambda x: OPS.matmul(x, OPS.transpose(x, [0, 1, 3, 2]))),
    "matmul by a constant": (lambda x: tf.matmul(x[:, 0], MATRIX), lambda x: OPS.matmul(x[:, 0], MATRIX)),
    "depth to space": (lambda x: tf.nn.depth_to_space(tf.concat([x, x * 2], -1), 2),
                       lambda x: OPS.nn.depth_to_space(OPS.concatenate([x, x * 2], -1), 2)),
    "space to depth": (lambda x: tf.nn.space_to_depth(x, 2), lambda x: OPS.nn.space_to_depth(x, 2)),
    "l2 normalize": (lambda x: tf.math.l2_normalize(x, axis=-1), lambda x: OPS.normalize(x, axis=-1)),
    "l2 normalize of rows": (lambda x: tf.nn.l2_normalize(x, 1, 1e-10), lambda x: OPS.normalize(x, 1, epsilon=1e-10)),
    "cast": (lambda x: tf.cast(x, tf.float32) * 2, lambda x: OPS.cast(x, "float32") * 2),
}  # fmt: skip
TF_ONLY = {
    "tf.shape": lambda x: tf.reshape(x, (tf.shape(x)[0], -1, 6)),
    "tf.shape of every axis": lambda x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2], x.shape[3]]),
    "joined shapes": lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [480]], 0)),
    "transpose_b": lambda x: tf.matmul(x, x, transpose_b=True),
    "@": lambda x: x @ tf.transpose(x, [0, 1, 3, 2]),
    "bias add": lambda x: tf.nn.bias_add(x, VECTOR),
    "add_n": lambda x: tf.add_n([x, x * 2, x * 3]),
    "max pool": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"),
    "average pool": lambda x: tf.nn.avg_pool2d(x, (3, 2), 1, "VALID"),
    "resize": lambda x: tf.image.resize(x, (16, 20)),
    "backend mean": lambda x: tf_keras.backend.mean(x, axis=[1, 2]),
    "keras relu with a limit": lambda x: tf_keras.activations.relu(x, max_value=1.5),
    "method": lambda x: tf.stop_gradient(tf.identity(x)) * 2,
}
CASES = [(f"{n} [{lib}]", lib, f) for n, f in COMMON.items() for lib in ("keras", "tf_keras")]
CASES += [
    (f"{n} [{lib}]", lib, f) for n, pair in TWO.items() for lib, f in zip(("tf_keras", "keras"), pair, strict=True)
]
CASES += [(f"{n} [tf_keras]", "tf_keras", f) for n, f in TF_ONLY.items()]


def model_of(library: str, function):
    library = {"keras": keras, "tf_keras": tf_keras}[library]
    x = library.Input((8, 10, 6), name="x")
    return library.Model(x, function(x))


@pytest.mark.parametrize(("library", "function"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_an_operator_becomes_nodes_that_compute_the_same(library, function, check_equal):
    check_equal(model_of(library, function), built=False, bound=2e-6)


def test_an_operator_model_is_rebuilt_as_a_keras_model(check_equal):
    def function(x):
        parts = tf.split(tf.nn.relu6(x + 3) / 6 * x, 2, axis=-1)
        return tf.reduce_mean(parts[0] * tf.sigmoid(parts[1]), [1, 2]) ** 2

    check_equal(model_of("tf_keras", function))


def test_a_cast_to_the_same_type_leaves_no_node():
    loaded = load_model(model_of("tf_keras", lambda x: tf.cast(tf.nn.relu(x), tf.float32)))
    assert [node.kind for node in loaded.graph.nodes] == ["Input", "ReLU"]


REFUSED = {
    "a constant batch": (lambda x: x + np.ones((2, 8, 10, 6), "float32"), r"Layer '.*add.*' .*does not run by itself"),
    "batch axis": (lambda x: x[0], "slices the batch axis"),
    "mixing samples": (lambda x: tf.reshape(x, (-1, 6)), "mixes the samples of a batch"),
    "mixing samples in another way": (lambda x: tf.reshape(x, (480, -1)), "mixes the samples of a batch"),
    "mean of all": (lambda x: tf.reduce_mean(x), "batch axis"),
    "batch transpose": (lambda x: tf.transpose(x), "moves the batch axis"),
    "constant in concat": (lambda x: tf.concat([x[:1], x], 1), "slices the batch axis"),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_an_operator_that_mixes_samples_is_refused_by_name(function, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(model_of("tf_keras", function))
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "the message names no way out"


CARRIED = {
    "unknown operator": lambda x: tf.math.cumsum(x, axis=1),
    "exponent": lambda x: tf.abs(x) ** 3.3,
    "reflection": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"),
    "a constant that widens": lambda x: x[..., :1] * VECTOR,
    "an equation": lambda x: tf.einsum("bhwc,bhwc->bhwc", x, x),
    "truth values": lambda x: tf.where(tf.logical_and(x > 0, x < 1), x, tf.zeros_like(x)),
    "whole numbers": lambda x: tf.one_hot(tf.argmax(x, -1), 6) * x,
    "several outputs": lambda x: sum(tf.nn.moments(x, [1, 2])),
    "a constant joined for every sample": lambda x: tf.concat(
        [tf.broadcast_to(np.ones((1, 1, 10, 6), "float32"), [tf.shape(x)[0], 1, 10, 6]), x], 1
    ),
    "the batch size": lambda x: tf.broadcast_to(x[:, :1], [tf.shape(x)[0], 4, 10, 6]),
}


@pytest.mark.parametrize("function", CARRIED.values(), ids=CARRIED)
def test_an_operator_without_a_rule_is_carried(function, check_equal):
    loaded = check_equal(model_of("tf_keras", function))
    assert any(node.kind == "Carried" for node in loaded.graph.nodes)


CARRIED_BY_KERAS = {
    "unknown operator": lambda x: OPS.cumsum(x, axis=1),
    "an option": lambda x: OPS.resize(x, (5, 5)) if hasattr(OPS, "resize") else OPS.image.resize(x, (5, 5)),
    "truth values": lambda x: OPS.where(OPS.logical_and(x > 0, x < 1), x, OPS.zeros_like(x)),
    "whole numbers": lambda x: OPS.one_hot(OPS.argmax(x, -1), 6) * x,
    "several outputs": lambda x: sum(OPS.moments(x, [1, 2])),
    "a constant joined for every sample": lambda x: OPS.concatenate([OPS.ones_like(x[:, :1]), x], 1),
}


@pytest.mark.parametrize("function", CARRIED_BY_KERAS.values(), ids=CARRIED_BY_KERAS)
def test_an_operator_of_keras_without_a_rule_is_carried(function, check_equal):
    loaded = check_equal(model_of("keras", function))
    assert any(node.kind == "Carried" for node in loaded.graph.nodes)
