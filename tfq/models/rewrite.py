"""How a transformation walks a graph: one rule, applied to every node in topological order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models.graph import INPUT, Graph, Node, once_per_structure
from tfq.operations.table import operator_of

Rule = Callable[[Node], Sequence[Node] | str | None]


def made_by(
    node: Node,
    role: str,
    kind: str,
    inputs: Sequence[str],
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> Node:
    """A node `<node>.<role>` that `node` gives rise to: its origin, and a group beside its group."""
    return Node(
        f"{node.name}.{role}",
        kind,
        config or {},
        tuple(inputs),
        weights or {},
        origin=node.origin,
        group=f"{node.group}.{role}",
    )


def reshaped(
    node: Node, shape: Sequence[int], layers: Sequence[Node], output: Sequence[int], role: str = "shape"
) -> list[Node]:
    """`layers`, a chain, on what `node` reads in this shape; what they give gets the shape `output`, by `role`."""
    before = made_by(node, "image", "Reshape", node.inputs, {"target_shape": tuple(shape)})
    after = made_by(node, role, "Reshape", (layers[-1].name,), {"target_shape": tuple(output)})
    return [before, layers[0].replace(inputs=(before.name,)), *layers[1:], after]


def unmoved(graph: Graph, name: str) -> list[str]:
    """The node, those whose values it only moves, and last the one that computes these."""
    found = [name]
    while operator_of(graph[name].kind).moves:
        (name,) = graph[name].inputs
        found.append(name)
    return found


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Replace nodes by what `rule` makes of them.

    The rule gets a node whose inputs already name the rewritten tensors. It returns None to keep the
    node, the nodes that take its place (the last one writes its output), or the name of a tensor that
    does. New nodes whose names are taken get others. Returns the same graph object if nothing changed.
    """
    now: dict[str, str] = {}
    nodes: list[Node] = []
    taken = set(graph.by_name)
    changed = False
    for node in graph.nodes:
        inputs = tuple(now[i] for i in node.inputs)
        current = node if inputs == node.inputs else node.replace(inputs=inputs)
        made = None if node.kind == INPUT else rule(current)
        changed = changed or made is not None
        if isinstance(made, str):
            now[node.name] = made
            continue
        nodes.extend([current] if made is None else _apart(made, node.name, taken))
        now[node.name] = nodes[-1].name
    if not changed:
        return graph
    return without_unused(Graph(tuple(nodes), graph.inputs, tuple(now[o] for o in graph.outputs), graph.output_names))


def _apart(made: Sequence[Node], replaced: str, taken: set[str]) -> list[Node]:
    """The nodes with names of their own, which `taken` then has too; one of them may be called as the replaced node."""
    renamed: dict[str, str] = {}
    for node in made:
        if node.name != replaced:
            numbered = (f"{node.name}.{i}" for i in itertools.count(2))
            renamed[node.name] = node.name if node.name not in taken else next(n for n in numbered if n not in taken)
            taken.add(renamed[node.name])
    return [
        node.replace(name=renamed.get(node.name, node.name), inputs=tuple(renamed.get(i, i) for i in node.inputs))
        for node in made
    ]


def without_unused(graph: Graph) -> Graph:
    """The graph without nodes that no output depends on (inputs stay)."""
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = tuple(n for n in graph.nodes if n.name in needed or n.kind == INPUT)
    return graph if len(nodes) == len(graph.nodes) else Graph(nodes, graph.inputs, graph.outputs, graph.output_names)


@once_per_structure
def sole_readers(graph: Graph) -> Mapping[str, str | None]:
    """Node name -> the one node that reads it; None where none or several do, or where it is an output of the model."""
    return {
        name: readers[0] if len(readers) == 1 and name not in graph.outputs else None
        for name, readers in graph.readers.items()
    }


def merged_origin(first: Node, *others: Node) -> tuple[str, ...]:
    """The user's layers behind all these nodes, in order, each once."""
    return tuple(dict.fromkeys(name for node in (first, *others) for name in node.origin))
