"""Which nodes compute in float, and which tensors have a grid, once some layers are chosen to be float.

    a node is float        it is chosen, or has no int8 form (`tfq.operations.table`), or it weighs nothing and lies
                           between float tensors on all sides; in front of it one is enough where the first two kinds
                           read all others too: their float copies are there already
    a tensor has no grid   its node is float, and everything that reads it is float or a Requantize node; so is what
                           a file with float32 inputs takes, or with float32 outputs gives

Hence a run of float layers, with the sums, poolings and activations inside it, meets no grid between its ends. All
other tensors have one: what an int8 node reads is on a grid whoever made it, and a float node that reads the same
tensor reads what the grid has left of it. A border is a tensor with a grid and a float node on either side of it;
each costs one operation in the file, however many nodes read there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.widths import is_weighted

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
