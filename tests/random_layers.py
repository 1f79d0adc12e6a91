"""One step of a random graph for every layer and activation that the frontends accept.

A step is a function of the maker (`random_graphs.Maker`) and a symbolic tensor; it returns a tensor, or None where the
tensor does not suit. `LAYERS` names the steps by what they cover.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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


def choice(m: Any, *values: Any) -> Any:
    return values[int(m.rng.integers(len(values)))]


def _activation(m: Any) -> Any:
    known = [a for a in ACTIVATIONS if m.knows_activation(a)]
    return choice(m, None, None, *known)


def fits(x: Any, *ranks: int, least: int = 1) -> bool:
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
    return m.layer("Dot", [x, y], axes=choice(m, (1, 1), (2, 2), 2)) if rank(x) == 2 else None


def _conv(kind: str, dimensions: int, *, depthwise: bool = False, transposed: bool = False) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not fits(x, dimensions + 1, least=3):
            return None
        channels = sample(x)[-1]
        config: dict[str, Any] = {
            "kernel_size": choice(m, 1, 2, 3, (3, 2) if dimensions == 2 else 3),
            "padding": choice(m, "same", "valid", "causal" if kind == "Conv1D" else "same"),
            "activation": _activation(m),
            "use_bias": choice(m, True, True, False),
        }
        config["strides"] = choice(m, 1, 1, 2)
        if config["strides"] == 1 and m.rng.random() < 0.2 and not transposed and min(sample(x)[:-1]) >= 5:
            config["dilation_rate"] = 2
        if depthwise:
            config["depth_multiplier"] = choice(m, 1, 1, 2)
        if not kind.startswith("Depthwise"):
            config["filters"] = int(m.rng.integers(1, 7))
        if kind in ("Conv1D", "Conv2D") and m.rng.random() < 0.25:
            config["groups"] = channels if channels < 7 else 1
            config["filters"] = config["groups"] * choice(m, 1, 2)
        return m.layer(kind, x, **config)

    return step


def _pool(kind: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not fits(x, dimensions + 1, least=3):
            return None
        size = choice(m, 2, 3, (2, 3) if dimensions == 2 else 2)
        return m.layer(kind, x, pool_size=size, strides=choice(m, None, 1, 2), padding=choice(m, "same", "valid"))

    return step


def _global(kind: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        return m.layer(kind, x, keepdims=choice(m, True, False)) if rank(x) == dimensions + 1 else None

    return step


def _border(kind: str, key: str, dimensions: int) -> Any:
    def step(m: Any, x: Any) -> Any:
        if not fits(x, dimensions + 1, least=4):
            return None
        one, two = choice(m, (1, 1), (0, 2), (1, 0)), choice(m, (1, 1), (0, 1))
        return m.layer(kind, x, **{key: one if dimensions == 1 else (one, two)})

    return step


def _plain(kind: str, *ranks: int, **choices: tuple[Any, ...]) -> Any:
    """A layer with one of the values of each key, on tensors of these ranks (none: of any)."""

    def step(m: Any, x: Any) -> Any:
        if ranks and rank(x) not in ranks:
            return None
        return m.layer(kind, x, **{key: choice(m, *values) for key, values in choices.items()})

    return step


def _dense(m: Any, x: Any) -> Any:
    units, bias = int(m.rng.integers(1, 8)), choice(m, True, True, False)
    return m.layer("Dense", x, units=units, activation=_activation(m), use_bias=bias)


def _einsum_dense(m: Any, x: Any) -> Any:
    shape = sample(x)
    units, bias = int(m.rng.integers(1, 6)), choice(m, None, "last")
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
    layer = m.make("MultiHeadAttention", num_heads=choice(m, 1, 2), key_dim=3, use_bias=choice(m, True, False))
    y = m.partner(x, same=True)
    return layer(x, y) if m.rng.random() < 0.7 else layer(x, y, x)


def _normalization(m: Any, x: Any) -> Any:
    channels = sample(x)[-1]
    mean, variance = m.rng.normal(size=channels).tolist(), m.rng.uniform(0.5, 2, channels).tolist()
    return m.layer("Normalization", x, mean=mean, variance=variance, invert=choice(m, False, False, True))


def _normalizing(kind: str, **choices: tuple[Any, ...]) -> Any:
    def step(m: Any, x: Any) -> Any:
        config = {key: choice(m, *values) for key, values in choices.items()}
        if kind == "GroupNormalization":
            config["groups"] = choice(m, 1, -1, sample(x)[-1])
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
    limit = choice(m, None, None, 6.0, 1.5)
    slope = 0.0 if limit else choice(m, 0.0, 0.0, 0.1)
    return m.layer("ReLU", x, max_value=limit, negative_slope=slope, threshold=choice(m, 0.0, 0.0, 0.0, 0.5))


def _reshape(m: Any, x: Any) -> Any:
    size, shapes = int(np.prod(sample(x))), []
    for a in range(1, size + 1):
        if size % a == 0:
            shapes += [(a, size // a), (1, a, size // a)]
    target = list(choice(m, (size,), *shapes))
    if m.rng.random() < 0.3:
        target[int(m.rng.integers(len(target)))] = -1
    return m.layer("Reshape", x, target_shape=tuple(target))


def _resizing(m: Any, x: Any) -> Any:
    if rank(x) != 3:
        return None
    size = {"height": int(m.rng.integers(1, 9)), "width": int(m.rng.integers(1, 9))}
    return m.layer("Resizing", x, **size, interpolation=choice(m, "bilinear", "nearest"))


def _softmax(m: Any, x: Any) -> Any:
    return m.layer("Softmax", x, axis=choice(m, -1, -1, int(m.rng.integers(1, rank(x) + 1))))


def _attention(m: Any, x: Any) -> Any:
    if rank(x) != 2:
        return None
    kind = choice(m, "Attention", "AdditiveAttention")
    return m.layer(kind, [x, m.partner(x, same=True)], **({"use_scale": choice(m, True, False)}))


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
