"""The model as TFLiteConverter is given it: what has 16 bits has 8, until `tfq.export.passes.wide` widens it again.

The converter cannot mix both. In its file of 8 bits are the operations and the borders to float that the file needs.
"""

from __future__ import annotations

import dataclasses

from tfq.calibration.calibrate import fixed_grid
from tfq.grid import Grid, activation_grid
from tfq.models.graph import INPUT, Node
from tfq.models.grids import grid_groups
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel

_STEPS = 256  # of 16 bits in one of 8


def narrowed(model: QuantizedModel) -> QuantizedModel:
    """The model with 8-bit grids in place of int16 ones; biases beside them have none. As it is where it has none."""
    if not any(node.precision.is_int16 for node in model.layers):
        return model
    groups = grid_groups(model)
    prescribed = {groups[name]: fixed for name in groups if (fixed := fixed_grid(model, name)) is not None}

    def narrow(name: str, grid: Grid) -> Grid:
        return activation_grid(*prescribed.get(groups[name], (_STEPS * grid.scale[0], 0))) if grid.is_wide else grid

    def decided(node: Node) -> Node:
        node = node.replace(grid=None if node.grid is None else narrow(node.name, node.grid))
        if node.kind == INPUT or not node.precision.is_int16:
            return node
        kernel = OPERATORS[node.kind].kernel
        return node.replace(
            precision=dataclasses.replace(node.precision, arithmetic="int8"),
            reason="",
            weight_grids={kernel: node.weight_grids[kernel]} if kernel else {},
        )

    return model.with_nodes(*map(decided, model.nodes))
