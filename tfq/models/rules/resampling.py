"""Pooling, padding, cropping and resizing: 1-D layers work on images of height 1."""

from __future__ import annotations

from collections.abc import Sequence

from tfq.models.graph import Node
from tfq.models.rules.convolutions import image, keep, row
from tfq.models.rules.rule import Layer, Shape, refuse


def pool1d(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    config = row(node.config, "pool_size", "strides") | keep(node.config, "padding")
    return image(node, inputs, output, [node.replace(kind=node.kind.replace("1D", "2D"), config=config)])


def global_pool1d(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    return image(node, inputs, output, [node.replace(kind=node.kind.replace("1D", "2D"), config={})])


def border1d(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    key = "padding" if node.kind == "ZeroPadding1D" else "cropping"
    value = node.config[key]
    sides = (value, value) if isinstance(value, int) else tuple(value)
    layer = node.replace(kind=node.kind.replace("1D", "2D"), config={key: ((0, 0), sides)})
    return image(node, inputs, output, [layer])


def upsampling1d(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    layer = node.replace(kind="UpSampling2D", config={"size": (1, int(node.config["size"]))})
    return image(node, inputs, output, [layer])


def repeat_vector(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    layer = node.replace(kind="UpSampling2D", config={"size": (1, int(node.config["n"]))})
    return image(node, [(1, *inputs[0])], output, [layer])


def interpolation(node: Node, _: Sequence[Shape], __: Shape) -> None:
    method = node.config.get("interpolation", "nearest" if node.kind == "UpSampling2D" else "bilinear")
    if method not in ("nearest", "bilinear"):
        raise refuse(node, f"interpolation {method!r} has no TFLite operation", 'use "nearest" or "bilinear"')
    if node.config.get("crop_to_aspect_ratio"):
        raise refuse(node, "crop_to_aspect_ratio has no TFLite operation", "crop with a Cropping2D layer first")


LAYERS = {
    "AveragePooling1D": Layer(pool1d, aliases=("AvgPool1D",)),
    "AveragePooling2D": Layer(aliases=("AvgPool2D",)),
    "Cropping1D": Layer(border1d, moves=True),
    "Cropping2D": Layer(moves=True),
    "GlobalAveragePooling1D": Layer(global_pool1d, aliases=("GlobalAvgPool1D",)),
    "GlobalAveragePooling2D": Layer(aliases=("GlobalAvgPool2D",)),
    "GlobalMaxPooling1D": Layer(global_pool1d, aliases=("GlobalMaxPool1D",)),
    "GlobalMaxPooling2D": Layer(aliases=("GlobalMaxPool2D",)),
    "MaxPooling1D": Layer(pool1d, aliases=("MaxPool1D",)),
    "MaxPooling2D": Layer(aliases=("MaxPool2D",)),
    "RepeatVector": Layer(repeat_vector, moves=True),
    "Resizing": Layer(interpolation),
    "UpSampling1D": Layer(upsampling1d, moves=True),
    "UpSampling2D": Layer(interpolation, moves=True),
    "ZeroPadding1D": Layer(border1d, moves=True),
    "ZeroPadding2D": Layer(moves=True),
}
