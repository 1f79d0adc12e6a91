"""One step of a random graph for everything that the frontends accept: every layer, operator and activation.

A step is a function of the maker and a symbolic tensor; it returns a tensor, or None where the tensor does not suit.
`LAYERS`, `KERAS_OPERATORS` and `TF_OPERATORS` name the steps by what they cover.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

OPS = keras.ops
ACTIVATIONS = (
    "relu", "relu6", "softmax", "elu", "selu", "softplus", "softsign", "swish", "gelu", "tanh", "sigmoid",
    "exponential", "mish", "hard_sigmoid", "leaky_relu", "log_softmax", "hard_silu", "log_sigmoid", "linear",
)  # fmt: skip


def sample(x: Any) -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(x.shape[1:])


def rank(x: Any) -> int:
    """Rank without the batch axis."""
    return len(x.shape) - 1


def _choice(m: Any, *values: Any) -> Any:
    return values[int(m.rng.integers(len(values)))]


def _activation(m: Any) -> Any:
    known = [a for a in ACTIVATIONS if m.knows_activation(a)]
    return _choice(m, None, None, *known)


def _fits(x: Any, *ranks: int, least: int = 1) -> bool:
    return rank(x) in ranks and min(sample(x)[:-1], default=least) >= least


# --- layers ------------------------------------------------------------------------------------------------------


def _merge(kind: str) -> Any:
    def step(m: Any, x: Any) -> Any:
        several = kind in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate") and m.rng.random() < 0.25
        others = [m.partner(x) for _ in range(2 if several else 1)]
        config = {"axis": int(m.rng.integers(1, rank(x) + 1))} if kind == "Concatenate" else {}
        return m.layer(kind, [x, *others], **config)

    return step


def _dot(m: Any, x: Any) -> Any:
    y = m.partner(x, same=True)
    if rank(x) == 1:
        return m.layer("Dot", [x, y], axes=1)
    return m.layer("Dot", [x, y], axes=_choice(m, (1, 1), (2, 2), 2)) if rank(x) == 2 else None


def _conv(kind: str, dimensions: int, *, depthwise: bool = False, transposed: bool = False) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not _fits(x, dimensions + 1, least=3):
            return None
        channels = sample(x)[-1]
        config: dict[str, Any] = {
            "kernel_size": _choice(m, 1, 2, 3, (3, 2) if dimensions == 2 else 3),
            "padding": _choice(m, "same", "valid", "causal" if kind == "Conv1D" else "same"),
            "activation": _activation(m),
            "use_bias": _choice(m, True, True, False),
        }
        config["strides"] = _choice(m, 1, 1, 2)
        if config["strides"] == 1 and m.rng.random() < 0.2 and not transposed and min(sample(x)[:-1]) >= 5:
            config["dilation_rate"] = 2
        if depthwise:
            config["depth_multiplier"] = _choice(m, 1, 1, 2)
        if not kind.startswith("Depthwise"):
            config["filters"] = int(m.rng.integers(1, 7))
        if kind in ("Conv1D", "Conv2D") and m.rng.random() < 0.25:
            config["groups"] = channels if channels < 7 else 1
            config["filters"] = config["groups"] * _choice(m, 1, 2)
        return m.layer(kind, x, **config)

    return step


def _pool(kind: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not _fits(x, dimensions + 1, least=3):
            return None
        size = _choice(m, 2, 3, (2, 3) if dimensions == 2 else 2)
        return m.layer(kind, x, pool_size=size, strides=_choice(m, None, 1, 2), padding=_choice(m, "same", "valid"))

    return step


def _global(kind: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        return m.layer(kind, x, keepdims=_choice(m, True, False)) if rank(x) == dimensions + 1 else None

    return step


def _border(kind: str, key: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not _fits(x, dimensions + 1, least=4):
            return None
        one, two = _choice(m, (1, 1), (0, 2), (1, 0)), _choice(m, (1, 1), (0, 1))
        return m.layer(kind, x, **{key: one if dimensions == 1 else (one, two)})

    return step


def _plain(kind: str, *ranks: int, **choices: tuple[Any, ...]) -> Any:
    """A layer with one of the values of each key, on tensors of these ranks (none: of any)."""

    def step(m: Any, x: Any) -> Any:
        if ranks and rank(x) not in ranks:
            return None
        return m.layer(kind, x, **{key: _choice(m, *values) for key, values in choices.items()})

    return step


def _dense(m: Any, x: Any) -> Any:
    units, bias = int(m.rng.integers(1, 8)), _choice(m, True, True, False)
    return m.layer("Dense", x, units=units, activation=_activation(m), use_bias=bias)


def _einsum_dense(m: Any, x: Any) -> Any:
    shape = sample(x)
    units, bias = int(m.rng.integers(1, 6)), _choice(m, None, "last")
    if rank(x) == 2 and m.rng.random() < 0.5:
        equation, output = "abc,cde->abde", (shape[0], units, 2)
        return m.layer("EinsumDense", x, equation=equation, output_shape=output, bias_axes="de" if bias else None)
    output = (*shape[:-1], units) if rank(x) == 1 else (None, *shape[1:-1], units)
    return m.layer("EinsumDense", x, equation="...x,xy->...y", output_shape=output, bias_axes="y" if bias else None)


def _embedding(m: Any, _: Any) -> Any:
    tensor, tokens = m.indices()
    return m.layer("Embedding", tensor, input_dim=tokens, output_dim=int(m.rng.integers(1, 6)))


def _multi_head_attention(m: Any, x: Any) -> Any:
    if rank(x) != 2:
        return None
    layer = m.make("MultiHeadAttention", num_heads=_choice(m, 1, 2), key_dim=3, use_bias=_choice(m, True, False))
    y = m.partner(x, same=True)
    return layer(x, y) if m.rng.random() < 0.7 else layer(x, y, x)


def _normalization(m: Any, x: Any) -> Any:
    channels = sample(x)[-1]
    mean, variance = m.rng.normal(size=channels).tolist(), m.rng.uniform(0.5, 2, channels).tolist()
    return m.layer("Normalization", x, mean=mean, variance=variance, invert=_choice(m, False, False, True))


def _normalizing(kind: str, **choices: tuple[Any, ...]) -> Any:
    def step(m: Any, x: Any) -> Any:
        config = {key: _choice(m, *values) for key, values in choices.items()}
        if kind == "GroupNormalization":
            config["groups"] = _choice(m, 1, -1, sample(x)[-1])
        if config.get("axis") == "two":
            config["axis"] = [rank(x) - 1, rank(x)] if rank(x) > 1 else -1
        return m.layer(kind, x, **config)

    return step


def _prelu(m: Any, x: Any) -> Any:
    shared = [axis for axis in range(1, rank(x) + 1) if m.rng.random() < 0.5] or None
    return m.layer("PReLU", x, shared_axes=shared)


def _permute(m: Any, x: Any) -> Any:
    return m.layer("Permute", x, dims=tuple(int(i) for i in m.rng.permutation(rank(x)) + 1))


def _relu(m: Any, x: Any) -> Any:
    limit = _choice(m, None, None, 6.0, 1.5)
    slope = 0.0 if limit else _choice(m, 0.0, 0.0, 0.1)
    return m.layer("ReLU", x, max_value=limit, negative_slope=slope, threshold=_choice(m, 0.0, 0.0, 0.0, 0.5))


def _reshape(m: Any, x: Any) -> Any:
    size, shapes = int(np.prod(sample(x))), []
    for a in range(1, size + 1):
        if size % a == 0:
            shapes += [(a, size // a), (1, a, size // a)]
    target = list(_choice(m, (size,), *shapes))
    if m.rng.random() < 0.3:
        target[int(m.rng.integers(len(target)))] = -1
    return m.layer("Reshape", x, target_shape=tuple(target))


def _resizing(m: Any, x: Any) -> Any:
    if rank(x) != 3:
        return None
    size = {"height": int(m.rng.integers(1, 9)), "width": int(m.rng.integers(1, 9))}
    return m.layer("Resizing", x, **size, interpolation=_choice(m, "bilinear", "nearest"))


def _softmax(m: Any, x: Any) -> Any:
    return m.layer("Softmax", x, axis=_choice(m, -1, -1, int(m.rng.integers(1, rank(x) + 1))))


def _attention(m: Any, x: Any) -> Any:
    if rank(x) != 2:
        return None
    kind = _choice(m, "Attention", "AdditiveAttention")
    return m.layer(kind, [x, m.partner(x, same=True)], **({"use_scale": _choice(m, True, False)}))


def _time_distributed(m: Any, x: Any) -> Any:
    return m.layers.TimeDistributed(m.make("Dense", units=3))(x) if rank(x) >= 2 else None


def _tf_only(step: Any) -> Any:
    return lambda m, x: step(m, x) if m.library == "tf_keras" else None


def _keras_only(step: Any) -> Any:
    return lambda m, x: step(m, x) if m.library == "keras" else None


LAYERS = {
    **{kind: _merge(kind) for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")},
    "Dot": _dot,
    "Activation": _plain("Activation", activation=ACTIVATIONS),
    **{k: _plain(k, rate=(0.3,)) for k in ("Dropout", "AlphaDropout", "GaussianDropout")},
    "GaussianNoise": _plain("GaussianNoise", stddev=(0.3,)),
    "SpatialDropout1D": _plain("SpatialDropout1D", 2, rate=(0.3,)),
    "SpatialDropout2D": _plain("SpatialDropout2D", 3, rate=(0.3,)),
    "AveragePooling1D": _pool("AveragePooling1D", 1), "AveragePooling2D": _pool("AveragePooling2D", 2),
    "MaxPooling1D": _pool("MaxPooling1D", 1), "MaxPooling2D": _pool("MaxPooling2D", 2),
    "BatchNormalization": _plain("BatchNormalization", center=(True, False), scale=(True, False)),
    "Conv1D": _conv("Conv1D", 1), "Conv2D": _conv("Conv2D", 2),
    "Conv1DTranspose": _conv("Conv1DTranspose", 1, transposed=True),
    "Conv2DTranspose": _conv("Conv2DTranspose", 2, transposed=True),
    "DepthwiseConv1D": _conv("DepthwiseConv1D", 1, depthwise=True),
    "DepthwiseConv2D": _conv("DepthwiseConv2D", 2, depthwise=True),
    "SeparableConv1D": _conv("SeparableConv1D", 1, depthwise=True),
    "SeparableConv2D": _conv("SeparableConv2D", 2, depthwise=True),
    "Cropping1D": _border("Cropping1D", "cropping", 1), "Cropping2D": _border("Cropping2D", "cropping", 2),
    "ZeroPadding1D": _border("ZeroPadding1D", "padding", 1), "ZeroPadding2D": _border("ZeroPadding2D", "padding", 2),
    "Dense": _dense, "EinsumDense": _einsum_dense, "Embedding": _embedding,
    "ELU": _plain("ELU", alpha=(1.0, 1.0, 0.5)),
    "Flatten": _plain("Flatten"), "Identity": _plain("Identity"),
    "GlobalAveragePooling1D": _global("GlobalAveragePooling1D", 1),
    "GlobalAveragePooling2D": _global("GlobalAveragePooling2D", 2),
    "GlobalMaxPooling1D": _global("GlobalMaxPooling1D", 1), "GlobalMaxPooling2D": _global("GlobalMaxPooling2D", 2),
    "GroupNormalization": _normalizing("GroupNormalization"),
    "LayerNormalization": _normalizing("LayerNormalization", axis=(-1, -1, -1, "two"), center=(True, False)),
    "UnitNormalization": _normalizing("UnitNormalization"),
    "LeakyReLU": _plain("LeakyReLU"), "MultiHeadAttention": _multi_head_attention,
    "Normalization": _normalization, "PReLU": _prelu, "Permute": _permute, "ReLU": _relu,
    "RepeatVector": _plain("RepeatVector", 1, n=(1, 3)),
    "Rescaling": _plain("Rescaling", scale=(0.5, 2.0, -1.0, 1.0), offset=(0.0, 1.0, -0.5)),
    "Reshape": _reshape, "Resizing": _resizing, "Softmax": _softmax,
    "ThresholdedReLU": _tf_only(_plain("ThresholdedReLU", theta=(0.0, 0.5))),
    "UpSampling1D": _plain("UpSampling1D", 2, size=(1, 2, 3)),
    "UpSampling2D": _plain("UpSampling2D", 3, size=(1, 2, (2, 1)), interpolation=("nearest", "bilinear")),
}  # fmt: skip
# Layers that have no row in the frontends: written out in operators, or refused.
OTHER_LAYERS = {
    "Attention": _attention, "TimeDistributed": _time_distributed,
    "RMSNormalization": _keras_only(_plain("RMSNormalization")),
    "CenterCrop": _plain("CenterCrop", 3, height=(2, 3), width=(2, 3)),
    "Conv3D": _plain("Conv3D", 4, filters=(2,), kernel_size=(1, 2), padding=("same",)),
    "GlobalAveragePooling3D": _plain("GlobalAveragePooling3D", 4),
    "MaxPooling3D": _plain("MaxPooling3D", 4, padding=("same",)),
    "RandomFlip": _plain("RandomFlip", 3), "RandomRotation": _plain("RandomRotation", 3, factor=(0.1,)),
    "ActivityRegularization": _plain("ActivityRegularization", l2=(0.1,)),
    "LSTM": _plain("LSTM", 2, units=(3,)), "Masking": _plain("Masking", 2),
}  # fmt: skip


# --- operators ---------------------------------------------------------------------------------------------------


def _operand(m: Any, x: Any) -> Any:
    """A second operand: a tensor, the same tensor, a number, or a constant per channel or per position."""
    kind = m.rng.integers(7)
    if kind < 2:
        return m.partner(x)
    if kind == 2:
        return x
    if kind == 3:
        return float(_choice(m, 0.5, 2.0, -1.0, 1.0, 3.0))
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
        return function(x, axis, _choice(m, True, False))

    return step


def _spatial_max(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        return function(x, tuple(range(1, rank(x))), _choice(m, True, False)) if rank(x) in (2, 3) else None

    return step


def _axis(function: Any) -> Any:
    return lambda m, x: function(x, _choice(m, -1, int(m.rng.integers(1, rank(x) + 1))))


def _matmul(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        if rank(x) < 2 or m.rng.random() < 0.3:
            return function(x, m.rng.normal(size=(sample(x)[-1], 3)).astype("float32") / 2)
        y = m.partner(x, same=True)
        order = [*range(rank(x) - 1), rank(x), rank(x) - 1]
        turned = OPS.transpose(y, order) if m.library == "keras" else tf.transpose(y, order)
        return function(x, turned)

    return step


def _numbers(m: Any, x: Any, axis: int) -> Any:
    size = x.shape[axis]
    return next((n for n in (3, 2) if size % n == 0), 1)


def _split(function: Any, *, cut: bool) -> Any:
    def step(m: Any, x: Any) -> Any:
        axis = int(m.rng.integers(1, rank(x) + 1))
        size = x.shape[axis]
        if cut and size >= 3:
            return list(function(x, [1, size - 1] if m.library == "keras" else [1, size - 2, 1], axis))
        return list(function(x, _numbers(m, x, axis), axis))

    return step


def _get_item(m: Any, x: Any) -> Any:
    keys: list[Any] = [slice(None)]
    for size in sample(x):
        keys.append(_choice(m, slice(None), slice(None), slice(None, None, 2), slice(size // 2, None), -1, slice(0, 1)))
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
        return function(x, [[0, 0], *[[_choice(m, 0, 1), _choice(m, 1, 2)] for _ in range(rank(x) - 1)], [0, 0]])

    return step


def _new_shape(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        size = int(np.prod(sample(x)))
        target = _choice(m, (-1, size), (-1, 1, size), (-1, size, 1), (-1, *sample(x)[::-1]))
        if m.batch is not None and m.rng.random() < 0.5:
            target = (m.batch, *target[1:])
        return function(x, target)

    return step


def _squeeze(function: Any) -> Any:
    def step(m: Any, x: Any) -> Any:
        ones = [i for i, size in enumerate(x.shape) if i and size == 1]
        return function(x, _choice(m, *ones)) if ones and rank(x) > 1 else None

    return step


def _expand(function: Any) -> Any:
    return lambda m, x: function(x, int(m.rng.integers(1, rank(x) + 2))) if rank(x) < 4 else None


def _transpose(function: Any) -> Any:
    return lambda m, x: function(x, [0, *[int(i) for i in m.rng.permutation(rank(x)) + 1]])


def _joined(function: Any) -> Any:
    return lambda m, x: function([x, m.partner(x, same=True)], int(m.rng.integers(1, rank(x) + 1)))


def _clip(function: Any) -> Any:
    return lambda m, x: function(x, _choice(m, -0.5, 0.0, -1.0), _choice(m, 0.5, 6.0, 1.0))


def _cut(x: Any, parts: Any, axis: int) -> Any:
    return OPS.split(x, parts, axis)


KERAS_OPERATORS = {
    **{name: _binary(getattr(OPS, name.lower())) for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")},
    "Divide": _divide(OPS.divide, OPS), "TrueDivide": _divide(OPS.true_divide, OPS),
    "Power": lambda m, x: OPS.power(_positive(m, x, OPS), _choice(m, 1, 2, 0.5, -0.5, -1, 3)),
    "Matmul": _matmul(OPS.matmul), "Negative": _unary(OPS.negative), "Clip": _clip(OPS.clip),
    "Relu": _unary(OPS.relu), "Relu6": _unary(OPS.relu6), "LeakyRelu": _unary(OPS.leaky_relu), "Elu": _unary(OPS.elu),
    "ReLU": _unary(lambda x: keras.activations.relu(x, max_value=1.5)), "Mish": _unary(keras.activations.mish),
    "Selu": _unary(OPS.selu), "Sigmoid": _unary(OPS.sigmoid), "Tanh": _unary(OPS.tanh), "Silu": _unary(OPS.silu),
    "HardSilu": _unary(OPS.hard_silu), "HardSigmoid": _unary(OPS.hard_sigmoid),
    "Gelu": lambda m, x: OPS.gelu(x, approximate=_choice(m, True, False)),
    "Softmax": _axis(OPS.softmax), "LogSoftmax": _axis(OPS.log_softmax), "Reshape": _new_shape(OPS.reshape),
    "Squeeze": _squeeze(OPS.squeeze), "ExpandDims": _expand(OPS.expand_dims), "Transpose": _transpose(OPS.transpose),
    "Swapaxes": lambda m, x: OPS.swapaxes(x, 1, -1), "Concatenate": _joined(OPS.concatenate),
    "Stack": _joined(OPS.stack), "Split": lambda m, x: _split(_cut, cut=m.rng.random() < 0.5)(m, x),
    "Unstack": lambda m, x: list(OPS.unstack(x, axis=-1))[:2] if rank(x) > 1 else None, "GetItem": _get_item,
    "Pad": _pad(OPS.pad), "Mean": _along(lambda x, a, k: OPS.mean(x, a, keepdims=k)),
    "Sum": _along(lambda x, a, k: OPS.sum(x, a, keepdims=k)),
    "Max": _spatial_max(lambda x, a, k: OPS.max(x, a, keepdims=k)),
    "Cast": lambda m, x: OPS.cast(x, "float32") * 2, "StopGradient": _unary(OPS.stop_gradient),
    "Copy": _unary(OPS.copy),
    **{n: _unary(getattr(OPS, n.lower())) for n in ("Abs", "Absolute", "Ceil", "Cos", "Erf", "Exp", "Expm1", "Floor",
                                                    "Sign", "Sin", "Softplus", "Softsign", "Square")},
    "LogSigmoid": _unary(OPS.log_sigmoid),
    **{n: _on_positive(getattr(OPS, n.lower()), OPS) for n in ("Log", "Log1p", "Reciprocal", "Rsqrt", "Sqrt")},
}  # fmt: skip


def _tf_matmul(m: Any, x: Any) -> Any:
    if m.rng.random() < 0.4 and rank(x) >= 2:
        return tf.matmul(x, m.partner(x, same=True), transpose_b=True)
    return _matmul(tf.matmul)(m, x)


def _dynamic(m: Any, x: Any) -> Any:
    return tf.reshape(x, [tf.shape(x)[0], int(np.prod(sample(x)))])


def _tf_pool(function: Any) -> Any:
    return lambda m, x: function(x, 2, _choice(m, 1, 2), _choice(m, "SAME", "VALID")) if _fits(x, 3, least=2) else None


def _resize(m: Any, x: Any) -> Any:
    return tf.image.resize(x, (4, 6), method=_choice(m, "bilinear", "nearest")) if rank(x) == 3 else None


def _bias_add(m: Any, x: Any) -> Any:
    return tf.nn.bias_add(x, m.rng.normal(size=sample(x)[-1]).astype("float32"))


TF_OPERATORS = {
    "math.add": _binary(tf.add), "__operators__.add": _binary(lambda a, b: a + b), "math.subtract": _binary(tf.subtract),
    "math.multiply": _binary(tf.multiply), "math.maximum": _binary(tf.maximum), "math.minimum": _binary(tf.minimum),
    "math.add_n": lambda m, x: tf.add_n([x, m.partner(x, same=True), x]),
    "math.truediv": _divide(tf.truediv, tf), "math.divide": _divide(tf.divide, tf),
    "math.pow": lambda m, x: tf.pow(_positive(m, x, tf), _choice(m, 1.0, 2.0, 0.5, -0.5, -1.0, 3.0)),
    "math.negative": _unary(tf.negative), "clip_by_value": _clip(tf.clip_by_value), "linalg.matmul": _tf_matmul,
    "nn.bias_add": _bias_add, "nn.relu": _unary(tf.nn.relu), "nn.relu6": _unary(tf.nn.relu6),
    "nn.leaky_relu": _unary(tf.nn.leaky_relu), "nn.elu": _unary(tf.nn.elu), "nn.selu": _unary(tf.nn.selu),
    "math.sigmoid": _unary(tf.sigmoid), "math.tanh": _unary(tf.tanh), "nn.silu": _unary(tf.nn.silu),
    "nn.gelu": lambda m, x: tf.nn.gelu(x, approximate=_choice(m, True, False)), "nn.softmax": _axis(tf.nn.softmax),
    "nn.log_softmax": _axis(tf.nn.log_softmax), "reshape": _new_shape(tf.reshape), "shape": _dynamic,
    "squeeze": _squeeze(tf.squeeze), "compat.v1.squeeze": _squeeze(tf.compat.v1.squeeze),
    "expand_dims": _expand(tf.expand_dims), "compat.v1.expand_dims": _expand(tf.compat.v1.expand_dims),
    "transpose": _transpose(tf.transpose), "compat.v1.transpose": _transpose(tf.compat.v1.transpose),
    "concat": _joined(tf.concat), "stack": _joined(tf.stack),
    "split": lambda m, x: _split(tf.split, cut=m.rng.random() < 0.5)(m, x),
    "unstack": lambda m, x: list(tf.unstack(x, axis=-1))[:2] if rank(x) > 1 else None,
    "__operators__.getitem": _get_item, "pad": _pad(tf.pad), "compat.v1.pad": _pad(tf.compat.v1.pad),
    "math.reduce_mean": _along(lambda x, a, k: tf.reduce_mean(x, a, keepdims=k)),
    "math.reduce_sum": _along(lambda x, a, k: tf.reduce_sum(x, a, keepdims=k)),
    "math.reduce_max": _spatial_max(lambda x, a, k: tf.reduce_max(x, a, keepdims=k)),
    "cast": lambda m, x: tf.cast(x, tf.float32) * 2, "identity": _unary(tf.identity),
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
