"""What the model's inputs are read as: quantities, which lie on a grid, or indices, which cannot.

quantities only   float32 with a grid, whatever numbers the Keras model takes
indices only      int32 and int64 stay, other integers become int32; float32 (Keras' default) stays, without a
                  grid, and a Cast in front of the Embedding makes int32 of it, as Keras does
both              float32 without a grid: the indices are cast, and what computes reads a copy with a grid
nothing           the type stays; no grid
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tfq.errors import UserError
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.keras_layers import LAYERS
from tfq.models.rewrite import made_by

_INDEX_READERS = ("Embedding", "Cast")
_INDICES = ("int32", "int64")  # what an Embedding reads as it is


def without_grid(node: Node) -> bool:
    """Whether the node gives numbers that no grid may touch: an input, or computed integers and truth values."""
    if node.kind == "Carried":
        return node.config["work"].form[1] != "float32"
    return node.kind == "Cast" or (node.kind == INPUT and not node.config.get("grid", True))


def typed_inputs(graph: Graph) -> Graph:
    """The graph whose inputs have the types described above.

    Raises:
      UserError: indices that are computed, or numbers made of indices.
    """
    uses = _uses(graph)
    nodes: list[Node] = []
    dtypes: dict[str, str] = {}  # of inputs and of what only moves them; "" of what is computed
    for old in graph.nodes:
        node = _typed_input(old, uses[old.name]) if old.kind == INPUT else old
        if node.kind == INPUT:
            dtypes[node.name] = str(node.config["dtype"])
        elif moves(node):
            dtypes[node.name] = dtypes[node.inputs[0]]
        elif node.kind == "Carried":
            dtypes[node.name] = "" if node.config["work"].form[1] == "float32" else node.config["work"].form[1]
        else:
            dtypes[node.name] = "int32" if node.kind == "Cast" else ""
        if node.kind in _INDEX_READERS:
            _check_indices(graph, node, dtypes, uses)
            if node.kind == "Embedding" and dtypes[node.inputs[0]] not in _INDICES:
                cast = made_by(node, "indices", "Cast", node.inputs)
                nodes.append(cast)
                node = node.replace(inputs=(cast.name,))
        nodes.append(node)
    same = len(nodes) == len(graph.nodes) and all(a is b for a, b in zip(nodes, graph.nodes, strict=True))
    return graph if same else Graph(tuple(nodes), graph.inputs, graph.outputs, graph.output_names)


def moves(node: Node) -> bool:
    """Whether the node's output holds its input's values and nothing computed from them."""
    if node.kind == "Activation":
        return node.config.get("activation") == "linear"
    return node.kind == "Slice" or (node.kind in LAYERS and LAYERS[node.kind].moves)


def _uses(graph: Graph) -> Mapping[str, set[str]]:
    """Node name -> what its output is read as: "index", "quantity", both or, if nobody reads it, neither."""
    uses: dict[str, set[str]] = {node.name: set() for node in graph.nodes}
    for node in reversed(graph.nodes):
        use = {"index"} if node.kind in _INDEX_READERS else uses[node.name] if moves(node) else {"quantity"}
        carried = node.config["work"].reads if node.kind == "Carried" else ()
        for source, dtype in itertools.zip_longest(node.inputs, carried):
            uses[source] |= {"index"} if dtype not in (None, "float32") else use
    return uses


def _typed_input(node: Node, uses: set[str]) -> Node:
    dtype = str(node.config["dtype"])
    if "quantity" in uses:
        dtype = "float32"
    elif "index" in uses and dtype not in ("float32", *_INDICES):
        dtype = "int32"
    if dtype != node.config["dtype"]:
        node = node.replace(config={**node.config, "dtype": dtype})
    if dtype == "float32" and ("index" in uses or not uses):
        node = node.replace(config={**node.config, "grid": False})
    return node


def _check_indices(graph: Graph, node: Node, dtypes: Mapping[str, str], uses: Mapping[str, set[str]]) -> None:
    if not dtypes[node.inputs[0]]:
        raise UserError(
            f"layer {node.origin[0]!r} ({node.kind}): its indices are computed by {graph[node.inputs[0]].origin[0]!r};"
            " expected an input of the model: give the indices as an input of their own"
        )
    if node.kind == "Cast" and "quantity" in uses[node.name]:
        raise UserError(
            f"layer {node.origin[0]!r} ({node.kind}): it cuts off fractions of what is computed with later;"
            " only the indices of an Embedding can be cast to integers"
        )
