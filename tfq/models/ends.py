"""What ends the model and would lose too much on a grid of 8 bits: it is computed in float, the output is float32.

All that int8 joins lies on one grid. Where boxes in 0..320 and scores in 0..1 are joined, one step of it is larger than
a score. If a part would keep less than _LEAST_DB there, and takes less than half of the common range, each part keeps a
grid of its own instead, the concatenation works on real values, and the output is float32. What it costs is a
DEQUANTIZE for every part; it saves the QUANTIZE of those whose grid is prescribed. A softmax that is only joined there
works on real values too, and so does a sigmoid of small values.

The grid of a softmax or sigmoid is prescribed, in steps of 1/256. Of many classes each may have less than half a step,
and all of these become 0. If they hold more than _MOST_LOST of the probability of a softmax, or a sigmoid would keep
less than _LEAST_DB, it works on real values. The fast path of the CPU takes a softmax in float, and not in integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.models.equality import run_graph, tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.reshapes import RESHAPES

_LEAST_DB = 20.0  # signal to rounding error that a part must keep on the common grid, step^2 / 12
_SHARE = 0.5  # of the common range: a part that takes more would hardly gain by a grid of its own
_TINY = 1e-30
_MOST_LOST, _HALF_STEP = 0.01, 1 / 512  # of probability


def free_ends(
    graph: Graph, inputs: Mapping[str, np.ndarray], outputs: Sequence[np.ndarray]
) -> tuple[Graph, tuple[str, ...]]:
    """The graph with such ends as FloatConcatenate, FloatSoftmax and FloatSigmoid, and what to know of them.

    Args:
      inputs, outputs: real samples by input name, and what the model gives for them.
    """
    graph, joined = _free_concatenations(graph, inputs)
    graph, squashed = _free_squashed(graph, outputs)
    return graph, joined + squashed


def _free_squashed(graph: Graph, outputs: Sequence[np.ndarray]) -> tuple[Graph, tuple[str, ...]]:
    freed: list[Node] = []
    notes: list[str] = []
    for name, label, values in zip(graph.outputs, graph.output_names, outputs, strict=True):
        end = graph[name]
        source = graph[end.inputs[0]] if end.kind in RESHAPES else end
        lost = _LOST[source.kind](values) if source.kind in _LOST and not graph.readers[name] else ""
        if not lost or (source is not end and not _may_follow(graph, source, end)):
            continue
        softened = source.replace(name=name, kind=f"Float{source.kind}")
        if source is not end:  # what is reshaped has a grid: the reshape goes first, and there is one border
            freed.append(end.replace(name=source.name, inputs=source.inputs))
            softened = softened.replace(inputs=(source.name,))
        freed.append(softened)
        notes.append(
            f"the output {label!r} is float32: {lost}; end the model before the {source.kind.lower()} if you need"
            " integers"
        )
    return (graph.with_nodes(*freed) if freed else graph), tuple(notes)


def _may_follow(graph: Graph, squashing: Node, reshape: Node) -> bool:
    """Whether it gives the same behind the reshape that reads it as before."""
    if squashing.name in graph.outputs or list(graph.readers[squashing.name]) != [reshape.name]:
        return False
    shapes = tensor_shapes(graph)
    return squashing.kind == "Sigmoid" or shapes[squashing.name][-1:] == shapes[reshape.name][-1:]


def _lost_by_softmax(probabilities: np.ndarray) -> str:
    """Of [n, ..., classes]; empty where little is lost."""
    small = np.where(probabilities < _HALF_STEP, probabilities, 0.0)
    share = float(small.sum(axis=-1, dtype=np.float64).mean())
    if share <= _MOST_LOST:
        return ""
    return f"{100 * share:.0f} % of its probability lies in classes of less than 1/512, which integers would make 0"


def _lost_by_sigmoid(values: np.ndarray) -> str:
    """Of an output [n, ...]; empty where little is lost."""
    kept = _kept(values, 2 * _HALF_STEP)
    return "" if kept >= _LEAST_DB else f"on the grid that TFLite prescribes, in steps of 1/256, it keeps {kept:.0f} dB"


def _kept(values: np.ndarray, step: float) -> float:
    """Signal to rounding error on a grid, dB."""
    return 10 * math.log10(max(12 * float(np.mean(np.square(values))) / step**2, _TINY))


_LOST = {"Softmax": _lost_by_softmax, "Sigmoid": _lost_by_sigmoid}


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
        kept = {p: _kept(values[p], step) for p in parts(name)}
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

    def only_joined(name: str) -> bool:
        onward = (r in lost or (graph[r].kind in RESHAPES and only_joined(r)) for r in graph.readers[name])
        return name not in graph.outputs and all(onward)

    freed: list[Node] = []
    for part in read:
        source = graph[part]
        while source.kind in RESHAPES:
            source = graph[source.inputs[0]]
        loses = source.kind == "Softmax" or (source.kind == "Sigmoid" and _lost_by_sigmoid(values[part]))
        if loses and only_joined(source.name):
            freed.append(source.replace(kind=f"Float{source.kind}"))
    return graph.with_nodes(*freed, *(graph[name].replace(kind="FloatConcatenate") for name in lost)), notes


def _span(values: Sequence[np.ndarray]) -> float:
    """Of the grid that holds all these, and 0."""
    return max(0.0, *(float(x.max()) for x in values)) - min(0.0, *(float(x.min()) for x in values))
