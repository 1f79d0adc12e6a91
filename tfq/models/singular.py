"""Functions that are infinite at 0, on grids that have a 0 where the float model never had one.

    log(softmax(x)) = log_softmax(x),  log(sigmoid(x)) = log_sigmoid(x)     one float operation
    f(a x + b)                                                              the map in float, as f is

for f one of log, 1/x and 1/sqrt(x), and for what something is divided by. A value that rounds to 0 in front of the
map then still gives b; folded into a layer whose output has a grid, the sum itself would round to 0. Where there is no
map, nothing can be done but to say so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfq.models.equality import run_graph
from tfq.models.graph import Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.rewrite import merged_origin, rewrite, sole_readers
from tfq.numerics import reference

_SINGULAR = ("log", "reciprocal", "rsqrt")
_BITS = 8
_LOGARITHMS = {"Softmax": "log_softmax", "Sigmoid": "log_sigmoid"}


def keep_off_zero(graph: Graph) -> Graph:
    """The graph with these rewritings; its Softmax nodes work along the last axis."""
    nodes, readers = graph.by_name, sole_readers(graph)
    singular = {node.inputs[0] for node in graph.nodes if _is_singular(node)}
    singular |= {node.inputs[1] for node in graph.nodes if node.kind == "Divide"}

    def rule(node: Node) -> list[Node] | None:
        if node.kind == "Affine" and node.name in singular:
            return [node.replace(kind="FloatAffine")]
        if node.config.get("function") == "log" and readers[node.inputs[0]] is not None:
            source = nodes[node.inputs[0]]
            if source.kind in _LOGARITHMS:
                config = {"function": _LOGARITHMS[source.kind]}
                return [node.replace(config=config, inputs=source.inputs, origin=merged_origin(source, node))]
        return None

    return rewrite(graph, rule)


def zero_notes(graph: Graph, samples: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """One line for each such function of a prepared graph that reads a tensor of which 8 bits round something to 0.

    Args:
      graph: the prepared graph.
      samples: of all inputs, [n, ...].
    """
    groups = grid_groups(graph)
    readers = {n.inputs[-1]: n for n in graph.nodes if _is_singular(n) or n.kind == "Divide"}
    read = tuple(name for name in readers if name in groups)
    if not read:
        return ()
    notes = []
    for name, values in zip(read, run_graph(Graph(graph.nodes, graph.inputs, read), samples), strict=True):
        step = reference.asymmetric_parameters(float(values.min()), float(values.max()), _BITS)[0]
        lost = float(np.mean(np.abs(values) < step / 2))
        if lost:
            what = f"layer {readers[name].origin[0]!r} ({readers[name].config.get('function', 'division')})"
            notes.append(
                f"{what} is infinite at 0, to which 8 bits round {lost:.2%} of what it reads"
                f" ({np.abs(values).min():.3g} at least, in steps of {step:.3g}); add a constant to what it reads"
            )
    return tuple(notes)


def _is_singular(node: Node) -> bool:
    return node.kind == "Unary" and node.config["function"] in _SINGULAR
