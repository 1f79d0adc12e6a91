"""What a model's inputs demand of the data."""

from __future__ import annotations

from tfq.data.samples import InputSignature
from tfq.models.graph import Graph


def input_signatures(graph: Graph) -> tuple[InputSignature, ...]:
    """Name, shape and dtype of every input, in the model's order."""
    inputs = (graph[name] for name in graph.inputs)
    return tuple(InputSignature(n.name, tuple(n.config["shape"]), str(n.config["dtype"])) for n in inputs)
