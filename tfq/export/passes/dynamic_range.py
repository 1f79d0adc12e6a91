"""Layers with integer weights among float activations, as their kernels read them.

A kernel rounds what it reads row by row (`tfq.simulate.quantizers.rounded_rows`) and multiplies integers; biases and
outputs are float32. An embedding's table has a scale for every row. GATHER knows none, EMBEDDING_LOOKUP does: it reads
a list of indices and gives a list of rows, so reshapes stand around it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, weight_positions
from tfq.export.layout import tflite_layout, tflite_scales
from tfq.export.passes.impose import replace_constant, require_runtime
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import weight_integers

# operation -> (number, version) that reads integers of each channel's scale beside floats; the runtime that brought it
_KERNELS = {
    "CONV_2D": (schema.BuiltinOperator.CONV_2D, 5, b"2.4.0"),
    "FULLY_CONNECTED": (schema.BuiltinOperator.FULLY_CONNECTED, 12, b"2.17.0"),
    "GATHER": (schema.BuiltinOperator.EMBEDDING_LOOKUP, 4, b"2.18.0"),
}


def set_dynamic_range(file: Any, model: QuantizedModel, binding: Binding) -> Binding:
    """Give these layers their integers and kernels; the binding after it. Biases are `set_float_weights`'."""
    subgraph = file.subgraphs[0]
    operators: list[Any] = []
    operator_node: dict[int, str] = {}
    for index, operator in enumerate(subgraph.operators):
        made, name = [operator], binding.operator_node.get(index)
        node = None if name is None else model[name]
        if node is not None and node.precision.is_dynamic and weight_positions(file, operator, node):
            made = _with_integers(file, operator, node)
        if name is not None:
            operator_node |= dict.fromkeys(range(len(operators), len(operators) + len(made)), name)
        operators += made
    subgraph.operators = operators
    return dataclasses.replace(binding, operator_node=operator_node)


def _with_integers(file: Any, operator: Any, node: Node) -> list[Any]:
    """The operations that take the place of `operator`."""
    kind, kernel = flatbuffer.operator_name(file, operator), OPERATORS[node.kind].kernel
    grid, position = node.weight_grids[kernel], weight_positions(file, operator, node)[kernel]
    scales, axis = tflite_scales(node.kind, grid, node.weights[kernel].shape)
    codes = tflite_layout(node.kind, weight_integers(node)[kernel])
    replace_constant(file, operator, position, codes, grid, scales, axis)
    builtin, version, runtime = _KERNELS[kind]
    operator.opcodeIndex = flatbuffer.operator_code(file, builtin, version=version)
    require_runtime(file, runtime)
    if kind == "FULLY_CONNECTED":  # as XNNPACK does it, whatever stands here
        operator.builtinOptions.asymmetricQuantizeInputs = True
    return _looked_up(file, operator) if kind == "GATHER" else [operator]


def _looked_up(file: Any, operator: Any) -> list[Any]:
    """[RESHAPE to a list, EMBEDDING_LOOKUP, RESHAPE to the shape that GATHER gave]; `operator` has its code already."""
    subgraph = file.subgraphs[0]
    table, indices = (int(i) for i in operator.inputs)
    result = int(operator.outputs[0])
    made = []
    if flatbuffer.type_name(subgraph.tensors[indices]) != "int32":
        cast = flatbuffer.add_tensor(file, subgraph.tensors[indices].shape, "int32")
        made.append(flatbuffer.make_operator(file, schema.BuiltinOperator.CAST, indices, cast, version=1))
        indices = cast
    shape = [int(n) for n in subgraph.tensors[result].shape]
    listed = flatbuffer.add_tensor(file, [int(np.prod(shape[:-1]))], "int32")
    rows = flatbuffer.add_tensor(file, [int(np.prod(shape[:-1])), shape[-1]], "float32")
    made.append(_reshape(file, indices, listed, [-1]))
    operator.inputs, operator.outputs = np.asarray([listed, table], np.int32), np.asarray([rows], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    return [*made, operator, _reshape(file, rows, result, shape)]


def _reshape(file: Any, source: int, target: int, shape: list[int]) -> Any:
    operator = flatbuffer.make_operator(file, schema.BuiltinOperator.RESHAPE, source, target, version=1)
    sizes = flatbuffer.add_tensor(file, [len(shape)], "int32", np.asarray(shape, "<i4").tobytes())
    operator.inputs = np.asarray([source, sizes], np.int32)
    return operator
