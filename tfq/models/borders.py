"""Which nodes compute in float or on int16 tensors, and which tensors have which grid, once some layers are chosen.

    a node is float        it is chosen, or has no int8 form (`tfq.operations.table`), or it weighs nothing and lies
                           between float tensors on all sides; in front of it one is enough where the first two kinds
                           read all others too: their float copies are there already
    a tensor has no grid   its node is float, and everything that reads it is float or a Requantize node; so is what
                           a file with float32 inputs takes, or with float32 outputs gives

Hence a run of float layers, with the sums, poolings and activations inside it, meets no grid between its ends. All
other tensors have one: what an int8 node reads is on a grid whoever made it, and a float node that reads the same
tensor reads what the grid has left of it. A border is a tensor with a grid and a float node on either side of it;
each costs one operation in the file, however many nodes read there.

The rest has grids of 8 bits, but around layers that are chosen to have activations of 16 bits:

    a node is 16-bit     it is chosen; or it weighs nothing, has such a kernel (`tfq.operations.table`), and reads
                         16-bit nodes and nothing but int16 tensors, or nothing but 16-bit nodes read it. A node with
                         the grid of what it reads lies between int16 tensors
    a tensor is int16    16-bit or float nodes make it, or it is an input as float32; and nothing but 16-bit and float
                         nodes and Requantize nodes read it

All others keep 8 bits. So activations and sums behind a 16-bit layer, and those in front that are for it alone, have
16 bits too. A 16-bit node reads an int16 copy of a tensor of 8 bits, which holds the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.widths import can_be_int16, is_weighted
from tfq.operations.table import operator_of

# The converter writes these with a sum of 1, and joins that with a constant's beside it where both are float.
_SUMS = ("expm1", "log1p")


@dataclasses.dataclass(frozen=True)
class Borders:
    """Where float meets integer.

    Attributes:
      nodes: that compute in float.
      tensors: float ones, without a grid.
      quantized: tensors with a grid that float nodes make: a QUANTIZE each.
      dequantized: tensors with a grid that float nodes read: a DEQUANTIZE each.
    """

    nodes: frozenset[str]
    tensors: frozenset[str]
    quantized: frozenset[str]
    dequantized: frozenset[str]


def find_borders(
    graph: Graph, chosen: Collection[str] = (), *, float_inputs: bool = False, float_outputs: bool = False
) -> Borders:
    """The borders when the weighted layers `chosen` are float.

    Args:
      graph: the prepared graph.
      chosen: names of weighted layers.
      float_inputs, float_outputs: the file takes, or gives, float32.
    """
    groups, readers = grid_groups(graph), graph.readers
    outputs = () if float_outputs else graph.outputs
    without_form = {n.name for n in graph.nodes if n.name not in groups}

    def may_follow(node: Node) -> bool:
        if node.kind == INPUT:
            return float_inputs
        if node.kind == "AddConstant":
            source = graph[node.inputs[0]]
            source = graph[source.inputs[0]] if source.kind == "Requantize" else source
            near = source, *(graph[reader] for reader in readers[node.name])
            return not any(other.config.get("function") in _SUMS for other in near)
        return not is_weighted(node) and node.kind != "Embedding"  # in float its table would grow fourfold

    decided = without_form | set(chosen)
    copied = {i for name in decided for i in graph[name].inputs}
    following = {n.name for n in graph.nodes if n.name not in decided and may_follow(n)}
    while True:  # starts from all that could be float: what is left is the largest set that holds together
        nodes = decided | following
        float_tensors = {
            name
            for name in nodes
            if name in without_form
            or (name not in outputs and all(r in nodes or graph[r].kind == "Requantize" for r in readers[name]))
        }
        kept = {name for name in following & float_tensors if _reads_float(graph[name], float_tensors, copied)}
        if kept == following:
            break
        following = kept
    computing = {name for name in nodes if graph[name].kind != INPUT}
    return Borders(
        frozenset(computing),
        frozenset(float_tensors),
        frozenset(computing - float_tensors),
        frozenset(i for name in computing for i in graph[name].inputs if i not in float_tensors),
    )


def _reads_float(node: Node, tensors: Collection[str], copied: Collection[str]) -> bool:
    """Whether a node in float costs no border in front of it."""
    read = set(node.inputs)
    return not read or (bool(read & set(tensors)) and read <= {*tensors, *copied})


@dataclasses.dataclass(frozen=True)
class Wide:
    """Where activations have 16 bits.

    Attributes:
      nodes: that compute with them.
      tensors: int16 ones.
    """

    nodes: frozenset[str]
    tensors: frozenset[str]


def find_wide(
    graph: Graph, chosen: Collection[str], borders: Borders, *, float_inputs: bool = False, float_outputs: bool = False
) -> Wide:
    """The nodes and tensors of 16 bits when the weighted layers `chosen` are.

    Args:
      graph, float_inputs, float_outputs: as in `find_borders`.
      borders: of its float layers.
    """
    readers, outputs = graph.readers, set() if float_outputs else set(graph.outputs)
    shapes = tensor_shapes(graph)
    makers = set(borders.quantized) | {name for name in graph.inputs if float_inputs and name not in borders.tensors}

    def tensors(nodes: Collection[str]) -> set[str]:
        def takes_it(reader: str) -> bool:
            return reader in nodes or reader in borders.nodes or graph[reader].kind == "Requantize"

        return {
            name
            for name in {*nodes, *makers} - outputs
            if all(map(takes_it, readers[name])) and (name in nodes or any(r in nodes for r in readers[name]))
        }

    def grown(nodes: set[str], follows: Callable[[Node, set[str], set[str]], bool]) -> set[str]:
        """With the largest set of nodes that may follow and do."""
        following = {
            n.name
            for n in graph.nodes
            if n.name not in {*borders.nodes, *nodes} and can_be_int16(n, shapes[n.name]) and not is_weighted(n)
        }
        while True:
            found = nodes | following
            wide = tensors(found)
            kept = {name for name in following if follows(graph[name], found, wide) and _shares(graph[name], wide)}
            if kept == following:
                return found
            following = kept

    nodes = set(chosen)
    if nodes:
        nodes = grown(nodes, lambda node, found, wide: wide.issuperset(node.inputs) and bool(found & {*node.inputs}))
        nodes = grown(
            nodes, lambda node, found, _: node.name not in outputs and found.issuperset(readers[node.name] or [""])
        )
    return Wide(frozenset(nodes), frozenset(tensors(nodes)))


def _shares(node: Node, wide: Collection[str]) -> bool:
    """Whether a 16-bit node has the grid that its kernel demands: its own, or that of what it reads."""
    return operator_of(node.kind).output != "same" or {node.name, *node.inputs}.issubset(wide)
