"""The integers of a layer's weights and biases, as the specification's grids define them.

    q = clip(round(w / scale), low, high)        w ~ scale * q

Rounding is to the nearest, ties to even: TensorFlow's fake-quant and TFLiteConverter agree on that.
"""

from __future__ import annotations

import numpy as np

from tfq.models.graph import Graph, Node
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization


def _along(grid: TensorQuantization, rank: int) -> np.ndarray:
    """The scale shaped to broadcast against a tensor of `rank` axes, float64."""
    shape = [1] * rank
    if grid.axis is not None:
        shape[grid.axis] = -1
    return np.asarray(grid.scale, np.float64).reshape(shape)


def integers(values: np.ndarray, grid: TensorQuantization) -> np.ndarray:
    """int32 array of `values`' shape: the integers nearest to `values` on `grid`."""
    low, high = grid.integer_range
    codes = np.rint(np.asarray(values, np.float64) / _along(grid, values.ndim)) + grid.zero_point
    return np.clip(codes, low, high).astype(np.int32)


def reals(codes: np.ndarray, grid: TensorQuantization) -> np.ndarray:
    """float32 array: what `codes` on `grid` stand for."""
    return ((codes.astype(np.float64) - grid.zero_point) * _along(grid, codes.ndim)).astype(np.float32)


def weight_integers(node: Node, layer: LayerQuantization) -> dict[str, np.ndarray]:
    """The integers of every quantised weight and bias of `node`, in the Keras layout."""
    return {name: integers(node.weights[name], grid) for name, grid in layer.weights.items()}


def snap(graph: Graph, spec: QuantizationSpec) -> Graph:
    """The graph whose weights and biases lie on the specification's grids; snapping twice changes nothing."""
    layers = {layer.name: layer for layer in spec.layers}

    def snapped(node: Node) -> Node:
        grids = layers[node.name].weights if node.name in layers else {}
        if not grids:
            return node
        values = {n: reals(integers(node.weights[n], grid), grid) for n, grid in grids.items()}
        return node.replace(weights={**node.weights, **values})

    return graph.replace_nodes([snapped(node) for node in graph.nodes])
