"""Functions that are infinite at 0, on grids that have a 0 where the float model never had one.

    log(softmax(x)) = log_softmax(x),  log(sigmoid(x)) = log_sigmoid(x)     one float operation
    f(a x + b)                                                              the map in float, as f is

for f one of log, 1/x and 1/sqrt(x), and for what something is divided by. A value that rounds to 0 in front of the
map then still gives b; folded into a layer whose output has a grid, the sum itself would round to 0.
"""

from __future__ import annotations

from tfq.models.graph import Graph, Node
from tfq.models.rewrite import merged_origin, rewrite, sole_readers

_SINGULAR = ("log", "reciprocal", "rsqrt")
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


def _is_singular(node: Node) -> bool:
    return node.kind == "Unary" and node.config["function"] in _SINGULAR
