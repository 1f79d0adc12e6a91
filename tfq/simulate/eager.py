"""Tensors of a float graph, or of a quantised model as the integer model will compute them, some samples at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import Arrays
from tfq.models.graph import Graph, Node
from tfq.quantized_model import QuantizedModel
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.walk import Compute, Walk, deployed

BATCH = 16
_PART = 2  # samples whose every tensor is held at a time: 180 MB of EfficientNetB0


def tensors(graph: Graph, samples: Arrays, names: Sequence[str] | None = None) -> list[np.ndarray]:
    """One array [n, ...] for each name.

    Args:
      graph: a float graph or a `QuantizedModel`, whose weights need not lie on their grids yet.
      samples: arrays [n, ...] by input name.
      names: of nodes; by default the graph's outputs.
    """
    parts = [found for _, found in tensor_parts(graph, samples, names or graph.outputs, size=BATCH)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def tensor_parts(
    graph: Graph, samples: Arrays, names: Sequence[str], *, size: int = _PART, resources: Resources = DEFAULT
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """As `tensors`, `size` samples at a time, for many large tensors: (which samples, tensors)."""
    count, functions = len(samples[graph.inputs[0]]), dict[str, Compute]()
    size = resources.batch(sum(samples[name].nbytes // count for name in graph.inputs), size)

    def function_of(node: Node) -> Compute:
        if node.name not in functions:
            functions[node.name] = deployed(node)
        return functions[node.name]

    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        with contextlib.closing(TensorStore(resources.memory_limit)) as store:
            few = {name: samples[name][part] for name in graph.inputs}
            walk = Walk(graph, few, store, names=names, function_of=function_of)
            walk.advance(graph)
            yield part, [walk.read(name) for name in names]


def simulate(model: QuantizedModel, samples: Arrays, *, resources: Resources = DEFAULT) -> dict[str, np.ndarray]:
    """The outputs [n, ...] of the integer model, simulated, by the model's output names."""
    found: list[list[np.ndarray]] = []
    with resources.progress.task("simulate", len(samples[model.inputs[0]])) as advance:
        for _, outputs in tensor_parts(model, samples, model.outputs, size=BATCH, resources=resources):
            found.append(outputs)
            advance(len(outputs[0]))
    return dict(zip(model.output_names, map(np.concatenate, zip(*found, strict=True)), strict=True))
