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
            if weight in node.weight_grids:  # `tfq.export.passes.dynamic_range`
                continue
            if node.precision == FLOAT16 and weight in node.weights:
                constant = flatbuffer.add_tensor(file, values.shape, "float16", values.astype("<f2").tobytes())
                new = flatbuffer.add_tensor(file, values.shape, "float32")
                dequantize = schema.BuiltinOperator.DEQUANTIZE
                added.append(flatbuffer.make_operator(file, dequantize, constant, new, version=_DEQUANTIZE_FLOAT16))
            else:
                new = flatbuffer.add_tensor(file, values.shape, "float32", values.tobytes())
            flatbuffer.replace_input(operator, old, new)
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
    # one conversion serves many fits of the layers whose weights have a grid
    written_anew = found == "int8" or node.precision.has_grid
    same = written_anew or np.array_equal(np.frombuffer(data, "<f4"), wanted.reshape(-1))
    if wanted.shape != tuple(tensor.shape) or not same:
        raise RuntimeError(f"the converter changed {weight} of float layer {node.name!r}")
    return np.asarray(wanted, "<f4")
