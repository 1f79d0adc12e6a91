"""Requantize nodes become QUANTIZE operations; the barriers behind float layers go."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, without_operators
from tfq.models.graph import Graph
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS


def requantize(model: Any, graph: Graph, binding: Binding) -> Binding:
    """Make the operations that stand for Requantize nodes what they mean: a change of grid; the binding after it.

    Behind a float tensor the QUANTIZE that follows does that already: there the operation is dropped. So are the
    barriers at float layers (`tfq.export.convert.with_barriers`).
    """
    subgraph = model.subgraphs[0]
    dropped = set()
    for index, name in binding.operator_node.items():
        operator = subgraph.operators[index]
        kind = graph[name].kind
        at_float = is_weighted(graph[name]) or (kind in OPERATORS and OPERATORS[kind].output == "float")
        is_barrier = at_float and flatbuffer.operator_name(model, operator) == "LEAKY_RELU"
        if kind != "Requantize" and not is_barrier:
            continue
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if flatbuffer.type_name(subgraph.tensors[target]) == "float32":
            for reader in subgraph.operators:
                reader.inputs = np.asarray([source if i == target else i for i in reader.inputs], np.int32)
            dropped.add(index)
        else:
            operator.opcodeIndex = flatbuffer.operator_code(model, schema.BuiltinOperator.QUANTIZE, version=2)
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    return without_operators(model, binding, dropped)
