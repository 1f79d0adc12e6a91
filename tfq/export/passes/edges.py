"""Inputs and outputs of the element types that the quantised model names."""

from __future__ import annotations

import dataclasses
from typing import Any

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
    flatbuffer.set_grid(tensor, grid.scale, grid.zero_point + 128)


def _append_uint8_copy(file: Any, source: int, grid: Grid) -> int:
    """Add a QUANTIZE operation to uint8 at the end; the index of its output."""
    subgraph = file.subgraphs[0]
    target = flatbuffer.add_tensor(file, subgraph.tensors[source].shape, "uint8")
    subgraph.tensors[target].shapeSignature = subgraph.tensors[source].shapeSignature
    _set_uint8(subgraph.tensors[target], grid)
    quantize = schema.BuiltinOperator.QUANTIZE
    subgraph.operators.append(flatbuffer.make_operator(file, quantize, source, target, version=2))
    return target
