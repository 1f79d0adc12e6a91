"""Folding of affine maps (batch normalisation, rescaling, x*c, x+c) into the layers beside them.

Every such layer is an `Affine` node first: y = x * scale + offset per channel; for batch normalisation
scale = gamma / sqrt(variance + epsilon) and offset = beta - mean * scale.

Backward, into the weighted layer whose output it maps (Jacob et al. 2018, arXiv:1712.05877, section 3.2):
  W'[..., o] = W[..., o] * scale[o],   b'[o] = b[o] * scale[o] + offset[o].
Forward, into the weighted layer that reads it, exact where no padding meets a non-zero offset:
  W'[..., i, o] = W[..., i, o] * scale[i],   b'[o] = b[o] + sum_{h,w,i} W[h, w, i, o] * offset[i].
Between the two may lie nodes that commute with the map (pooling, reshapes, padding when offset = 0, ...).
Nothing between them may be read elsewhere or be an output of the model, and layers called several times
are folded only if every call agrees. What remains becomes one int8 operation that can carry a ReLU: a sum or a product
with one number where that is all, elsewhere a 1x1 depthwise convolution, exact per channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import merged_origin, reshaped, rewrite, sole_readers
from tfq.operations.matrix import Matrix
from tfq.operations.table import OPERATORS, matrix_of, operator_of

_Shapes = Mapping[str, tuple[int, ...]]
_MAXIMA = ("MaxPooling2D", "GlobalMaxPooling2D")


class AffineMap(NamedTuple):
    """An affine map on its way through the graph, and the node it comes from."""

    node: Node
    scale: np.ndarray
    offset: np.ndarray


def _start(node: Node) -> AffineMap:
    scale, offset = (np.asarray(node.weights[name], np.float64) for name in ("scale", "offset"))
    return AffineMap(node, scale, offset)


def commutes(node: Node, source: str, moving: AffineMap, shapes: _Shapes) -> bool:
    """Whether node(map(x)) == map(node(x)) for x the tensor `source`; the channel axis keeps its place."""
    if operator_of(node.kind).averages:
        return True
    if node.kind == "Mean":
        return len(shapes[source]) not in node.config["axes"] and -1 not in node.config["axes"]
    if node.kind in _MAXIMA:
        return bool(np.all(moving.scale > 0))
    if node.kind in ("Reshape", "Flatten"):
        return shapes[source][-1] == shapes[node.name][-1]
    if node.kind in ("ZeroPadding2D", "Multiply"):
        return not moving.offset.any() and shapes[source][-1] == shapes[node.name][-1]
    return False


def _is_uniform(moving: AffineMap) -> bool:
    """Whether it does the same to every channel."""
    return bool((moving.scale == moving.scale[0]).all() and (moving.offset == moving.offset[0]).all())


def _of_channels(moving: AffineMap, channels: int) -> AffineMap:
    """A uniform map of so many channels."""
    return moving._replace(scale=np.full(channels, moving.scale[0]), offset=np.full(channels, moving.offset[0]))


def carried(node: Node, source: str, moving: AffineMap, shapes: _Shapes) -> AffineMap | None:
    """The map behind `node` that does what `moving` does on the tensor `source` it reads; None where there is none."""
    if not shapes[source] or not shapes[node.name]:
        return None  # a single number has no channels
    times, rest = divmod(shapes[node.name][-1], len(moving.scale))
    if node.kind in ("Reshape", "Flatten") and not rest:
        # every row of the new last axis holds whole runs of channels
        return moving._replace(scale=np.tile(moving.scale, times), offset=np.tile(moving.offset, times))
    return moving if commutes(node, source, moving, shapes) else None


def _reached_backward(graph: Graph, shapes: _Shapes) -> Iterator[tuple[str, AffineMap]]:
    """(name of the weighted or affine node that can take it, map) for every Affine node."""
    nodes, readers = graph.by_name, sole_readers(graph)
    for affine in graph.nodes:
        if affine.kind != "Affine":
            continue
        moving = _start(affine)
        node = nodes[affine.inputs[0]]
        while readers[node.name] is not None:
            if node.kind == "Affine" or matrix_of(node.kind) is not None:
                if node.activation is None:
                    yield node.name, moving
                break
            if node.kind == "Multiply" or not node.inputs:
                break
            if _is_uniform(moving) and operator_of(node.kind).moves and shapes[node.inputs[0]]:
                moving = _of_channels(moving, shapes[node.inputs[0]][-1])
            elif not commutes(node, node.inputs[0], moving, shapes):
                break
            node = nodes[node.inputs[0]]


def _reached_forward(graph: Graph, shapes: _Shapes) -> Iterator[tuple[str, AffineMap]]:
    """(name of the weighted node that can take it, map as it arrives there) for every Affine node."""
    nodes, readers = graph.by_name, sole_readers(graph)
    for affine in graph.nodes:
        if affine.kind != "Affine":
            continue
        moving, source = _start(affine), affine.name
        while (name := readers[source]) is not None:
            node = nodes[name]
            if matrix_of(node.kind) is not None:
                if accepts(node, moving):
                    yield name, moving
                break
            if _is_uniform(moving) and operator_of(node.kind).moves and shapes[name]:
                passed: AffineMap | None = _of_channels(moving, shapes[name][-1])
            else:
                passed = carried(node, source, moving, shapes)
            if passed is None:
                break
            moving = passed
            source = name


def accepts(node: Node, moving: AffineMap) -> bool:
    """Whether the map on this layer's input can be folded into it exactly."""
    if node.config.get("groups", 1) != 1:
        return False
    name, matrix = _kernel_of(node)
    if not moving.offset.any() or not matrix.window_axes:
        return True
    window = [node.weights[name].shape[axis] for axis in matrix.window_axes]
    return not matrix.transposed and (node.config.get("padding", "valid") == "valid" or window == [1, 1])


def _with_weights(node: Node, kernel: str, values: np.ndarray, bias: np.ndarray, origin: tuple[str, ...]) -> Node:
    weights = {kernel: values.astype(np.float32)}
    if "bias" in node.weights or bias.any():
        weights["bias"] = bias.astype(np.float32)
    return node.replace(weights=weights, config={**node.config, "use_bias": "bias" in weights}, origin=origin)


def _kernel_of(node: Node) -> tuple[str, Matrix]:
    operator = OPERATORS[node.kind]
    assert operator.matrix is not None
    return operator.kernel, operator.matrix


def _kernel(node: Node) -> tuple[str, np.ndarray, np.ndarray | float, Matrix]:
    name, matrix = _kernel_of(node)
    kernel, bias = np.asarray(node.weights[name], np.float64), np.asarray(node.weights.get("bias", 0.0), np.float64)
    return name, kernel, bias, matrix


def scale_output(node: Node, moving: AffineMap) -> Node:
    """The layer followed by the map."""
    scale, offset = moving.scale, moving.offset
    origin = merged_origin(node, moving.node)
    if node.kind == "Affine":
        first = _start(node)
        weights = {"scale": first.scale * scale, "offset": first.offset * scale + offset}
        return node.replace(weights={n: w.astype(np.float32) for n, w in weights.items()}, origin=origin)
    name, kernel, bias, matrix = _kernel(node)
    factor = matrix.along_outputs(np.broadcast_to(scale, matrix.of_outputs(kernel).shape[:1]), kernel.shape)
    return _with_weights(node, name, kernel * factor, bias * scale + offset, origin)


def scale_input(node: Node, moving: AffineMap) -> Node:
    """The layer preceded by the map: what it gives, and so what is known of that, stays the same."""
    scale, offset = moving.scale, moving.offset
    name, kernel, bias, matrix = _kernel(node)
    added = matrix.through(kernel, offset) if offset.any() else np.zeros(len(matrix.of_outputs(kernel)))
    return _with_weights(
        node, name, kernel * matrix.along_inputs(scale), bias + added, merged_origin(moving.node, node)
    )


def _foldable(graph: Graph, reached: Iterator[tuple[str, AffineMap]]) -> dict[str, AffineMap]:
    """Target name -> map, for the targets all of whose calls agree, and that are not themselves about to be folded."""
    maps = dict(reached)
    calls: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.weights:
            calls.setdefault(node.group, []).append(node)

    def agree(name: str) -> bool:
        found = [maps.get(call.name) for call in calls[graph_nodes[name].group]]
        first = maps[name]
        return all(
            m is not None and np.array_equal(m.scale, first.scale) and np.array_equal(m.offset, first.offset)
            for m in found
        )

    graph_nodes = graph.by_name
    maps = {name: moving for name, moving in maps.items() if agree(name)}
    moved = {moving.node.name for moving in maps.values()}
    # a chain conv -> affine -> affine takes two rounds
    return {name: moving for name, moving in maps.items() if name not in moved}


def fold_affines(graph: Graph) -> Graph:
    """Fold every Affine node that can be folded exactly: backward if possible, else forward."""
    if not any(node.kind == "Affine" for node in graph.nodes):
        return graph
    shapes = tensor_shapes(graph)
    while True:
        maps, change = _foldable(graph, _reached_backward(graph, shapes)), scale_output
        if not maps:
            maps, change = _foldable(graph, _reached_forward(graph, shapes)), scale_input
        if not maps:
            return graph
        graph = _apply(graph, maps, change)


def _apply(graph: Graph, maps: dict[str, AffineMap], change: Callable[[Node, AffineMap], Node]) -> Graph:
    folded = {moving.node.name for moving in maps.values()}

    def rule(node: Node) -> list[Node] | str | None:
        if node.name in maps:
            return [change(node, maps[node.name])]
        return node.inputs[0] if node.name in folded else None

    return rewrite(graph, rule)


def affines_to_layers(graph: Graph) -> Graph:
    """Every remaining Affine node as an AddConstant or MultiplyConstant, or as a 1x1 depthwise convolution, between
    reshapes where its rank is not 4."""
    if not any(node.kind == "Affine" for node in graph.nodes):
        return graph
    shapes = tensor_shapes(graph)
    affines = {node.name: node.inputs[0] for node in graph.nodes if node.kind == "Affine"}

    def rule(node: Node) -> list[Node] | None:
        if node.kind != "Affine":
            return None
        scale, offset, shape = node.weights["scale"], node.weights["offset"], shapes[node.name]
        # the converter drops a product with 1, and fails where it moves a transposition past a product of another rank
        alone = len(shape) == 3 and graph[affines[node.name]].kind != "Permute"
        if alone and not np.ptp(scale) and scale[0] != 1 and not offset.any():
            return [node.replace(kind="MultiplyConstant", config={"constant": float(scale[0])}, weights={})]
        if alone and not np.ptp(offset) and offset[0] and (scale == 1).all():
            return [node.replace(kind="AddConstant", config={"constant": float(offset[0])}, weights={})]
        weights = {"depthwise_kernel": scale.reshape(1, 1, -1, 1)} | ({"bias": offset} if offset.any() else {})
        config = {"kernel_size": (1, 1), "use_bias": "bias" in weights}
        convolution = node.replace(kind="DepthwiseConv2D", config=config, weights=weights)
        if len(shape) == 3:
            return [convolution]
        return reshaped(node, (1, int(np.prod(shape[:-1])), shape[-1]), [convolution], shape)

    return rewrite(graph, rule)
