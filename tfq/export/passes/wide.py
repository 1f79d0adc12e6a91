"""Layers with int16 activations, of a file in which they have 8 bits (`tfq.export.narrow`).

Their tensors become int16, with the model's grids where it has such, and else with those that hold every value of an
8-bit grid (`tfq.grid.copied_wide`). Biases become int64, constants among activations int16 with the same values. Where
a 16-bit layer reads a tensor of 8 bits, a QUANTIZE makes an int16 copy of it, one for all that read it; where it gives
one, a QUANTIZE stands behind it. Borders to float do not change: they are QUANTIZE and DEQUANTIZE for either type.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, weight_positions
from tfq.export.layout import pack
from tfq.export.passes.impose import impose_weights, require_runtime
from tfq.grid import Grid, activation_grid, copied_wide, wide_grid
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel

_RUNTIME = b"2.3.0"  # as TFLiteConverter says of int16 activations
_QUANTIZE = 2  # version of the operation


def widen(file: Any, model: QuantizedModel, narrow: QuantizedModel, binding: Binding) -> Binding:
    """Give these layers their types, grids and constants; the binding after it. `narrow`: the model as converted."""
    if narrow is model:
        return binding
    return _Widening(file, model, narrow, binding).done()


class _Widening:
    """A file that is being changed; its operations in order, so that what one writes has its type when it is read."""

    def __init__(self, file: Any, model: QuantizedModel, narrow: QuantizedModel, binding: Binding):
        self._file, self._model, self._narrow, self._binding = file, model, narrow.grids, binding
        self._tensors = file.subgraphs[0].tensors
        self._node_of = {index: name for name, index in binding.node_tensor.items()}
        self._copies: dict[int, int] = {}
        for name, index in binding.node_tensor.items():
            if name in model.grids and model.grids[name].is_wide:
                self._set(index, model.grids[name])

    def done(self) -> Binding:
        operators: list[Any] = []
        operator_node: dict[int, str] = {}
        for index, operator in enumerate(self._file.subgraphs[0].operators):
            name = self._binding.operator_node.get(index)
            made = [operator]
            if name is not None and self._model[name].precision.is_int16:
                made = self._widened(operator, self._model[name])
            if name is not None:
                operator_node |= dict.fromkeys(range(len(operators), len(operators) + len(made)), name)
            operators += made
        self._file.subgraphs[0].operators = operators
        require_runtime(self._file, _RUNTIME)
        return dataclasses.replace(self._binding, operator_node=operator_node)

    def _widened(self, operator: Any, node: Node) -> list[Any]:
        """The operations that take the place of `operator`."""
        weights = set(weight_positions(self._file, operator, node).values())
        if weights:
            impose_weights(self._file, operator, node, copied_wide(self._model.grids[node.inputs[0]]))
        if hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False  # any scales
        before, after = [], []
        inputs, outputs = ([int(index) for index in ends] for ends in (operator.inputs, operator.outputs))
        for position, index in enumerate(inputs):
            if index < 0 or position in weights or self._type(index) != "int8":
                continue
            if flatbuffer.is_constant(self._file, self._tensors[index]):
                inputs[position] = self._constant(index)
                continue
            if index not in self._copies:
                self._copies[index] = self._like(index, copied_wide(self._grid(index)))
                before.append(self._quantize(index, self._copies[index]))
            inputs[position] = self._copies[index]
        for position, index in enumerate(outputs):
            if self._type(index) != "int8":
                continue
            if index not in self._node_of:
                self._set(index, self._between(index, node))
                continue
            grid = self._grid(index)
            prescribed = OPERATORS[node.kind].fixed is not None
            grid = wide_grid(grid, prescribed=True) if prescribed else copied_wide(grid)
            outputs[position] = self._like(index, grid)
            after.append(self._quantize(outputs[position], index))
        operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        return [*before, operator, *after]

    def _between(self, index: int, node: Node) -> Grid:
        """The int16 grid of a tensor between the operations of a node, which has the grid of what it gives or reads."""
        grids = self._model.grids
        known = {self._narrow[name]: grids[name] for name in (*node.inputs, node.name) if grids[name].is_wide}
        return known.get(self._grid(index)) or copied_wide(self._grid(index))

    def _constant(self, index: int) -> int:
        """The constant as int16, with the same values."""
        tensor = self._tensors[index]
        grid = copied_wide(self._grid(index))
        codes = np.asarray(self._file.buffers[tensor.buffer].data, np.uint8).view(np.int8).astype(np.int64)
        steps = (codes - flatbuffer.zero_points(tensor)[0]) * round(flatbuffer.scales(tensor)[0] / grid.scale[0])
        made = flatbuffer.add_tensor(self._file, tensor.shape, "int16", pack(steps, "int16"))
        flatbuffer.set_grid(self._tensors[made], grid.scale, 0)
        return made

    def _grid(self, index: int) -> Grid:
        tensor = self._tensors[index]
        return activation_grid(flatbuffer.scales(tensor)[0], flatbuffer.zero_points(tensor)[0])

    def _type(self, index: int) -> str:
        return flatbuffer.type_name(self._tensors[index])

    def _set(self, index: int, grid: Grid) -> None:
        self._tensors[index].type = schema.TensorType.INT16
        flatbuffer.set_grid(self._tensors[index], grid.scale, grid.zero_point)

    def _like(self, index: int, grid: Grid) -> int:
        """A tensor of the same shape."""
        made = flatbuffer.add_tensor(self._file, self._tensors[index].shape, "int16")
        self._tensors[made].shapeSignature = self._tensors[index].shapeSignature
        self._set(made, grid)
        return made

    def _quantize(self, source: int, target: int) -> Any:
        return flatbuffer.make_operator(self._file, schema.BuiltinOperator.QUANTIZE, source, target, version=_QUANTIZE)
