"""Convolutions as those that have a row in the table: 1-D ones work on images of height 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by, reshaped
from tfq.models.rules.rule import Layer, Shape, refuse


def keep(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: config[key] for key in keys if key in config}


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def row(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Sizes along one axis as sizes on an image of height 1."""
    return {key: (1, _one(config[key])) for key in keys if config.get(key) is not None}


def image(node: Node, inputs: Sequence[Shape], output: Shape, layers: Sequence[Node]) -> list[Node]:
    """`layers` (a chain of 2-D layers, the first reading `node`'s input) on images of height 1."""
    return reshaped(node, (1, *inputs[0]), layers, output, "row")


def conv1d(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    config = keep(node.config, "filters", "padding", "groups", "use_bias", "depth_multiplier")
    config |= {"kernel_size": (1, _one(node.config["kernel_size"]))}
    # a depthwise convolution takes equal strides only, and along the height of 1 any stride gives 1
    stride = _one(node.config.get("strides", 1))
    depthwise = node.kind in ("DepthwiseConv1D", "SeparableConv1D")
    config |= {"strides": (stride, stride) if depthwise else (1, stride)}
    config |= row(node.config, "dilation_rate", "output_padding")
    kind = {"SeparableConv1D": "SeparableConv2D"}.get(node.kind, node.kind.replace("1D", "2D"))
    weights = {name: w if name == "bias" else w[None] for name, w in node.weights.items()}
    layer = node.replace(kind=kind, config=config, weights=weights)
    layers = [layer]
    if config.get("padding") == "causal":
        left = (config["kernel_size"][1] - 1) * config.get("dilation_rate", (1, 1))[1]
        padding = made_by(node, "causal", "ZeroPadding2D", node.inputs, {"padding": ((0, 0), (left, 0))})
        layers = [padding, layer.replace(config={**config, "padding": "valid"}, inputs=(padding.name,))]
    if kind == "SeparableConv2D":
        layers[-1:] = separable_conv2d(layers[-1], inputs, output)
    return image(node, inputs, output, layers)


def separable_conv2d(node: Node, _: Sequence[Shape], __: Shape) -> list[Node]:
    depthwise = made_by(
        node,
        "depthwise",
        "DepthwiseConv2D",
        node.inputs,
        keep(node.config, "kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")
        | {"use_bias": False},
        keep(node.weights, "depthwise_kernel"),
    )
    weights = {"kernel": node.weights["pointwise_kernel"]} | keep(node.weights, "bias")
    config = {"filters": node.config["filters"], "kernel_size": (1, 1), "use_bias": "bias" in weights}
    return [depthwise, node.replace(kind="Conv2D", config=config, weights=weights, inputs=(depthwise.name,))]


def conv2d(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | None:
    groups, channels = node.config.get("groups", 1), inputs[0][-1]
    strides = node.config.get("strides", (1, 1))
    square = not isinstance(strides, (list, tuple)) or strides[0] == strides[1]
    if groups == 1 or groups != channels or not square:
        return None
    kernel = node.weights["kernel"]
    config = keep(node.config, "kernel_size", "strides", "padding", "dilation_rate", "use_bias")
    multiplier = kernel.shape[3] // groups
    weights = {"depthwise_kernel": kernel.reshape(*kernel.shape[:2], groups, multiplier)} | keep(node.weights, "bias")
    return [node.replace(kind="DepthwiseConv2D", config={**config, "depth_multiplier": multiplier}, weights=weights)]


def no_dilation(node: Node, _: Sequence[Shape], __: Shape) -> None:
    rate = node.config.get("dilation_rate", 1)
    if tuple(np.atleast_1d(rate)) not in ((1,), (1, 1)):
        raise refuse(node, f"dilation_rate (={rate}) of a transposed convolution has no int8 operation", "use 1")


_DEPTHWISE = {"kernel": "depthwise_kernel"}
LAYERS = {
    "Conv1D": Layer(conv1d, aliases=("Convolution1D",)),
    "Conv1DTranspose": Layer(conv1d, aliases=("Convolution1DTranspose",)),
    "Conv2D": Layer(conv2d, aliases=("Convolution2D",)),
    "Conv2DTranspose": Layer(no_dilation, aliases=("Convolution2DTranspose",)),
    "DepthwiseConv1D": Layer(conv1d, renamed=_DEPTHWISE),
    "DepthwiseConv2D": Layer(renamed=_DEPTHWISE),
    "SeparableConv1D": Layer(conv1d, aliases=("SeparableConvolution1D",)),
    "SeparableConv2D": Layer(separable_conv2d, aliases=("SeparableConvolution2D",)),
}
