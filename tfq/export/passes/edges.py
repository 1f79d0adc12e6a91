"""Inputs and outputs of the element types that the quantised model names."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, without_operators
from tfq.grid import Grid
from tfq.quantized_model import QuantizedModel


def set_edges(file: Any, model: QuantizedModel, binding: Binding) -> Binding:
    """Turn the float32 inputs and outputs that have a grid into what the model names; the binding after it.

    TFLiteConverter's own `inference_output_type` removes the DEQUANTIZE of an output even where a float
    operation inside the model reads it too, and leaves that operation without an input.
    """
    subgraph = file.subgraphs[0]
    inputs, outputs = dict(binding.inputs), dict(binding.outputs)
    dropped: set[int] = set()
    for name in [n for n in inputs if n in model.grids]:
        readers = [i for i, operator in enumerate(subgraph.operators) if inputs[name] in operator.inputs]
        if model.input_type == "int8":
            dropped.update(readers)
            inputs[name] = int(subgraph.operators[readers[0]].outputs[0])
        elif model.input_type == "uint8":
            _set_uint8(subgraph.tensors[inputs[name]], model.grids[name])
    for name in [n for n in outputs if n in model.grids and model.output_type != "float32"]:
        writer = next(operator for operator in subgraph.operators if outputs[name] in operator.outputs)
        quantized = int(writer.inputs[0])
        outputs[name] = quantized
        if model.output_type == "uint8":
            outputs[name] = _append_uint8_copy(file, quantized, model.grids[name])
    read = {int(i) for operator in subgraph.operators for i in operator.inputs} | set(outputs.values())
    dropped |= {i for i, operator in enumerate(subgraph.operators) if not read & {int(t) for t in operator.outputs}}
    return dataclasses.replace(without_operators(file, binding, dropped), inputs=inputs, outputs=outputs)


def _set_uint8(tensor: Any, grid: Grid) -> None:
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    flatbuffer.set_grid(tensor, np.asarray(grid.scale), grid.zero_point, 0)
    tensor.quantization.zeroPoint = np.asarray([grid.zero_point + 128], np.int64)


def _append_uint8_copy(file: Any, source: int, grid: Grid) -> int:
    """Add a QUANTIZE operation to uint8 at the end; the index of its output."""
    subgraph = file.subgraphs[0]
    tensor, operator = schema.TensorT(), schema.OperatorT()
    tensor.shape, tensor.shapeSignature = subgraph.tensors[source].shape, subgraph.tensors[source].shapeSignature
    tensor.hasRank = True
    _set_uint8(tensor, grid)
    operator.opcodeIndex = flatbuffer.operator_code(file, schema.BuiltinOperator.QUANTIZE, version=2)
    operator.inputs = np.asarray([source], np.int32)
    operator.outputs = np.asarray([len(subgraph.tensors)], np.int32)
    subgraph.tensors.append(tensor)
    subgraph.operators.append(operator)
    return len(subgraph.tensors) - 1
