"""Keras layer names on every tensor, and a signature with the user's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export.binding import Binding, stored_constant, weight_positions
from tfq.models.graph import Graph


def name_tensors(model: Any, graph: Graph, binding: Binding) -> None:
    """Call every tensor by its Keras layer and give the file a signature with the user's own names.

    The output of layer "conv" is called "conv", its weights "conv/kernel" and "conv/bias", as they are stored;
    further tensors of the layer "conv/1", "conv/2", ...
    """
    subgraph = model.subgraphs[0]
    labels: dict[int, str] = {}
    owners = {index: name for name, index in (*binding.inputs.items(), *binding.node_tensor.items())}
    labels.update({index: name for name, index in binding.inputs.items()})
    for name, index in binding.node_tensor.items():
        labels.setdefault(index, name if name not in labels.values() else f"{name}/quantized")
    for index, name in binding.operator_node.items():
        operator, node = subgraph.operators[index], graph[name]
        for role, position in weight_positions(model, operator, node).items():
            constant = stored_constant(model, int(operator.inputs[position]))
            labels.setdefault(constant, f"{name}/{role}")
            owners[constant] = name
    owner = ""
    counts: dict[str, int] = {}
    for name, index in binding.outputs.items():
        if index not in labels:  # a copy at the file's edge in another type
            counts[name] = counts.get(name, 0) + 1
            labels[index] = f"{name}/{counts[name]}"
    for index, operator in enumerate(subgraph.operators):
        owner = binding.operator_node.get(index) or owners.get(int(operator.inputs[0]), owner or graph.inputs[0])
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor >= 0 and int(tensor) not in labels:
                counts[owner] = counts.get(owner, 0) + 1
                labels[int(tensor)] = f"{owner}/{counts[owner]}"
    for index, label in labels.items():
        subgraph.tensors[index].name = label
    subgraph.name = "main"
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    subgraph.inputs = np.asarray([binding.inputs[name] for name in graph.inputs], np.int32)
    subgraph.outputs = np.asarray([binding.outputs[name] for name in graph.outputs], np.int32)
    signature.inputs = _tensor_map(zip(graph.inputs, subgraph.inputs, strict=True))
    signature.outputs = _tensor_map(zip(graph.output_names, subgraph.outputs, strict=True))
    model.signatureDefs = [signature]
    model.description = "made by tfq"


def _tensor_map(pairs: Iterable[tuple[str, int]]) -> list[Any]:
    entries = []
    for name, index in pairs:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        entries.append(entry)
    return entries
