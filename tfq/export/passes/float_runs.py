"""Float tensors that the converter put on a grid.

A sigmoid, tanh or softmax gets the grid that TFLite prescribes for its output even where it computes in float between
float operations: a QUANTIZE and a DEQUANTIZE, and what only moves values in between works in int8.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.convert import identifiers
from tfq.quantized_model import QuantizedModel

_IDENTIFIER = re.compile(r"tfq\d{4,}")


def free_float_runs(file: Any, model: QuantizedModel) -> None:
    """Take those operations out; the model has no grid for their tensors. Before `bind`."""
    names = {identifier: name for name, identifier in identifiers(model).items()}
    floats = {node.name for node in model.layers if not node.precision.is_int8 and node.grid is None}
    subgraph = file.subgraphs[0]
    stands_for: dict[int, int] = {}  # a tensor on a grid, or read from it -> the float tensor that it copies
    freed: set[int] = set()
    kept = []

    def is_float(tensor: int) -> bool:
        found = _IDENTIFIER.findall(flatbuffer.text(subgraph.tensors[tensor].name))
        return bool(found) and names.get(found[0]) in floats

    for operator in subgraph.operators:
        kind = flatbuffer.operator_name(file, operator)
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        from_float = flatbuffer.type_name(subgraph.tensors[source]) == "float32"
        to_grid = kind == "QUANTIZE" and from_float and is_float(source)
        to_float = kind == "DEQUANTIZE" and (source in stands_for or source in freed)
        if to_grid or to_float:
            stands_for[target] = stands_for.get(source, source)
        else:
            reads = {int(i) for i in operator.inputs}
            operator.inputs = np.asarray([stands_for.get(int(i), int(i)) for i in operator.inputs], np.int32)
            if reads & (stands_for.keys() | freed) and flatbuffer.type_name(subgraph.tensors[target]) == "int8":
                freed.add(target)
                subgraph.tensors[target].type = schema.TensorType.FLOAT32
                subgraph.tensors[target].quantization = None
            kept.append(operator)
    if not stands_for:
        return
    subgraph.operators = kept
    subgraph.outputs = np.asarray([stands_for.get(int(i), int(i)) for i in subgraph.outputs], np.int32)
    for entry in file.signatureDefs[0].outputs:
        entry.tensorIndex = stands_for.get(int(entry.tensorIndex), int(entry.tensorIndex))
