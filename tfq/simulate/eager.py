"""Tensors of a float graph, or of a quantised model as the integer model will compute them, node by node.

Nothing is built: a Keras model of the same nodes takes seconds to build and trace, a few samples a fraction of one.
What is computed is what `tfq.simulate.wrap` wraps: weights on their grids, every output put on its own by TensorFlow's
fake-quant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfq.models.equality import node_function
from tfq.models.graph import INPUT, Graph
from tfq.simulate.quantizers import fake_quant
from tfq.simulate.weights import snap_node

_BATCH = 16
_PART = 2  # samples whose every tensor is held at a time: 180 MB of EfficientNetB0


def tensors(graph: Graph, samples: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> list[np.ndarray]:
    """One array [n, ...] for each name.

    Args:
      graph: a float graph or a `QuantizedModel`, whose weights need not lie on their grids yet.
      samples: arrays [n, ...] by input name.
      names: of nodes; by default the graph's outputs.
    """
    parts = [found for _, found in _parts(graph, samples, names or graph.outputs, _BATCH)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def tensor_parts(
    graph: Graph, samples: Mapping[str, np.ndarray], names: Sequence[str]
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """As `tensors`, a few samples at a time, for many large tensors: (which samples, tensors)."""
    return _parts(graph, samples, names, _PART)


def _parts(
    graph: Graph, samples: Mapping[str, np.ndarray], names: Sequence[str], size: int
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    needed = _needed(graph, names)
    nodes = [node for node in graph.nodes if node.name in needed]
    functions = {node.name: node_function(snap_node(node)) for node in nodes if node.kind != INPUT}
    count = len(samples[graph.inputs[0]])
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        found: dict[str, tf.Tensor] = {}
        readers = {name: sum(reader in needed for reader in graph.readers[name]) for name in needed}
        for node in nodes:
            if node.kind == INPUT:
                value = tf.constant(np.asarray(samples[node.name][part], node.config["dtype"]))
            else:
                value = functions[node.name]([found[source] for source in node.inputs])
            found[node.name] = value if node.grid is None else fake_quant(value, node.grid)
            for source in node.inputs:
                readers[source] -= 1
                if not readers[source] and source not in names:
                    del found[source]
        yield part, [found[name].numpy() for name in names]


def _needed(graph: Graph, names: Sequence[str]) -> set[str]:
    needed = set(names)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return needed
