"""One step of a random graph for every operator that the frontends accept; see `random_layers` for what a step is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from random_layers import LAYERS, choice, fits, rank, sample

OPS = keras.ops


def _operand(m: Any, x: Any) -> Any:
    """A second operand: a tensor, the same tensor, a number, or a constant per channel or per position."""
    kind = m.rng.integers(7)
    if kind < 2:
        return m.partner(x)
    if kind == 2:
        return x
    if kind == 3:
        return float(choice(m, 0.5, 2.0, -1.0, 1.0, 3.0))
    shape = sample(x)[-1:] if kind < 6 else (1, *sample(x))
    return (m.rng.uniform(0.5, 2, shape) * m.rng.choice([-1, 1], shape)).astype("float32")


def _binary(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        y = _operand(m, x)
        return function(x, y) if m.rng.random() < 0.7 else function(y, x)

    return step


def _positive(m: Any, x: Any, k: Any) -> Any:
    """A tensor of values from 0.5 on; sometimes, as found."""
    return x if m.rng.random() < 0.1 else k.square(x) + 0.5


def _divide(function: Any, k: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        y = _operand(m, x)
        if isinstance(y, (float, np.ndarray)):
            return function(x, y) if m.rng.random() < 0.6 else function(y, _positive(m, x, k))
        return function(x, _positive(m, y, k))

    return step


def _unary(function: Any) -> Any:
    return lambda m, x: function(x)  # noqa: ARG005


def _on_positive(function: Any, k: Any) -> Any:
    return lambda m, x: function(_positive(m, x, k))


def _along(function: Any) -> Any:
    """An operator with an axis; `keepdims` too."""

    def step(m: Any, x: Any) -> Any:
        axes = [a for a in range(1, rank(x) + 1) if m.rng.random() < 0.5] or [rank(x)]
        axis = axes[0] if len(axes) == 1 and m.rng.random() < 0.5 else tuple(axes)
        return function(x, axis, choice(m, True, False))

    return step


def _axis(function: Any) -> Any:
    return lambda m, x: function(x, choice(m, -1, int(m.rng.integers(1, rank(x) + 1))))


def _matmul(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        if rank(x) < 2 or m.rng.random() < 0.3:
            return function(x, m.rng.normal(size=(sample(x)[-1], 3)).astype("float32") / 2)
        y = m.partner(x, same=True)
        order = [*range(rank(x) - 1), rank(x), rank(x) - 1]
        turned = OPS.transpose(y, order) if m.library == "keras" else tf.transpose(y, order)
        return function(x, turned)

    return step


def _parts(x: Any, axis: int) -> int:
    size = x.shape[axis]
    return next((n for n in (3, 2) if size % n == 0), 1)


def _split(function: Any, *, cut: bool) -> Any:
    def step(m: Any, x: Any) -> Any:
        axis = int(m.rng.integers(1, rank(x) + 1))
        size = x.shape[axis]
        if cut and size >= 3:
            return list(function(x, [1, size - 1] if m.library == "keras" else [1, size - 2, 1], axis))
        return list(function(x, _parts(x, axis), axis))

    return step


def _get_item(m: Any, x: Any) -> Any:
    keys: list[Any] = [slice(None)]
    for size in sample(x):
        keys.append(choice(m, slice(None), slice(None), slice(None, None, 2), slice(size // 2, None), -1, slice(0, 1)))
    if all(isinstance(k, int) for k in keys[1:]):
        keys[-1] = slice(None)
    if m.rng.random() < 0.2:
        keys = [slice(None), Ellipsis, keys[-1]]
    elif m.rng.random() < 0.15 and rank(x) < 4:
        keys.insert(1, None)
    return x[tuple(keys)]


def _pad(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        if rank(x) not in (2, 3):
            return None
        return function(x, [[0, 0], *[[choice(m, 0, 1), choice(m, 1, 2)] for _ in range(rank(x) - 1)], [0, 0]])

    return step


def _new_shape(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        size = int(np.prod(sample(x)))
        target = choice(m, (-1, size), (-1, 1, size), (-1, size, 1), (-1, *sample(x)[::-1]))
        if m.batch is not None and m.rng.random() < 0.5:
            target = (m.batch, *target[1:])
        return function(x, target)

    return step


def _squeeze(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        ones = [i for i, size in enumerate(x.shape) if i and size == 1]
        return function(x, choice(m, *ones)) if ones and rank(x) > 1 else None

    return step


def _expand(function: Any) -> Any:
    return lambda m, x: function(x, int(m.rng.integers(1, rank(x) + 2))) if rank(x) < 4 else None


def _transpose(function: Any) -> Any:
    return lambda m, x: function(x, [0, *[int(i) for i in m.rng.permutation(rank(x)) + 1]])


def _joined(function: Any) -> Any:
    return lambda m, x: function([x, m.partner(x, same=True)], int(m.rng.integers(1, rank(x) + 1)))


def _copied(function: Any) -> Any:
    return lambda m, x: function(x, [1, *(choice(m, 1, 1, 2) for _ in sample(x))])


def _of_an_axis(function: Any, *numbers: int) -> Any:
    return lambda m, x: function(x, choice(m, *numbers), int(m.rng.integers(1, rank(x) + 1)))


def _clip(function: Any) -> Any:
    return lambda m, x: function(x, choice(m, -0.5, 0.0, -1.0), choice(m, 0.5, 6.0, 1.0))


def _blocks(function: Any, *, divides: bool) -> Any:
    """Of an image whose channels, or else its height and width, come in blocks of 2."""

    def step(_: Any, x: Any) -> Any:
        if rank(x) != 3:
            return None
        fits = sample(x)[-1] % 4 == 0 if divides else all(n % 2 == 0 for n in sample(x)[:2])
        return function(x, 2) if fits else None

    return step


def _cut(x: Any, parts: Any, axis: int) -> Any:
    return OPS.split(x, parts, axis)


def _einsum(function: Any) -> Any:
    equations = {2: "abc,adc->abd", 3: "abcd,abed->abce"}
    return _unary(lambda x: function(equations[rank(x)], x, x) if rank(x) in equations else None)


def _attention(m: Any, x: Any) -> Any:
    return OPS.dot_product_attention(x, x, x, is_causal=choice(m, True, False)) if rank(x) == 3 else None


KERAS_OPERATORS = {
    **{name: _binary(getattr(OPS, name.lower())) for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")},
    "Divide": _divide(OPS.divide, OPS), "TrueDivide": _divide(OPS.true_divide, OPS),
    "Power": lambda m, x: OPS.power(_positive(m, x, OPS), choice(m, 1, 2, 0.5, -0.5, -1, 3)),
    "Matmul": _matmul(OPS.matmul), "Negative": _unary(OPS.negative), "Clip": _clip(OPS.clip),
    "Relu": _unary(OPS.relu), "Relu6": _unary(OPS.relu6), "LeakyRelu": _unary(OPS.leaky_relu), "Elu": _unary(OPS.elu),
    "ReLU": _unary(lambda x: keras.activations.relu(x, max_value=1.5)), "Mish": _unary(keras.activations.mish),
    "Selu": _unary(OPS.selu), "Sigmoid": _unary(OPS.sigmoid), "Tanh": _unary(OPS.tanh), "Silu": _unary(OPS.silu),
    "HardSilu": _unary(OPS.hard_silu), "HardSigmoid": _unary(OPS.hard_sigmoid),
    "Normalize": _unary(OPS.normalize),
    "Gelu": lambda m, x: OPS.gelu(x, approximate=choice(m, True, False)),
    "Softmax": _axis(OPS.softmax), "LogSoftmax": _axis(OPS.log_softmax), "Reshape": _new_shape(OPS.reshape),
    "Squeeze": _squeeze(OPS.squeeze), "ExpandDims": _expand(OPS.expand_dims), "Transpose": _transpose(OPS.transpose),
    "DepthToSpace": _blocks(OPS.nn.depth_to_space, divides=True),
    "SpaceToDepth": _blocks(OPS.nn.space_to_depth, divides=False),
    "Swapaxes": _unary(lambda x: OPS.swapaxes(x, 1, -1)), "Concatenate": _joined(OPS.concatenate),
    "Stack": _joined(OPS.stack), "Split": lambda m, x: _split(_cut, cut=m.rng.random() < 0.5)(m, x),
    "Unstack": _unary(lambda x: list(OPS.unstack(x, axis=-1))[:2] if rank(x) > 1 else None), "GetItem": _get_item,
    "Pad": _pad(OPS.pad), "Mean": _along(lambda x, a, k: OPS.mean(x, a, keepdims=k)),
    "Sum": _along(lambda x, a, k: OPS.sum(x, a, keepdims=k)),
    "Max": _along(lambda x, a, k: OPS.max(x, a, keepdims=k)),
    "Amax": _along(lambda x, a, k: OPS.amax(x, a, keepdims=k)),
    "Tile": _copied(OPS.tile), "Repeat": _of_an_axis(OPS.repeat, 2, 3), "Roll": _of_an_axis(OPS.roll, 1, -2),
    "Cast": _unary(lambda x: OPS.cast(x, "float32") * 2), "StopGradient": _unary(OPS.stop_gradient),
    "Copy": _unary(OPS.copy),
    **{n: _unary(getattr(OPS, n.lower())) for n in ("Abs", "Absolute", "Ceil", "Cos", "Erf", "Exp", "Expm1", "Floor",
                                                    "Sign", "Sin", "Softplus", "Softsign", "Square")},
    "LogSigmoid": _unary(OPS.log_sigmoid), "Einsum": _einsum(OPS.einsum), "DotProductAttention": _attention,
    **{n: _on_positive(getattr(OPS, n.lower()), OPS) for n in ("Log", "Log1p", "Reciprocal", "Rsqrt", "Sqrt")},
}  # fmt: skip


def _tf_matmul(m: Any, x: Any) -> Any:
    if m.rng.random() < 0.4 and rank(x) >= 2:
        return tf.matmul(x, m.partner(x, same=True), transpose_b=True)
    return _matmul(tf.matmul)(m, x)


def _dynamic(_: Any, x: Any) -> Any:
    return tf.reshape(x, [tf.shape(x)[0], int(np.prod(sample(x)))])


def _tf_pool(function: Any) -> Any:
    return lambda m, x: function(x, 2, choice(m, 1, 2), choice(m, "SAME", "VALID")) if fits(x, 3, least=2) else None


def _resize(m: Any, x: Any) -> Any:
    return tf.image.resize(x, (4, 6), method=choice(m, "bilinear", "nearest")) if rank(x) == 3 else None


def _bias_add(m: Any, x: Any) -> Any:
    return tf.nn.bias_add(x, m.rng.normal(size=sample(x)[-1]).astype("float32"))


TF_OPERATORS = {
    "math.add": _binary(tf.add), "__operators__.add": _binary(lambda a, b: a + b),
    "math.subtract": _binary(tf.subtract),
    "math.multiply": _binary(tf.multiply), "math.maximum": _binary(tf.maximum), "math.minimum": _binary(tf.minimum),
    "math.add_n": lambda m, x: tf.add_n([x, m.partner(x, same=True), x]),
    "math.truediv": _divide(tf.truediv, tf), "math.divide": _divide(tf.divide, tf),
    "math.pow": lambda m, x: tf.pow(_positive(m, x, tf), choice(m, 1.0, 2.0, 0.5, -0.5, -1.0, 3.0)),
    "math.negative": _unary(tf.negative), "clip_by_value": _clip(tf.clip_by_value), "linalg.matmul": _tf_matmul,
    "einsum": _einsum(tf.einsum),
    "nn.depth_to_space": _blocks(tf.nn.depth_to_space, divides=True),
    "nn.space_to_depth": _blocks(tf.nn.space_to_depth, divides=False),
    "nn.bias_add": _bias_add, "nn.relu": _unary(tf.nn.relu), "nn.relu6": _unary(tf.nn.relu6),
    "nn.leaky_relu": _unary(tf.nn.leaky_relu), "nn.elu": _unary(tf.nn.elu), "nn.selu": _unary(tf.nn.selu),
    "math.sigmoid": _unary(tf.sigmoid), "math.tanh": _unary(tf.tanh), "nn.silu": _unary(tf.nn.silu),
    "math.l2_normalize": _unary(lambda x: tf.math.l2_normalize(x, -1)),
    "nn.gelu": lambda m, x: tf.nn.gelu(x, approximate=choice(m, True, False)), "nn.softmax": _axis(tf.nn.softmax),
    "nn.log_softmax": _axis(tf.nn.log_softmax), "reshape": _new_shape(tf.reshape), "shape": _dynamic,
    "squeeze": _squeeze(tf.squeeze), "compat.v1.squeeze": _squeeze(tf.compat.v1.squeeze),
    "expand_dims": _expand(tf.expand_dims), "compat.v1.expand_dims": _expand(tf.compat.v1.expand_dims),
    "transpose": _transpose(tf.transpose), "compat.v1.transpose": _transpose(tf.compat.v1.transpose),
    "concat": _joined(tf.concat), "stack": _joined(tf.stack),
    "split": lambda m, x: _split(tf.split, cut=m.rng.random() < 0.5)(m, x),
    "unstack": _unary(lambda x: list(tf.unstack(x, axis=-1))[:2] if rank(x) > 1 else None),
    "__operators__.getitem": _get_item, "pad": _pad(tf.pad), "compat.v1.pad": _pad(tf.compat.v1.pad),
    "math.reduce_mean": _along(lambda x, a, k: tf.reduce_mean(x, a, keepdims=k)),
    "math.reduce_sum": _along(lambda x, a, k: tf.reduce_sum(x, a, keepdims=k)),
    "math.reduce_max": _along(lambda x, a, k: tf.reduce_max(x, a, keepdims=k)),
    "tile": _copied(tf.tile), "repeat": _of_an_axis(tf.repeat, 2, 3), "roll": _of_an_axis(tf.roll, 1, -2),
    "cast": _unary(lambda x: tf.cast(x, tf.float32) * 2), "identity": _unary(tf.identity),
    "stop_gradient": _unary(tf.stop_gradient), "nn.max_pool2d": _tf_pool(tf.nn.max_pool2d),
    "nn.avg_pool2d": _tf_pool(tf.nn.avg_pool2d), "image.resize": _resize, "compat.v1.image.resize": _resize,
    **{f"math.{n}": _unary(getattr(tf.math, n)) for n in ("abs", "ceil", "cos", "erf", "exp", "expm1", "floor",
                                                          "log_sigmoid", "sign", "sin", "softplus", "square")},
    "math.softsign": _unary(tf.nn.softsign), "nn.softsign": _unary(tf.nn.softsign),
    "nn.softplus": _unary(tf.nn.softplus),
    **{f"math.{n}": _on_positive(getattr(tf.math, n), tf) for n in ("log", "log1p", "reciprocal", "rsqrt", "sqrt")},
}  # fmt: skip
STEPS = {
    "keras": {**LAYERS, **{f"ops.{n}": step for n, step in KERAS_OPERATORS.items()}},
    "tf_keras": {**LAYERS, **{f"tf.{n}": step for n, step in TF_OPERATORS.items()}},
}
FRAMEWORKS = {"keras": keras, "tf_keras": tf_keras}
