"""Copies on another grid that nobody asked for: the converter computes a mean on its input's grid and copies that."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfq.export import flatbuffer


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
