"""Which tensors must share one grid, and where a Requantize node keeps two of them apart.

TFLite demands that the nodes whose rule is "same" (concatenation, pooling, reshapes, ...) read and write
one grid. The grids of "fixed" outputs and of embeddings are given by the node itself, so a concatenation
that joins such a tensor with others reads a requantised copy of it, and so does a MatMul whose right-hand
side would have a zero-point other than 0. A product that is joined with a factor of its own is requantised too: on
the factor's grid its kernel would overflow where the other factor has steps above 1/2 (`tfq.export.scales`). Tensors of
float nodes and integer tensors have no grid, nor do inputs that are read as indices (`tfq.models.inputs`) and what only
moves them; an int8 node, a reshape behind a float node among them, reads these through a Requantize node. A reshape or
transposition between float nodes alone has no grid either: what it moves may be infinite, as masks are.

A Requantize behind a float node that only selects among the values of a tensor, such as a minimum or a sorting, has the
grid of that tensor: on one of its own the values would be rounded once more. But not where it is joined with others,
whose range the tensor would then have too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfq.models.graph import INPUT, Graph, Node, once_per_structure
from tfq.models.inputs import without_grid
from tfq.models.rewrite import made_by, rewrite
from tfq.operations.table import OPERATORS, operator_of

# TFLiteConverter fuses a ReLU onto these. The output of a pool then has another grid than its input, which it refuses;
# a dense layer that others read too it computes twice, and no operation of the ReLU's own is left.
_FUSED = ("AveragePooling2D", "Dense", "MaxPooling2D")
_Constraint = tuple[str, Any] | None


def _rule_of(node: Node) -> str:
    return "own" if node.kind == INPUT else OPERATORS[node.kind].output


class _Groups:
    """Union-find over tensor names, filled in topological order; the first tensor names its group."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}  # a tensor without a grid is absent
        self._constraint: dict[str, _Constraint] = {}
        self._order: dict[str, int] = {}

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def find(self, name: str) -> str | None:
        """The group's name, None for a tensor without a grid."""
        return self._root(name) if name in self._parent else None

    def constraint(self, name: str) -> _Constraint:
        group = self.find(name)
        return None if group is None else self._constraint[group]

    def add(self, node: Node) -> None:
        rule = _rule_of(node)
        shares = rule == "same" and node.kind != "Embedding"
        groups = [self.find(i) for i in node.inputs] if shares else []
        integer = node.kind == INPUT and not str(node.config["dtype"]).startswith("float")
        if rule == "float" or integer or without_grid(node) or None in groups:
            return
        self._order[node.name] = len(self._order)
        self._parent[node.name] = node.name
        self._constraint[node.name] = None
        if rule == "fixed":
            self._constraint[node.name] = ("fixed", OPERATORS[node.kind].fixed)
        elif node.kind == "Embedding":
            self._constraint[node.name] = ("embedding", node.group)
        for group in groups:
            if group is not None:
                self.join(group, node.name)

    def join(self, group: str, name: str) -> None:
        first, second = sorted((group, self._root(name)), key=self._order.__getitem__)
        if first == second:
            return
        given, other = self._constraint[first], self._constraint[second]
        if given is not None and other is not None and given != other:
            raise ValueError(f"tensors {first!r} and {second!r} must share a grid but have {given} and {other}")
        self._parent[second] = first
        self._constraint[first] = given or other


@once_per_structure
def grid_groups(graph: Graph) -> Mapping[str, str]:
    """Tensor (node) name -> name of the group of tensors that share its grid; tensors without a grid are absent.

    A group is called after its first tensor in topological order.

    Raises:
      ValueError: a group has two given grids; `separate_grids` makes that impossible.
    """
    groups = _Groups()
    for node in graph.nodes:
        groups.add(node)
    for source, copy in _selections(graph, groups):
        groups.join(source, copy)
    return {n.name: g for n in graph.nodes if (g := groups.find(n.name)) is not None}


def _selections(graph: Graph, groups: _Groups) -> list[tuple[str, str]]:
    """(tensor, Requantize node of what a float node selects of it), where both may have one grid."""
    members: dict[str | None, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(groups.find(node.name), []).append(node)

    def is_joined(name: str) -> bool:
        first, *others = members[groups.find(name)]
        inside = {first.name, *(node.name for node in others)}
        return first.name != name or not all(inside.issuperset(node.inputs) for node in others)

    def selected(node: Node) -> str | None:
        """The tensor behind all selections; None where there is none."""
        source = graph[node.inputs[0]]
        while source.kind == "Carried":
            index = source.config["work"].selects
            if index is None:
                return None
            source = graph[source.inputs[index]]
        return source.name if groups.find(source.name) is not None else None

    copies = [node for node in graph.nodes if node.kind == "Requantize" and graph[node.inputs[0]].kind == "Carried"]
    pairs = [(source, node.name) for node in copies if (source := selected(node)) and not is_joined(node.name)]
    return [pair for pair in pairs if not any(groups.constraint(name) for name in pair)]


def _off_centre(constraint: _Constraint) -> bool:
    """Whether it prescribes a zero-point other than 0, the one a MatMul's right-hand side must have (`specify`)."""
    return constraint is not None and constraint[0] == "fixed" and constraint[1] is not None and constraint[1][1] != 0


def _moved_without_grid(graph: Graph) -> set[str]:
    """Inputs without a grid, and what only moves their values."""
    found: set[str] = set()
    for node in graph.nodes:
        moves = node.kind != INPUT and _rule_of(node) == "same" and node.kind != "Embedding"
        if without_grid(node) or (moves and found.issuperset(node.inputs)):
            found.add(node.name)
    return found


def _moved_between(graph: Graph, floats: set[str]) -> set[str]:
    """What moves the values of float nodes, and is read by such alone."""
    found: set[str] = set()
    for node in graph.nodes:
        if operator_of(node.kind).moves and node.kind != "Requantize" and (floats | found).issuperset(node.inputs):
            found.add(node.name)
    for node in reversed(graph.nodes):
        readers = graph.readers[node.name]
        if node.name in graph.outputs or not readers or not (floats | found).issuperset(readers):
            found.discard(node.name)
    return found


def separate_grids(graph: Graph) -> Graph:
    """Insert the Requantize nodes described above."""
    groups, graph_nodes = _Groups(), graph.by_name
    copies: dict[str, Node] = {}
    raw = _moved_without_grid(graph)
    floats = raw | {node.name for node in graph.nodes if node.kind in OPERATORS and _rule_of(node) == "float"}
    raw |= _moved_between(graph, floats)
    floats |= raw

    def is_product_of(node: Node, joined: set[str | None]) -> bool:
        return node.kind == "Multiply" and any(groups.find(i) in joined for i in node.inputs)

    def needs_copy(node: Node) -> list[str]:
        if node.kind == "FloatConcatenate" and not floats.issuperset(node.inputs):
            return [i for i in node.inputs if i in floats]  # where only some have a grid TFLiteConverter fails
        if _rule_of(node) == "float" or node.name in raw or node.kind == "Embedding":
            return []
        found = [i for i in node.inputs if i in floats]
        if node.kind == "ReLU":
            found += [i for i in node.inputs if i in graph_nodes and graph_nodes[i].kind in _FUSED]
        if _rule_of(node) == "same" and len(node.inputs) > 1:
            given = {None if i in floats else groups.constraint(i) for i in node.inputs}
            if len(given) > 1:
                found += [i for i in node.inputs if i not in floats and groups.constraint(i) is not None]
            joined = {groups.find(i) for i in node.inputs} - {None}
            found += [i for i in node.inputs if i in graph_nodes and is_product_of(graph_nodes[i], joined)]
        if node.kind == "MatMul" and _off_centre(groups.constraint(node.inputs[1])):
            found.append(node.inputs[1])
        return found

    def rule(node: Node) -> list[Node] | None:
        wanted = needs_copy(node)
        made = [
            made_by(graph_nodes[name], "requantize", "Requantize", (name,))
            for name in dict.fromkeys(wanted)
            if name not in copies
        ]
        copies.update({copy.inputs[0]: copy for copy in made})
        node = node.replace(inputs=tuple(copies[i].name if i in wanted else i for i in node.inputs))
        for new in (*made, node):
            groups.add(new)
        return [*made, node] if wanted else None

    for node in graph.nodes:
        if node.kind == INPUT:
            groups.add(node)
    return rewrite(graph, rule)
