"""The weights of float layers: as the quantised model says, in float32 or in float16.

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
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import snap_node

_TYPES = {"<f2": schema.TensorType.FLOAT16, "<f4": schema.TensorType.FLOAT32}
_DEQUANTIZE_FLOAT16 = 3  # version of the operation


def set_float_weights(file: Any, model: QuantizedModel, binding: Binding) -> Binding:
    """Check the weights of every float layer and store those of float16 layers so; the binding after it.

    Every operation gets constants of its own: the converter lets calls of one layer share them.

    Raises:
      RuntimeError: the converter made something else of a float layer's weights.
    """
    subgraph = file.subgraphs[0]
    added: list[Any] = []
    for index, name in binding.operator_node.items():
        node, operator = model[name], subgraph.operators[index]
        if node.precision.is_int8:
            continue
        for weight, position in weight_positions(file, operator, node).items():
            old = int(operator.inputs[position])
            values = _checked(file, subgraph.tensors[old], snap_node(node), weight)
            if node.precision == FLOAT16 and weight in node.weights:
                constant = _append_tensor(file, subgraph.tensors[old], values.astype("<f2"))
                new = _append_tensor(file, subgraph.tensors[old], None)
                added.append(_dequantize(file, constant, new))
            else:
                new = _append_tensor(file, subgraph.tensors[old], values)
            operator.inputs = np.asarray([new if i == old else i for i in operator.inputs], np.int32)
    subgraph.operators = added + list(subgraph.operators)
    moved = {len(added) + index: name for index, name in binding.operator_node.items()}
    return dataclasses.replace(binding, operator_node=moved)


def _checked(file: Any, tensor: Any, node: Node, weight: str) -> np.ndarray:
    """The node's weight, which the tensor holds; zeros where it has none, as the converter adds a bias of zeros."""
    found, matrix = flatbuffer.type_name(tensor), OPERATORS[node.kind].matrix
    # the runtime's kernel computes with a float copy of these
    in_int8 = matrix is not None and matrix.stored_in_int8 and weight == OPERATORS[node.kind].kernel
    if found not in ("float32", "int8" if in_int8 else "float32") or not flatbuffer.is_constant(file, tensor):
        raise RuntimeError(f"the converter made {weight} of float layer {node.name!r} {found}")
    data = np.asarray(file.buffers[tensor.buffer].data, np.uint8).tobytes()
    wanted = node.weights.get(weight, np.zeros(len(data) // 4, np.float32))
    wanted = wanted if weight == "bias" else tflite_layout(node.kind, wanted)
    same = found == "int8" or np.array_equal(np.frombuffer(data, "<f4"), wanted.reshape(-1))
    if wanted.shape != tuple(tensor.shape) or not same:
        raise RuntimeError(f"the converter changed {weight} of float layer {node.name!r}")
    return np.asarray(wanted, "<f4")


def _append_tensor(file: Any, like: Any, values: np.ndarray | None) -> int:
    """Add a tensor of the shape of `like`: a constant, or float32 that an operation writes; its index."""
    subgraph, tensor = file.subgraphs[0], schema.TensorT()
    tensor.shape, tensor.hasRank, tensor.type, tensor.buffer = like.shape, True, schema.TensorType.FLOAT32, 0
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        tensor.buffer = len(file.buffers)
        file.buffers.append(buffer)
        tensor.type = _TYPES[values.dtype.str]
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _dequantize(file: Any, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(
        file, schema.BuiltinOperator.DEQUANTIZE, version=_DEQUANTIZE_FLOAT16
    )
    operator.inputs, operator.outputs = np.asarray([source], np.int32), np.asarray([target], np.int32)
    return operator
