"""Concatenations of many tensors, in several of fewer.

Kernels of a fast path join so many tensors at once: XNNPACK (LiteRT 2.3) takes 5. Those beyond are joined in groups,
and then the groups; all lie on one grid, so that the integers are the same.
"""

from __future__ import annotations

from tfq.models.graph import Graph, Node
from tfq.models.rewrite import made_by, rewrite

_JOINS = ("Concatenate", "FloatConcatenate")


def split_joins(graph: Graph, most: int) -> tuple[Graph, tuple[str, ...]]:
    """The graph with concatenations of at most so many tensors, and the names of those that were split."""
    large = {node.name for node in graph.nodes if node.kind in _JOINS and len(node.inputs) > most}
    rewritten = rewrite(graph, lambda node: _in_groups(node, most) if node.name in large else None)
    return rewritten, tuple(node.name for node in graph.nodes if node.name in large)


def _in_groups(node: Node, most: int) -> list[Node]:
    made: list[Node] = []
    names = node.inputs
    while len(names) > most:
        groups = [names[i : i + most] for i in range(0, len(names), most)]
        joined = [made_by(node, f"part{len(made) + i}", node.kind, g, node.config) for i, g in enumerate(groups)]
        made += [join for join in joined if len(join.inputs) > 1]
        names = tuple(join.name if len(join.inputs) > 1 else join.inputs[0] for join in joined)
    return [*made, node.replace(inputs=names)]
