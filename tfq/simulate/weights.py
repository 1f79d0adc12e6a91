"""The integers of a layer's weights and biases, as its grids define them.

    q = clip(round(w / scale), low, high)        w ~ scale * q;   the nearest of the codebook where there is one

Weights round as TensorFlow's fake-quant does, biases as TFLite does (`tfq.numerics.reference`). Those of a float16
layer are rounded to float16 and computed with in float32.
"""

from __future__ import annotations

import numpy as np

from tfq.grid import Grid
from tfq.models.graph import Node
from tfq.numerics import reference
from tfq.precision import FLOAT16
from tfq.quantized_model import QuantizedModel


def integers(values: np.ndarray, grid: Grid) -> np.ndarray:
    """int32 or int64 array of `values`' shape: the integers of `values` on `grid`."""
    if grid.storage in ("int32", "int64"):
        scales = reference.along_axis(np.asarray(grid.scale, np.float64), values.ndim, grid.axis)
        return np.clip(reference.round_half_away(values / scales), *grid.integer_range).astype(grid.storage)
    if grid.codebook:
        scales = reference.along_axis(np.asarray(grid.scale, np.float64), values.ndim, grid.axis)
        return grid.codes.nearest(values / scales).astype(np.int32)
    return reference.quantize(values, np.asarray(grid.scale), grid.zero_point, *grid.integer_range, axis=grid.axis)


def reals(codes: np.ndarray, grid: Grid) -> np.ndarray:
    """float32 array: what `codes` on `grid` stand for."""
    return reference.dequantize(codes, np.asarray(grid.scale), grid.zero_point, axis=grid.axis)


def weight_integers(node: Node) -> dict[str, np.ndarray]:
    """The integers of every quantised weight and bias of `node`, in the Keras layout."""
    return {name: integers(node.weights[name], grid) for name, grid in node.weight_grids.items()}


def snap(model: QuantizedModel) -> QuantizedModel:
    """The model whose weights and biases are as the file stores them; snapping twice changes nothing."""
    return model.with_nodes(*map(snap_node, model.layers))


def snap_node(node: Node) -> Node:
    """The node whose weights and biases lie on its grids, or in float16."""
    if node.precision == FLOAT16:
        return node.replace(weights={n: v.astype(np.float16).astype(np.float32) for n, v in node.weights.items()})
    if not node.weight_grids:
        return node
    values = {n: reals(integers(node.weights[n], grid), grid) for n, grid in node.weight_grids.items()}
    return node.replace(weights={**node.weights, **values})
