"""How many bits each layer's weights and each tensor get, where that is one number for the whole model.

As in the literature ("W4A4"), only what a weighted layer (convolution, dense) reads lies on the few-bit grid;
sums, pooling, activations and the model's outputs keep 8 bits. A tensor has one grid for all its readers. So
a weighted layer reads a copy made by a Requantize node, unless it and its like are the only readers of a
tensor that shares its grid with no other. The first and the last weighted layers can be kept at 8 bits.

Activations of fewer than 8 bits can be simulated only: TFLite has no kernels for them.
Source of the convention: Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets",
2021; Nagel et al., "A White Paper on Neural Network Quantization", 2021, 2.3.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.operators import OPERATORS
from tfq.models.rewrite import made_by, rewrite

STORED_BITS = 8


@dataclasses.dataclass(frozen=True)
class Widths:
    """Grid bits.

    Attributes:
      weights: of every weighted layer's kernel, by node name.
      activations: by group of tensors (`tfq.models.grids`); a group that is absent has 8 bits.
    """

    weights: Mapping[str, int]
    activations: Mapping[str, int]


def bits_of(widths: int | Mapping[str, int], name: str) -> int:
    """One number for all, or by name with 8 where the name is absent."""
    return widths if isinstance(widths, int) else widths.get(name, STORED_BITS)


def storage_of(storages: str | Mapping[str, str], name: str) -> str:
    """One storage for all, or by name with "int8" where the name is absent."""
    return storages if isinstance(storages, str) else storages.get(name, "int8")


def assign_widths(
    graph: Graph, *, weight_bits: int, activation_bits: int = 8, first_last_bits: int = 0
) -> tuple[Graph, Widths]:
    """The graph in which every few-bit tensor has a grid of its own, and the bits of its layers and tensors.

    Args:
      graph: the prepared graph; returned as it is where activations have 8 bits.
      weight_bits, activation_bits: of the weighted layers' kernels and of what they read.
      first_last_bits: both of these for the first and last weighted layers (`first_and_last`); 0: as all others.
    """
    layers = [n.name for n in graph.nodes if is_weighted(n)]
    apart = first_and_last(graph) if first_last_bits else set()
    weights = {name: first_last_bits if name in apart else weight_bits for name in layers}
    reads = {name: first_last_bits if name in apart else activation_bits for name in layers}
    narrow = [name for name in layers if reads[name] < STORED_BITS]
    separated = separate_inputs(graph, narrow)
    return separated, Widths(weights, {separated[name].inputs[0]: reads[name] for name in narrow})


def is_weighted(node: Node) -> bool:
    """Whether the node multiplies its input by a kernel: a convolution or a dense layer."""
    return node.kind != INPUT and OPERATORS[node.kind].channel_axis is not None


def first_and_last(graph: Graph) -> set[str]:
    """The weighted layers that a model input reaches, or that reach a model output, through no other one.

    A depthwise convolution of size 1, such as an input's normalisation, does not count as another one. The
    calls of one Keras layer belong together: where one of them is first or last, all are.
    """
    readers = graph.consumers()
    sources = {node.name: node.inputs for node in graph.nodes}
    found = _reached(graph, graph.inputs, readers) | _reached(graph, graph.outputs, sources)
    groups = {graph[name].group for name in found}
    return {node.name for node in graph.nodes if is_weighted(node) and node.group in groups}


def separate_inputs(graph: Graph, layers: Collection[str], *, apart: bool = False) -> Graph:
    """What each of the weighted `layers` reads is a tensor that only they read and whose grid no other shares.

    Args:
      graph: the prepared graph.
      layers: names of weighted nodes.
      apart: each reads a tensor of its own, even where another of them reads the same source.
    """
    groups, readers, nodes = grid_groups(graph), graph.consumers(), graph.by_name
    sharing = collections.Counter(groups.values())
    copies: dict[tuple[str, str], Node] = {}

    def is_separate(name: str) -> bool:
        prescribed = nodes[name].kind != INPUT and OPERATORS[nodes[name].kind].output != "own"
        alone = not prescribed and sharing[groups[name]] == 1 and name not in graph.outputs
        return alone and all(reader in layers for reader in readers[name]) and (not apart or len(readers[name]) == 1)

    def rule(node: Node) -> list[Node] | None:
        if node.name not in layers or is_separate(node.inputs[0]):
            return None
        source, maker = node.inputs[0], node if apart else nodes[node.inputs[0]]
        known = copies.get((source, maker.name))
        copy = known or made_by(maker, "narrow", "Requantize", (source,))
        copies[source, maker.name] = copy
        read = node.replace(inputs=(copy.name,))
        return [read] if known else [copy, read]

    return rewrite(graph, rule)


def _reached(graph: Graph, starts: Sequence[str], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    """Weighted layers on the paths from `starts`, each path up to its first one."""
    found: set[str] = set()
    waiting, seen = list(starts), set(starts)
    while waiting:
        node = graph[waiting.pop()]
        if is_weighted(node):
            found.add(node.name)
            if not _is_affine(node):
                continue
        new = [name for name in neighbours[node.name] if name not in seen]
        waiting.extend(new)
        seen.update(new)
    return found


def _is_affine(node: Node) -> bool:
    return node.kind == "DepthwiseConv2D" and node.weights["depthwise_kernel"].shape[:2] == (1, 1)
