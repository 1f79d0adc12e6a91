"""Every layer as the operations of `tfq.operations.table.OPERATORS` and `Affine`.

Each rule is exact in real arithmetic. 1-D layers become 2-D ones on images of height 1; dense layers on
inputs of rank above 2 become 1x1 convolutions, so that weights stay per channel and the batch axis is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.models.attention import attention, multi_head_attention
from tfq.models.dense import dense, einsum_dense
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.rewrite import made_by, rewrite
from tfq.operations.table import OPERATORS

_Shape = tuple[int, ...]
_Rule = Callable[[Node, Sequence[_Shape], _Shape], "list[Node] | str | None"]

_TRAINING_LAYERS = """
    Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
    ActivityRegularization Identity RandomFlip RandomRotation RandomTranslation RandomZoom RandomContrast
    RandomBrightness RandomHeight RandomWidth
"""
_RECURRENT_LAYERS = "LSTM GRU SimpleRNN Bidirectional RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D"
_MASK_READING_LAYERS = "GlobalAveragePooling1D MultiHeadAttention Attention AdditiveAttention Softmax TimeDistributed"
TRAINING_ONLY = frozenset(_TRAINING_LAYERS.split())
_RECURRENT = frozenset(_RECURRENT_LAYERS.split())
_MASK_READERS = frozenset(_MASK_READING_LAYERS.split())


def refuse(node: Node, why: str, way_out: str) -> UserError:
    """The one form in which a layer is refused."""
    return UserError(f"layer {node.origin[0]!r} ({node.kind}): {why}; {way_out}")


def drop_training_layers(graph: Graph) -> Graph:
    """Remove the layers that are the identity outside training."""
    return rewrite(graph, lambda node: node.inputs[0] if node.kind in TRAINING_ONLY else None)


# --- fused activations -------------------------------------------------------------------------------------------


def split_activations(graph: Graph) -> Graph:
    """Give every activation that a layer's config fuses a node of its own, `<layer>.<activation>`."""

    def rule(node: Node) -> list[Node] | None:
        kind, config = _activation_layer(node.config.get("activation"))
        if node.kind == "Activation" or config == {"activation": "linear"}:
            return None
        bare = node.replace(config={k: v for k, v in node.config.items() if k != "activation"})
        role = config["activation"] if kind == "Activation" else kind.lower()
        return [bare, made_by(node, role, kind, (node.name,), config)]

    return rewrite(graph, rule)


def _activation_layer(value: Any) -> tuple[str, dict[str, Any]]:
    """The layer kind and config that a Keras `activation=` value stands for."""
    if isinstance(value, Mapping):
        if isinstance(value["config"], str):  # a serialised function
            return "Activation", {"activation": value["config"]}
        return value["class_name"], {
            k: v for k, v in value["config"].items() if k not in ("name", "dtype", "trainable")
        }
    return "Activation", {"activation": value or "linear"}


_SIMPLE_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "relu6": ("ReLU", {"max_value": 6.0}),
    "leaky_relu": ("LeakyReLU", {"alpha": 0.2}),
    "elu": ("ELU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {}),
    "hard_swish": ("HardSwish", {}),
    "hard_silu": ("HardSwish", {}),
    "gelu": ("Gelu", {"approximate": False}),
    "exponential": ("Unary", {"function": "exp"}),
    **{name: ("Unary", {"function": name}) for name in ("selu", "softplus", "softsign", "log_softmax")},
}


def _affine(node: Node, role: str, source: str, channels: int, scale: Any, offset: Any = 0.0) -> Node:
    """A node `<node>.<role>`, or `node` itself where `role` is empty: source * scale + offset."""
    weights = {
        name: np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (channels,)).copy()
        for name, value in (("scale", scale), ("offset", offset))
    }
    if role:
        return made_by(node, role, "Affine", (source,), weights=weights)
    return node.replace(kind="Affine", config={}, weights=weights, inputs=(source,))


def _activation(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | str:
    function, source = node.config["activation"], node.inputs[0]
    if function == "linear":
        return source
    if function in ("swish", "silu"):
        gate = made_by(node, "sigmoid", "Sigmoid", (source,))
        return [gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
    if function == "mish":
        softplus = made_by(node, "softplus", "Unary", (source,), {"function": "softplus"})
        gate = made_by(node, "tanh", "Tanh", (softplus.name,))
        return [softplus, gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
    if function == "hard_sigmoid":  # tf_keras: clip(0.2 x + 0.5, 0, 1) = relu6(1.2 x + 3) / 6
        shifted = _affine(node, "shift", source, inputs[0][-1], 1.2, 3.0)
        clipped = made_by(node, "relu6", "ReLU", (shifted.name,), {"max_value": 6.0})
        return [shifted, clipped, _affine(node, "", clipped.name, inputs[0][-1], 1 / 6)]
    if function not in _SIMPLE_ACTIVATIONS:
        raise refuse(
            node,
            f"the activation {function!r} is not known (known: linear, swish, mish, hard_sigmoid,"
            f" {', '.join(_SIMPLE_ACTIVATIONS)})",
            "use one of these, or build it from layers",
        )
    kind, config = _SIMPLE_ACTIVATIONS[function]
    return [node.replace(kind=kind, config=config)]


def _relu(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | None:
    limit, slope = node.config.get("max_value"), node.config.get("negative_slope") or 0.0
    if node.config.get("threshold"):
        raise refuse(node, f"threshold (={node.config['threshold']}) has no int8 operation", "use threshold=0")
    plain = {} if limit is None else {"max_value": 6.0}
    if slope:
        if limit is not None:
            raise refuse(node, "max_value together with negative_slope has no int8 operation", "use only one of them")
        return [node.replace(kind="LeakyReLU", config={"alpha": float(slope)})]
    if limit is None or limit == 6.0:
        return None if dict(node.config) == plain else [node.replace(config=plain)]
    # clip(x, 0, m) = relu6(x * 6 / m) * m / 6
    scaled = _affine(node, "scale", node.inputs[0], inputs[0][-1], 6.0 / limit)
    clipped = made_by(node, "relu6", "ReLU", (scaled.name,), plain)
    return [scaled, clipped, _affine(node, "", clipped.name, inputs[0][-1], limit / 6.0)]


def _elu(node: Node, _: Sequence[_Shape], __: _Shape) -> None:
    if node.config.get("alpha", 1.0) != 1.0:
        raise refuse(node, f"alpha (={node.config['alpha']}) is not 1, the only one that TFLite has", "use alpha=1")


def _prelu(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node] | None:
    """On an image [h, w, channels], the rank that the kernels take; of one slope a channel where that is enough."""
    shape, alpha = inputs[0], node.weights["alpha"]
    if len(shape) == 3:
        return None
    if alpha.size == alpha.shape[-1]:
        slopes = np.broadcast_to(alpha.reshape(1, 1, -1), (1, 1, shape[-1]))
    else:
        slopes = np.broadcast_to(alpha, shape).reshape(1, -1, shape[-1])
    image = (1, int(np.prod(shape[:-1])), shape[-1])
    before = made_by(node, "image", "Reshape", node.inputs, {"target_shape": image})
    after = made_by(node, "shape", "Reshape", (node.name,), {"target_shape": output})
    shared = [axis for axis in (1, 2, 3) if slopes.shape[axis - 1] == 1]
    weights = {"alpha": np.ascontiguousarray(slopes)}
    return [before, node.replace(config={"shared_axes": shared}, weights=weights, inputs=(before.name,)), after]


def _softmax(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | None:
    rank = len(inputs[0])
    axis = node.config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise refuse(node, f"axis (={list(axis)}) names several axes", "flatten them with a Reshape layer")
        axis = axis[0]
    if axis in (-1, rank):
        return None if not node.config else [node.replace(config={})]
    return _on_last_axis(node, axis, rank, lambda source: made_by(node, "moved", "Softmax", (source,)))


def _on_last_axis(node: Node, axis: int, rank: int, make: Callable[[str], Node]) -> list[Node]:
    """Swap `axis` (counted with the batch axis) and the last axis, do `make`, and swap them back."""
    axis = axis % (rank + 1)
    dims = list(range(1, rank + 1))
    dims[axis - 1], dims[-1] = dims[-1], dims[axis - 1]
    before = made_by(node, "to_last", "Permute", node.inputs, {"dims": tuple(dims)})
    moved = make(before.name)
    return [before, moved, node.replace(kind="Permute", config={"dims": tuple(dims)}, weights={}, inputs=(moved.name,))]


def _layer_normalization(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | None:
    axis = node.config.get("axis", -1)
    if list(np.atleast_1d(axis)) == [len(inputs[0])]:
        return [node.replace(config={**node.config, "axis": [-1]})]  # whatever the rank becomes
    return None


# --- affine maps -------------------------------------------------------------------------------------------------


def _batch_normalization(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node]:
    """An Affine node that remembers the mean beta and the deviation |gamma| sqrt(variance / (variance + epsilon)).

    The deviation is what the layer really gives where the moving variance is true. |gamma| alone would tell of
    a channel without variance, a dead one, that it varies.
    """
    weights = {name: np.asarray(w, np.float64) for name, w in node.weights.items()}
    scale = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + node.config.get("epsilon", 1e-3))
    offset = weights.get("beta", 0.0) - weights["moving_mean"] * scale
    axis = node.config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise refuse(node, f"axis (={list(axis)}) names several axes", "normalise over one channel axis")
        axis = axis[0]
    rank, channels = len(inputs[0]), len(scale)
    mean = np.broadcast_to(weights.get("beta", 0.0), (channels,))
    normalized = (mean, np.abs(scale) * np.sqrt(weights["moving_variance"]))

    def affine(role: str, source: str) -> Node:
        return _affine(node, role, source, channels, scale, offset).replace(normalized=normalized)

    if axis in (-1, rank):
        return [affine("", node.inputs[0])]
    return _on_last_axis(node, axis, rank, lambda source: affine("affine", source))


def _per_channel(node: Node, what: str, value: Any, channels: int) -> np.ndarray:
    """`value` as [channels]; it may vary along the last axis only."""
    found = np.asarray(value, np.float64)
    if found.size not in (1, channels) or found.shape[-1:] not in ((), (1,), (channels,)):
        raise refuse(
            node, f"{what} of shape {found.shape} varies along other axes than the last", "use one value per channel"
        )
    return np.broadcast_to(found.reshape(-1), (channels,))


def _rescaling(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node]:
    channels = inputs[0][-1]
    scale = _per_channel(node, "scale", node.config["scale"], channels)
    offset = _per_channel(node, "offset", node.config.get("offset", 0.0), channels)
    return [_affine(node, "", node.inputs[0], channels, scale, offset)]


def _normalization(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node]:
    channels = inputs[0][-1]
    given = {name: node.weights.get(name, node.config.get(name)) for name in ("mean", "variance")}
    mean, variance = (_per_channel(node, name, value, channels) for name, value in given.items())
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if node.config.get("invert"):
        return [_affine(node, "", node.inputs[0], channels, deviation, mean)]
    return [_affine(node, "", node.inputs[0], channels, 1 / deviation, -mean / deviation)]


# --- convolutions ------------------------------------------------------------------------------------------------


def _keep(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: config[key] for key in keys if key in config}


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def _row(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Sizes along one axis as sizes on an image of height 1."""
    return {key: (1, _one(config[key])) for key in keys if config.get(key) is not None}


def _image(node: Node, inputs: Sequence[_Shape], output: _Shape, layers: Sequence[Node]) -> list[Node]:
    """`layers` (a chain of 2-D layers, the first reading `node`'s input) on images of height 1."""
    before = made_by(node, "image", "Reshape", node.inputs, {"target_shape": (1, *inputs[0])})
    after = made_by(node, "row", "Reshape", (layers[-1].name,), {"target_shape": output})
    return [before, layers[0].replace(inputs=(before.name,)), *layers[1:], after]


def _conv1d(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    config = _keep(node.config, "filters", "padding", "groups", "use_bias", "depth_multiplier")
    config |= {"kernel_size": (1, _one(node.config["kernel_size"]))}
    # a depthwise convolution takes equal strides only, and along the height of 1 any stride gives 1
    stride = _one(node.config.get("strides", 1))
    depthwise = node.kind in ("DepthwiseConv1D", "SeparableConv1D")
    config |= {"strides": (stride, stride) if depthwise else (1, stride)}
    config |= _row(node.config, "dilation_rate", "output_padding")
    kind = {"SeparableConv1D": "SeparableConv2D"}.get(node.kind, node.kind.replace("1D", "2D"))
    weights = {name: w if name == "bias" else w[None] for name, w in node.weights.items()}
    layer = node.replace(kind=kind, config=config, weights=weights)
    layers = [layer]
    if config.get("padding") == "causal":
        left = (config["kernel_size"][1] - 1) * config.get("dilation_rate", (1, 1))[1]
        padding = made_by(node, "causal", "ZeroPadding2D", node.inputs, {"padding": ((0, 0), (left, 0))})
        layers = [padding, layer.replace(config={**config, "padding": "valid"}, inputs=(padding.name,))]
    if kind == "SeparableConv2D":
        layers[-1:] = _separable_conv2d(layers[-1], inputs, output)
    return _image(node, inputs, output, layers)


def _separable_conv2d(node: Node, _: Sequence[_Shape], __: _Shape) -> list[Node]:
    depthwise = made_by(
        node,
        "depthwise",
        "DepthwiseConv2D",
        node.inputs,
        _keep(node.config, "kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")
        | {"use_bias": False},
        _keep(node.weights, "depthwise_kernel"),
    )
    weights = {"kernel": node.weights["pointwise_kernel"]} | _keep(node.weights, "bias")
    config = {"filters": node.config["filters"], "kernel_size": (1, 1), "use_bias": "bias" in weights}
    return [depthwise, node.replace(kind="Conv2D", config=config, weights=weights, inputs=(depthwise.name,))]


def _conv2d(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | None:
    groups, channels = node.config.get("groups", 1), inputs[0][-1]
    strides = node.config.get("strides", (1, 1))
    square = not isinstance(strides, (list, tuple)) or strides[0] == strides[1]
    if groups == 1 or groups != channels or not square:
        return None
    kernel = node.weights["kernel"]
    config = _keep(node.config, "kernel_size", "strides", "padding", "dilation_rate", "use_bias")
    multiplier = kernel.shape[3] // groups
    weights = {"depthwise_kernel": kernel.reshape(*kernel.shape[:2], groups, multiplier)} | _keep(node.weights, "bias")
    return [node.replace(kind="DepthwiseConv2D", config={**config, "depth_multiplier": multiplier}, weights=weights)]


def _no_dilation(node: Node, _: Sequence[_Shape], __: _Shape) -> None:
    rate = node.config.get("dilation_rate", 1)
    if tuple(np.atleast_1d(rate)) not in ((1,), (1, 1)):
        raise refuse(node, f"dilation_rate (={rate}) of a transposed convolution has no int8 operation", "use 1")


# --- pooling, padding, resampling --------------------------------------------------------------------------------


def _pool1d(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    config = _row(node.config, "pool_size", "strides") | _keep(node.config, "padding")
    return _image(node, inputs, output, [node.replace(kind=node.kind.replace("1D", "2D"), config=config)])


def _global_pool1d(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    return _image(node, inputs, output, [node.replace(kind=node.kind.replace("1D", "2D"), config={})])


def _border1d(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    key = "padding" if node.kind == "ZeroPadding1D" else "cropping"
    value = node.config[key]
    sides = (value, value) if isinstance(value, int) else tuple(value)
    layer = node.replace(kind=node.kind.replace("1D", "2D"), config={key: ((0, 0), sides)})
    return _image(node, inputs, output, [layer])


def _upsampling1d(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    layer = node.replace(kind="UpSampling2D", config={"size": (1, int(node.config["size"]))})
    return _image(node, inputs, output, [layer])


def _repeat_vector(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    layer = node.replace(kind="UpSampling2D", config={"size": (1, int(node.config["n"]))})
    return _image(node, [(1, *inputs[0])], output, [layer])


def _center_crop(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    before = [(have - want) // 2 for have, want in zip(inputs[0][:2], output[:2], strict=True)]
    if min(before) < 0:
        raise refuse(node, f"it enlarges images of {inputs[0][:2]} to {output[:2]}", "use a Resizing layer")
    after = [have - want - b for have, want, b in zip(inputs[0][:2], output[:2], before, strict=True)]
    cropping = tuple(zip(before, after, strict=True))
    return [node.replace(kind="Cropping2D", config={"cropping": cropping})]


def _interpolation(node: Node, _: Sequence[_Shape], __: _Shape) -> None:
    method = node.config.get("interpolation", "nearest" if node.kind == "UpSampling2D" else "bilinear")
    if method not in ("nearest", "bilinear"):
        raise refuse(node, f"interpolation {method!r} has no TFLite operation", 'use "nearest" or "bilinear"')
    if node.config.get("crop_to_aspect_ratio"):
        raise refuse(node, "crop_to_aspect_ratio has no TFLite operation", "crop with a Cropping2D layer first")


# --- merging layers ----------------------------------------------------------------------------------------------


def _same_rank(node: Node, inputs: Sequence[_Shape]) -> tuple[list[Node], list[str]]:
    """Reshapes that give every input the rank of the largest, by leading axes of 1, and the names to read then."""
    rank = max(map(len, inputs))
    made, names = [], []
    for i, (name, shape) in enumerate(zip(node.inputs, inputs, strict=True)):
        if len(shape) < rank:
            target = (*(1,) * (rank - len(shape)), *shape)
            made.append(made_by(node, f"input{i}", "Reshape", (name,), {"target_shape": target}))
            name = made[-1].name
        names.append(name)
    return made, names


def _merge(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node] | None:
    """Layers of several inputs as chains of two; an average as a sum and a factor."""
    if len(node.inputs) == 2 and len(inputs[0]) == len(inputs[1]) and node.kind != "Average":
        return None
    kind = "Add" if node.kind == "Average" else node.kind
    made, names = _same_rank(node, inputs)
    total = names[0]
    for i, name in enumerate(names[1:], 1):
        last = i == len(names) - 1 and node.kind != "Average"
        made.append(
            node.replace(kind=kind, config={}, inputs=(total, name))
            if last
            else made_by(node, f"{kind.lower()}{i}", kind, (total, name))
        )
        total = made[-1].name
    if node.kind == "Average":
        made.append(_affine(node, "", total, output[-1], 1 / len(names)))
    return made


def _dot(node: Node, inputs: Sequence[_Shape], output: _Shape) -> list[Node]:
    axes = node.config["axes"]
    axes = (axes, axes) if isinstance(axes, int) else tuple(axes)
    ranks = tuple(map(len, inputs))
    first, second = (axis % (rank + 1) for axis, rank in zip(axes, ranks, strict=True))
    if node.config.get("normalize"):
        raise refuse(node, "normalize=True has no int8 operation", "use a plain product")
    if ranks == (1, 1):
        rows = [
            made_by(node, f"row{i}", "Reshape", (name,), {"target_shape": (1, *shape)})
            for i, (name, shape) in enumerate(zip(node.inputs, inputs, strict=True))
        ]
        product = node.replace(kind="MatMul", config={"transpose_b": True}, inputs=tuple(r.name for r in rows))
        return [*rows, product, made_by(node, "scalar", "Reshape", (node.name,), {"target_shape": output})]
    if ranks != (2, 2):
        raise refuse(node, f"it multiplies inputs of shapes {inputs[0]} and {inputs[1]}", "reshape both to rank 3")
    return [node.replace(kind="MatMul", config={"transpose_a": first == 1, "transpose_b": second == 2})]


def _concatenate(node: Node, inputs: Sequence[_Shape], _: _Shape) -> list[Node] | str | None:
    if len(node.inputs) == 1:
        return node.inputs[0]
    if node.config.get("axis", -1) % (len(inputs[0]) + 1) == 0:
        raise refuse(node, "it joins the batch axis", "join along another axis")
    return None


RULES: dict[str, _Rule] = {
    "Activation": _activation,
    "ReLU": _relu,
    "ELU": _elu,
    "PReLU": _prelu,
    "Softmax": _softmax,
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "MultiHeadAttention": multi_head_attention,
    "Attention": attention,
    "Conv1D": _conv1d,
    "Conv1DTranspose": _conv1d,
    "DepthwiseConv1D": _conv1d,
    "SeparableConv1D": _conv1d,
    "SeparableConv2D": _separable_conv2d,
    "Conv2D": _conv2d,
    "Conv2DTranspose": _no_dilation,
    "MaxPooling1D": _pool1d,
    "AveragePooling1D": _pool1d,
    "GlobalAveragePooling1D": _global_pool1d,
    "GlobalMaxPooling1D": _global_pool1d,
    "ZeroPadding1D": _border1d,
    "Cropping1D": _border1d,
    "UpSampling1D": _upsampling1d,
    "UpSampling2D": _interpolation,
    "Resizing": _interpolation,
    "RepeatVector": _repeat_vector,
    "CenterCrop": _center_crop,
    "Concatenate": _concatenate,
    "Dot": _dot,
    **dict.fromkeys(("Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract"), _merge),
}


def require_supported(graph: Graph) -> None:
    """Refuse by name what `decompose` cannot take.

    Raises:
      UserError: the first such layer, its kind, why, and the way out.
    """
    kinds = {node.kind for node in graph.nodes}
    for node in graph.nodes:
        if node.kind in _RECURRENT:
            raise refuse(node, "recurrent layers have no static int8 form", "use Conv1D or attention layers")
        if node.kind not in {INPUT, "Affine", *OPERATORS, *RULES, *TRAINING_ONLY}:
            raise refuse(node, "there is no int8 operation for it", "replace it by layers of the supported kinds")
        if node.config.get("data_format") == "channels_first":
            raise refuse(node, "data_format is channels_first", "rebuild the model with channels_last")
        if node.config.get("mask_zero") and kinds & _MASK_READERS:
            raise refuse(
                node, "mask_zero=True sends a mask to later layers, which TFLite cannot", "train with mask_zero=False"
            )


def decompose(graph: Graph) -> Graph:
    """Rewrite every node into the kinds of `OPERATORS` and `Affine`; fused activations must be split already."""
    shapes = tensor_shapes(graph)
    inputs = {node.name: [shapes[i] for i in node.inputs] for node in graph.nodes}

    def rule(node: Node) -> list[Node] | str | None:
        found = RULES.get(node.kind)
        return found(node, inputs[node.name], shapes[node.name]) if found else None

    return rewrite(graph, rule)
