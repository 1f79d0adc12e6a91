"""What ends the model and would lose too much on a grid of 8 bits: it is computed in float, the output is float32.

All that int8 joins lies on one grid. Where boxes in 0..320 and scores in 0..1 are joined, one step of it is larger than
a score. If a part would keep less than _LEAST_DB there, and takes less than half of the common range, each part keeps a
grid of its own instead, the concatenation works on real values, and the output is float32. What it costs is a
DEQUANTIZE for every part; it saves the QUANTIZE of those whose grid is prescribed.

The grid of a softmax is prescribed, in steps of 1/256. Of many classes each may have less than half a step, and all of
these become 0. If they hold more than _MOST_LOST of the probability, the softmax works on real values. The fast path of
the CPU takes it in float, and not in integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.models.equality import run_graph
from tfq.models.graph import Graph

_LEAST_DB = 20.0  # signal to rounding error that a part must keep on the common grid, step^2 / 12
_SHARE = 0.5  # of the common range: a part that takes more would hardly gain by a grid of its own
_TINY = 1e-30
_MOST_LOST, _HALF_STEP = 0.01, 1 / 512  # of probability


def free_ends(
    graph: Graph, inputs: Mapping[str, np.ndarray], outputs: Sequence[np.ndarray]
) -> tuple[Graph, tuple[str, ...]]:
    """The graph with such ends as FloatConcatenate and FloatSoftmax, and what a person should know of them.

    Args:
      inputs, outputs: real samples by input name, and what the model gives for them.
    """
    graph, joined = _free_concatenations(graph, inputs)
    graph, squashed = _free_softmax(graph, outputs)
    return graph, joined + squashed


def _free_softmax(graph: Graph, outputs: Sequence[np.ndarray]) -> tuple[Graph, tuple[str, ...]]:
    lost = {  # output -> (its name for the user, the share that it would lose)
        name: (label, share)
        for name, label, values in zip(graph.outputs, graph.output_names, outputs, strict=True)
        if graph[name].kind == "Softmax"
        and not graph.readers[name]
        and (share := _below_half_a_step(values)) > _MOST_LOST
    }
    if not lost:
        return graph, ()
    notes = tuple(
        f"the output {label!r} is float32: {100 * share:.0f} % of its probability lies in classes of less than 1/512,"
        " which integers would make 0; end the model before the softmax if you need integers"
        for label, share in lost.values()
    )
    return graph.with_nodes(*(graph[name].replace(kind="FloatSoftmax") for name in lost)), notes


def _below_half_a_step(probabilities: np.ndarray) -> float:
    """Mean share that the small ones have, of [n, ..., classes]."""
    small = np.where(probabilities < _HALF_STEP, probabilities, 0.0)
    return float(small.sum(axis=-1, dtype=np.float64).mean())


def _free_concatenations(graph: Graph, inputs: Mapping[str, np.ndarray]) -> tuple[Graph, tuple[str, ...]]:
    ends: list[str] = []  # concatenations whose values reach outputs, and nothing but those and others of these
    for node in reversed(graph.nodes):
        readers = graph.readers[node.name]
        if node.kind == "Concatenate" and all(reader in ends for reader in readers):
            ends.append(node.name)
    if not ends:
        return graph, ()

    def parts(name: str) -> list[str]:
        return [p for source in graph[name].inputs for p in (parts(source) if source in ends else [source])]

    read = list(dict.fromkeys(part for name in ends for part in parts(name)))
    values = dict(
        zip(read, run_graph(dataclasses.replace(graph, outputs=tuple(read), output_names=()), inputs), strict=True)
    )
    lost: dict[str, tuple[str, float]] = {}  # concatenation -> the part that loses most, and what it would keep in dB
    for name in ends:
        step = max(_span([values[p] for p in parts(name)]) / 255, _TINY)
        kept = {
            p: 10 * math.log10(max(12 * float(np.mean(np.square(values[p]))) / step**2, _TINY)) for p in parts(name)
        }
        small = {p: k for p, k in kept.items() if k < _LEAST_DB and _span([values[p]]) < _SHARE * 255 * step}
        if small:
            lost[name] = min(small.items(), key=lambda item: item[1])
    notes = tuple(
        f"the output {label!r} is float32: on one grid of 8 bits with what it is joined with, {graph[part].origin[0]!r}"
        f" would keep {kept:.0f} dB; make it an output of its own if you need integers"
        for label, name in zip(graph.output_names, graph.outputs, strict=True)
        for part, kept in ([lost[name]] if name in lost else [])
    )
    if not lost:
        return graph, ()
    return graph.with_nodes(*(graph[name].replace(kind="FloatConcatenate") for name in lost)), notes


def _span(values: Sequence[np.ndarray]) -> float:
    """Of the grid that holds all these, and 0."""
    return max(0.0, *(float(x.max()) for x in values)) - min(0.0, *(float(x.min()) for x in values))
