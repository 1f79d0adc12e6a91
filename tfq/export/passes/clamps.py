"""A clamp at 6 that the runtime could not express."""

from __future__ import annotations

from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer


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
