"""Operations that the converter wrote otherwise than they are meant.

free_float_runs    A sigmoid, tanh or softmax gets the grid that TFLite prescribes for its output even where it computes
                   in float between float operations: a QUANTIZE and a DEQUANTIZE, and what only moves values in
                   between works in int8. They go; the model has no grid for their tensors. A Requantize node behind
                   them stays: the model has one for what it gives.
join_copies        A mean is computed on its input's grid and copied to its own.
requantize         Requantize nodes, and the barriers at float layers (`tfq.export.convert.with_barriers`), are not yet
                   what they mean.
free_clamps        A clamp at 6 that the runtime could not express.
clamp_by_grids     A clamp of integers that is a change of grid: fast paths take QUANTIZE, and not RELU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, names_in, without_operators
from tfq.models.graph import Graph
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel


def free_float_runs(file: Any, model: QuantizedModel) -> None:
    """Take those operations out; the model has no grid for their tensors. Before `bind`."""
    named = names_in(model)
    floats = {node.name for node in model.layers if not node.precision.is_int8 and node.grid is None}
    subgraph = file.subgraphs[0]
    stands_for: dict[int, int] = {}  # a tensor on a grid, or read from it -> the float tensor that it copies
    freed: set[int] = set()
    kept = []

    def stands_in(tensor: int, names: Collection[str]) -> bool:
        return any(name in names for name in named(flatbuffer.text(subgraph.tensors[tensor].name))[:1])

    for operator in subgraph.operators:
        kind = flatbuffer.operator_name(file, operator)
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        from_float = flatbuffer.type_name(subgraph.tensors[source]) == "float32"
        to_grid = kind == "QUANTIZE" and from_float and stands_in(source, floats)
        to_float = kind == "DEQUANTIZE" and (source in stands_for or source in freed)
        if to_grid or to_float:
            stands_for[target] = stands_for.get(source, source)
        else:
            reads = {int(i) for i in operator.inputs}
            operator.inputs = np.asarray([stands_for.get(int(i), int(i)) for i in operator.inputs], np.int32)
            moves = flatbuffer.type_name(subgraph.tensors[target]) == "int8" and not stands_in(target, model.grids)
            if moves and reads & (stands_for.keys() | freed):
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


def join_copies(model: Any) -> None:
    """Let an operation write what an int8 QUANTIZE behind it makes of its output. Before `bind`.

    Requantize nodes are no QUANTIZE yet at this point (`tfq.models.layers.Requantize`).
    """
    subgraph = model.subgraphs[0]
    writers = {int(operator.outputs[0]): operator for operator in subgraph.operators}
    reads = [int(i) for operator in subgraph.operators for i in operator.inputs]
    kept = []
    for operator in subgraph.operators:
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        types = {flatbuffer.type_name(subgraph.tensors[i]) for i in (source, target)}
        writer = writers.get(source)
        copies = flatbuffer.operator_name(model, operator) == "QUANTIZE" and types == {"int8"}
        is_mean = writer is not None and flatbuffer.operator_name(model, writer) == "MEAN"
        if writer is not None and copies and is_mean and reads.count(source) == 1:
            writer.outputs = np.asarray([target], np.int32)
        else:
            kept.append(operator)
    subgraph.operators = kept


def requantize(model: Any, graph: Graph, binding: Binding) -> Binding:
    """Make the operations that stand for Requantize nodes what they mean: a change of grid; the binding after it.

    Behind a float tensor the QUANTIZE that follows does that already: there the operation is dropped. So are the
    barriers at float layers (`tfq.export.convert.with_barriers`).
    """
    subgraph = model.subgraphs[0]
    dropped = set()
    copies: dict[int, int] = {}
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
                flatbuffer.replace_input(reader, target, source)
            dropped.add(index)
            if kind == "Carried":
                copies[target] = copies.get(source, source)
        else:
            operator.opcodeIndex = flatbuffer.operator_code(model, schema.BuiltinOperator.QUANTIZE, version=2)
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    subgraph.outputs = np.asarray([copies.get(int(i), int(i)) for i in subgraph.outputs], np.int32)
    tensors, outputs = (
        {name: copies.get(index, index) for name, index in places.items()}
        for places in (binding.node_tensor, binding.outputs)
    )
    return without_operators(model, dataclasses.replace(binding, node_tensor=tensors, outputs=outputs), dropped)


def free_clamps(model: Any) -> None:
    """Make RELU6 a RELU where the runtime could not hold 6 / scale in an int32: the grid ends long before 6."""
    subgraph = model.subgraphs[0]
    clamp = schema.ActivationFunctionType
    for operator in subgraph.operators:
        scales = flatbuffer.scales(subgraph.tensors[int(operator.outputs[0])])
        if scales.size != 1 or 6.0 / float(scales[0]) < 2.0**31:
            continue
        if getattr(operator.builtinOptions, "fusedActivationFunction", None) == clamp.RELU6:
            operator.builtinOptions.fusedActivationFunction = clamp.RELU
        elif flatbuffer.operator_name(model, operator) == "RELU6":
            operator.opcodeIndex = flatbuffer.operator_code(model, schema.BuiltinOperator.RELU, version=2)


def clamp_by_grids(model: Any) -> None:
    """Make RELU and RELU6 on integers a QUANTIZE where the output's grid ends just where they clamp.

    QUANTIZE clamps to the grid: at 0, where that is the smallest integer, and at the largest, which the clamp at 6 must
    not lie below. The integers are the same.
    """
    subgraph = model.subgraphs[0]
    limits = {"RELU": np.inf, "RELU6": 6.0}
    for operator in subgraph.operators:
        limit = limits.get(flatbuffer.operator_name(model, operator))
        source, target = (subgraph.tensors[int(index)] for index in (operator.inputs[0], operator.outputs[0]))
        if limit is None or {flatbuffer.type_name(tensor) for tensor in (source, target)} != {"int8"}:
            continue
        ends = np.iinfo(np.int8)
        (scale,), (zero_point,) = flatbuffer.scales(target), flatbuffer.zero_points(target)
        if zero_point == ends.min and limit / scale > ends.max - ends.min - 0.5:
            operator.opcodeIndex = flatbuffer.operator_code(model, schema.BuiltinOperator.QUANTIZE, version=2)
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
