"""The weights of float layers: as the specification says, in float32 or in float16.

A float16 constant is stored as such and read through a DEQUANTIZE, as in TFLiteConverter's own float16 files:
the runtimes evaluate that once and compute with the float32 copy. The converter cannot be asked for it: it
ignores float16 as a supported type where there are fake-quants.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, weight_positions
from tfq.export.layout import tflite_layout
from tfq.models.graph import Graph, Node
from tfq.simulate.weights import snap_node
from tfq.spec import QuantizationSpec

_DEQUANTIZE_FLOAT16 = 3  # version of the operation


def set_float_weights(model: Any, graph: Graph, spec: QuantizationSpec, binding: Binding) -> Binding:
    """Check the weights of every float layer and store those of float16 layers so; the binding after it.

    Raises:
      RuntimeError: the converter made something else of a float layer's weights.
    """
    subgraph = model.subgraphs[0]
    stored: dict[int, int] = {}  # float32 constant -> what reads its float16 one
    added: list[Any] = []
    for index, name in binding.operator_node.items():
        layer, operator = spec[name], subgraph.operators[index]
        if layer.precision == "int8":
            continue
        for weight, position in weight_positions(model, operator, graph[name]).items():
            at = int(operator.inputs[position])
            _check(model, subgraph.tensors[at], snap_node(graph[name], layer), weight)
            if layer.precision != "float16" or weight not in graph[name].weights:
                continue
            if at not in stored:
                stored[at] = _append_float16(model, subgraph.tensors[at], added)
            operator.inputs = np.asarray([stored[at] if i == at else i for i in operator.inputs], np.int32)
    subgraph.operators = added + list(subgraph.operators)
    moved = {len(added) + index: name for index, name in binding.operator_node.items()}
    return dataclasses.replace(binding, operator_node=moved)


def _check(model: Any, tensor: Any, node: Node, weight: str) -> None:
    """That the tensor holds the node's weight, or zeros where it has none: the converter adds a bias of zeros."""
    found = flatbuffer.type_name(tensor)
    if found != "float32" or not flatbuffer.is_constant(model, tensor):
        raise RuntimeError(f"the converter made {weight} of float layer {node.name!r} {found}")
    values = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), np.float32)
    wanted = node.weights.get(weight, np.zeros(values.size, np.float32))
    wanted = wanted if weight == "bias" else tflite_layout(node.kind, wanted)
    if wanted.shape != tuple(tensor.shape) or not np.array_equal(values, wanted.reshape(-1)):
        raise RuntimeError(f"the converter changed {weight} of float layer {node.name!r}")


def _append_float16(model: Any, tensor: Any, added: list[Any]) -> int:
    """Store a float32 constant in float16 and append to `added` what reads it; the index of that one's output."""
    subgraph = model.subgraphs[0]
    values = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), "<f4")
    buffer, constant, copy, operator = schema.BufferT(), schema.TensorT(), schema.TensorT(), schema.OperatorT()
    buffer.data = np.frombuffer(values.astype("<f2").tobytes(), np.uint8)
    for new, kind in ((constant, schema.TensorType.FLOAT16), (copy, schema.TensorType.FLOAT32)):
        new.shape, new.hasRank, new.type, new.buffer = tensor.shape, True, kind, 0
        subgraph.tensors.append(new)
    constant.buffer = len(model.buffers)
    model.buffers.append(buffer)
    operator.opcodeIndex = flatbuffer.operator_code(
        model, schema.BuiltinOperator.DEQUANTIZE, version=_DEQUANTIZE_FLOAT16
    )
    at = len(subgraph.tensors) - 1
    operator.inputs, operator.outputs = np.asarray([at - 1], np.int32), np.asarray([at], np.int32)
    added.append(operator)
    return at
