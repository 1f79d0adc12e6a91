"""Which tensors must share one grid, and where a Requantize node keeps two of them apart.

TFLite demands that the nodes whose rule is "same" (concatenation, pooling, reshapes, ...) read and write
one grid. The grids of "fixed" outputs and of embeddings are given by the node itself, so a concatenation
that joins such a tensor with others reads a requantised copy of it. Tensors of float nodes and integer
tensors have no grid; an int8 node reads a float node through a Requantize node.
"""

from __future__ import annotations

from tfq.models.graph import INPUT, Graph, Node
from tfq.models.operators import OPERATORS
from tfq.models.rewrite import made_by, rewrite

_Constraint = tuple[object, ...] | None


def _rule_of(node: Node) -> str:
    return "own" if node.kind == INPUT else OPERATORS[node.kind].output


class _Groups:
    """Union-find over tensor names, filled in topological order; the first tensor names its group."""

    def __init__(self) -> None:
        self._parent: dict[str, str | None] = {}  # None: no grid
        self._constraint: dict[str, _Constraint] = {}

    def find(self, name: str) -> str | None:
        parent = self._parent[name]
        while parent is not None and parent != name:
            name, parent = parent, self._parent[parent]
        return parent

    def constraint(self, name: str) -> _Constraint:
        group = self.find(name)
        return None if group is None else self._constraint[group]

    def add(self, node: Node) -> None:
        name, rule = node.name, _rule_of(node)
        if node.kind == INPUT:
            self._parent[name] = name if str(node.config["dtype"]).startswith("float") else None
            self._constraint[name] = None
            return
        groups = [self.find(i) for i in node.inputs]
        shares = rule == "same" and node.kind != "Embedding"
        if rule == "float" or (shares and None in groups):
            self._parent[name] = None
            return
        self._parent[name] = name
        self._constraint[name] = None
        if rule == "fixed":
            self._constraint[name] = ("fixed", *(OPERATORS[node.kind].fixed or ()))
        elif node.kind == "Embedding":
            self._constraint[name] = ("embedding", node.group)
        for group in groups if shares else ():
            self._join(group, name)

    def _join(self, group: str | None, name: str) -> None:
        other = self.find(name)
        if group is None or other is None or group == other:
            return
        first, second = self._constraint[group], self._constraint[other]
        if first is not None and second is not None and first != second:
            raise ValueError(f"tensors {group!r} and {other!r} must share a grid but have {first} and {second}")
        self._parent[other] = group
        self._constraint[group] = first or second


def grid_groups(graph: Graph) -> dict[str, str]:
    """Tensor (node) name -> name of the group of tensors that share its grid; tensors without a grid are absent.

    The group is called after its first tensor in topological order that was joined to it.

    Raises:
      ValueError: a group has two given grids; `separate_grids` makes that impossible.
    """
    groups = _Groups()
    for node in graph.nodes:
        groups.add(node)
    return {n.name: g for n in graph.nodes if (g := groups.find(n.name)) is not None}


def separate_grids(graph: Graph) -> Graph:
    """Insert the Requantize nodes described above."""
    groups = _Groups()
    copies: dict[str, Node] = {}
    floats = {node.name for node in graph.nodes if node.kind in OPERATORS and _rule_of(node) == "float"}

    def needs_copy(node: Node) -> list[str]:
        if _rule_of(node) == "float":
            return []
        found = [i for i in node.inputs if i in floats]
        if _rule_of(node) == "same" and len(node.inputs) > 1:
            given = {groups.constraint(i) for i in node.inputs if i not in floats}
            if len(given) > 1:
                found += [i for i in node.inputs if i not in floats and groups.constraint(i) is not None]
        return found

    def rule(node: Node) -> list[Node] | None:
        made = []
        for name in dict.fromkeys(needs_copy(node)):
            if name not in copies:
                copies[name] = made_by(graph.by_name[name], "requantize", "Requantize", (name,))
                made.append(copies[name])
                groups.add(copies[name])
        wanted = needs_copy(node)
        node = node.replace(inputs=tuple(copies[i].name if i in wanted else i for i in node.inputs))
        groups.add(node)
        return [*made, node] if wanted else None

    for node in graph.nodes:
        if node.kind == INPUT:
            groups.add(node)
    return rewrite(graph, rule)
