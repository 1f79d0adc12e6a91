"""Concatenations that end the model: where their parts have unlike ranges, they are computed in float.

All that int8 joins lies on one grid. Where boxes in 0..320 and scores in 0..1 are joined, one step of it is larger than
a score. Each part keeps a grid of its own instead, the concatenation works on real values, and the output is float32.
What it costs is a DEQUANTIZE for every part; it saves the QUANTIZE of those whose grid is prescribed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfq.models.equality import run_graph
from tfq.models.graph import Graph

_UNLIKE = 10.0  # times the range of another part


def free_ends(graph: Graph, inputs: Mapping[str, np.ndarray]) -> tuple[Graph, tuple[str, ...]]:
    """The graph with such concatenations as FloatConcatenate, and what a person should know of them.

    Args:
      inputs: real samples by input name.
    """
    ends: list[str] = []  # concatenations whose values reach outputs, and nothing but those and others of these
    for node in reversed(graph.nodes):
        readers = graph.readers[node.name]
        if node.kind == "Concatenate" and all(reader in ends for reader in readers):
            ends.append(node.name)
    parts = list(dict.fromkeys(source for name in ends for source in graph[name].inputs))
    if not parts:
        return graph, ()
    values = run_graph(dataclasses.replace(graph, outputs=tuple(parts), output_names=()), inputs)
    peaks = {name: float(np.abs(x).max()) for name, x in zip(parts, values, strict=True)}
    spans: dict[str, tuple[float, float]] = {}  # smallest and largest peak of what a concatenation joins
    for name in reversed(ends):  # from those that others read
        read = [spans.get(source, (peaks[source], peaks[source])) for source in graph[name].inputs]
        spans[name] = min(low for low, _ in read), max(high for _, high in read)
    unlike = {name: span for name, span in spans.items() if span[1] > _UNLIKE * span[0]}
    notes = tuple(
        f"the output {label!r} is float32: it joins tensors that reach {unlike[name][0]:.3g} and {unlike[name][1]:.3g},"
        " and 8 bits cannot hold both; make them outputs of their own if you need integers"
        for label, name in zip(graph.output_names, graph.outputs, strict=True)
        if name in unlike
    )
    if not unlike:
        return graph, ()
    return graph.with_nodes(*(graph[name].replace(kind="FloatConcatenate") for name in unlike)), notes
