"""The integers of a layer's weights and biases, as the specification's grids define them.

    q = clip(round(w / scale), low, high)        w ~ scale * q

Weights round as TensorFlow's fake-quant does, biases as TFLite does (`tfq.numerics.reference`). Those of a float16
layer are rounded to float16 and computed with in float32.
"""

from __future__ import annotations

import numpy as np

from tfq.models.graph import Graph, Node
from tfq.numerics import reference
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization


def integers(values: np.ndarray, grid: TensorQuantization) -> np.ndarray:
    """int32 array of `values`' shape: the integers of `values` on `grid`."""
    if grid.storage == "int32":
        scales = reference.along_axis(np.asarray(grid.scale, np.float64), values.ndim, grid.axis)
        return np.clip(reference.round_half_away(values / scales), *grid.integer_range).astype(np.int32)
    return reference.quantize(values, np.asarray(grid.scale), grid.zero_point, *grid.integer_range, axis=grid.axis)


def reals(codes: np.ndarray, grid: TensorQuantization) -> np.ndarray:
    """float32 array: what `codes` on `grid` stand for."""
    return reference.dequantize(codes, np.asarray(grid.scale), grid.zero_point, axis=grid.axis)


def weight_integers(node: Node, layer: LayerQuantization) -> dict[str, np.ndarray]:
    """The integers of every quantised weight and bias of `node`, in the Keras layout."""
    return {name: integers(node.weights[name], grid) for name, grid in layer.weights.items()}


def snap(graph: Graph, spec: QuantizationSpec) -> Graph:
    """The graph whose weights and biases are as the specification stores them; snapping twice changes nothing."""
    layers = {layer.name: layer for layer in spec.layers}
    return graph.replace_nodes([snap_node(n, layers[n.name]) if n.name in layers else n for n in graph.nodes])


def snap_node(node: Node, layer: LayerQuantization) -> Node:
    """The node whose weights and biases lie on the grids of its layer, or in float16."""
    if layer.precision == "float16":
        return node.replace(weights={n: v.astype(np.float16).astype(np.float32) for n, v in node.weights.items()})
    if not layer.weights:
        return node
    values = {n: reals(integers(node.weights[n], grid), grid) for n, grid in layer.weights.items()}
    return node.replace(weights={**node.weights, **values})
