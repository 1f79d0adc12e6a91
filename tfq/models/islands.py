"""Maps among float layers: an Affine that only float layers feed and read computes in float, as they do.

    sqrt(max(n mean(x^2), c))      the product by n, the maximum and the mean between square and root

As a convolution of one weight a channel it would be the only integer layer between two float ones, and cost a grid on
either side. Other layers without weights follow their neighbours anyway (`tfq.models.borders`).
"""

from __future__ import annotations

from tfq.models.graph import INPUT, Graph
from tfq.operations.table import operator_of


def keep_islands_float(graph: Graph) -> Graph:
    """The graph with FloatAffine nodes in place of such Affine nodes."""
    if not any(node.kind == "Affine" for node in graph.nodes):
        return graph
    readers = graph.readers
    floats = {node.name for node in graph.nodes if operator_of(node.kind).output == "float"}
    inside = {n.name for n in graph.nodes if n.kind != INPUT and not operator_of(n.kind).kernel} - floats
    inside -= set(graph.outputs)
    while True:  # starts from all that could follow: what is left is the largest set that holds together
        known = floats | inside
        kept = {name for name in inside if known.issuperset((*graph[name].inputs, *readers[name]))}
        if kept == inside:
            break
        inside = kept
    maps = [graph[name] for name in inside if graph[name].kind == "Affine"]
    return graph.with_nodes(*(node.replace(kind="FloatAffine") for node in maps)) if maps else graph
