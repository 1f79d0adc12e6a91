"""Large windows of depthwise convolutions, in parts.

Kernels of a fast path take so many taps of a channel at once. With more they are several times slower: XNNPACK (LiteRT
2.3, x86-64) takes 25, and computes a window of 7 x 7 in 1/9 of the time when it comes as 3 x 7, 3 x 7 and 1 x 7:

    y[i] = sum over the parts of (the part of the kernel that begins at row a, on the rows of x from a on)

The input is padded once; every part reads its rows of that. This is exact in real arithmetic. On grids, the sums of the
parts are rounded too.
"""

from __future__ import annotations

import math

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.pooling import pair
from tfq.models.rewrite import made_by, rewrite


def split_windows(graph: Graph, most: int) -> tuple[Graph, tuple[str, ...]]:
    """The graph with at most so many taps in a depthwise kernel, and the names of the nodes that were split.

    Dilated ones stay, and those whose shorter side alone has more.
    """
    large = {
        node.name
        for node in graph.nodes
        if node.kind == "DepthwiseConv2D"
        and math.prod(_window(node)) > most >= min(_window(node))
        and pair(node.config.get("dilation_rate", 1)) == (1, 1)
    }
    if not large:
        return graph, ()
    shapes, sources = tensor_shapes(graph), {node.name: node.inputs[0] for node in graph.nodes if node.inputs}

    def rule(node: Node) -> list[Node] | None:
        return _parts(node, shapes[sources[node.name]], shapes[node.name], most) if node.name in large else None

    return rewrite(graph, rule), tuple(node.name for node in graph.nodes if node.name in large)


def _window(node: Node) -> tuple[int, int]:
    rows, columns = node.weights["depthwise_kernel"].shape[:2]
    return rows, columns


def _parts(node: Node, source: tuple[int, ...], target: tuple[int, ...], most: int) -> list[Node]:
    kernel, window, strides = node.weights["depthwise_kernel"], _window(node), pair(node.config.get("strides", 1))
    axis = 0 if window[1] <= most else 1  # the other side stays whole
    reaches = [(target[i] - 1) * strides[i] for i in (0, 1)]
    sides = [(0, 0), (0, 0)]
    if node.config.get("padding", "valid") == "same":  # the smaller half comes first
        totals = [max(reaches[i] + window[i] - source[i], 0) for i in (0, 1)]
        sides = [(total // 2, total - total // 2) for total in totals]
    made, read = [], node.inputs
    if any(map(any, sides)):
        made.append(made_by(node, "padded", "ZeroPadding2D", read, {"padding": tuple(sides)}))
        read = (made[-1].name,)
    length, step = source[axis] + sum(sides[axis]), most // window[1 - axis]
    total = None
    for start in range(0, window[axis], step):
        part = np.ascontiguousarray(kernel[start : start + step] if axis == 0 else kernel[:, start : start + step])
        after = length - start - reaches[axis] - part.shape[axis]
        cropping = tuple((start, after) if i == axis else (0, 0) for i in (0, 1))
        rows = made_by(node, f"rows{start}", "Cropping2D", read, {"cropping": cropping})
        weights = {"depthwise_kernel": part}
        if start == 0 and "bias" in node.weights:
            weights["bias"] = node.weights["bias"]
        config = {
            "kernel_size": part.shape[:2],
            "strides": strides,
            "depth_multiplier": part.shape[3],
            "use_bias": "bias" in weights,
        }
        product = made_by(node, f"part{start}", "DepthwiseConv2D", (rows.name,), config, weights)
        made += [rows, product]
        if total is not None:
            made.append(made_by(node, f"sum{start}", "Add", (total, product.name)))
        total = made[-1].name
    last = node.replace(kind="Add", config={}, weights={}, inputs=made[-1].inputs)
    return [*made[:-1], last]
