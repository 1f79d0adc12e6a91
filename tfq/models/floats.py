"""Layers as float kernels compute them well, where the integer form is another.

a 1x1 convolution is a dense layer     where activations are rounded at run time: row by row then, not once for a
                                       whole sample, and its weights may be packed two or four to a byte
a scale and an offset for each of      TFLite's builtin float kernel for depthwise convolutions never ends where
very many channels: a product and      one pixel has more channels than its accumulator holds
a sum
"""

from __future__ import annotations

import numpy as np

from tfq.models.forms import split_for
from tfq.models.fuse import merge_duplicates
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import rewrite
from tfq.targets.target import Target

_MOST_CHANNELS = 4832  # kAccBufferMaxSize of DepthwiseConvImpl in TFLite's depthwiseconv_float.h


def for_dynamic_range(graph: Graph, target: Target) -> Graph:
    """The graph in the forms that the target runs fast with integer weights among float activations."""
    graph, _ = split_for(graph, target)
    return merge_duplicates(pointwise_as_dense(graph))


def pointwise_as_dense(graph: Graph) -> Graph:
    """Every 1x1 convolution as a dense layer over the last axis."""

    def rule(node: Node) -> list[Node] | None:
        if node.kind != "Conv2D" or not _is_pointwise(node):
            return None
        kernel = node.weights["kernel"]
        config = {"units": kernel.shape[-1], "use_bias": "bias" in node.weights}
        return [node.replace(kind="Dense", config=config, weights={**node.weights, "kernel": kernel[0, 0]})]

    return rewrite(graph, rule)


def without_wide_depthwise(graph: Graph) -> Graph:
    """Every 1x1 depthwise convolution of too many channels as a product and a sum."""

    def rule(node: Node) -> list[Node] | None:
        kernel = node.weights.get("depthwise_kernel")
        if kernel is None or kernel.size <= _MOST_CHANNELS or kernel.shape[3] > 1 or not _is_pointwise(node):
            return None
        offset = node.weights.get("bias", np.zeros(kernel.size, np.float32))
        weights = {"scale": kernel.reshape(-1), "offset": offset}
        return [node.replace(kind="FloatAffine", config={}, weights=weights)]

    return rewrite(graph, rule)


def _is_pointwise(node: Node) -> bool:
    """Whether a convolution reads each place alone, and all of them."""
    kernel = next(values for name, values in node.weights.items() if name.endswith("kernel"))
    strides = np.atleast_1d(node.config.get("strides", 1))
    return kernel.shape[:2] == (1, 1) and (strides == 1).all() and node.config.get("groups", 1) == 1
