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
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from tfq.models.graph import INPUT, Graph, Node, once_per_structure
from tfq.models.grids import grid_groups
from tfq.models.rewrite import made_by, rewrite
from tfq.operations.table import OPERATORS, matrix_of, operator_of
from tfq.precision import FLOAT16, FLOAT32, MOST_PACKED_BITS, STORED_BITS, Precision, dynamic_range

_TWO_BITS = 2
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def precisions_of(graph: Graph, precisions: Precision | Mapping[str, Precision]) -> dict[str, Precision]:
    """By the names of weighted nodes, where one precision stands for all."""
    if isinstance(precisions, Mapping):
        return dict(precisions)
    return {node.name: precisions for node in graph.nodes if is_weighted(node)}


def activation_bits(graph: Graph, precisions: Mapping[str, Precision]) -> dict[str, int]:
    """The bits of the groups of tensors (`tfq.models.grids`) that have fewer than 8: what layers of few bits read."""
    groups = grid_groups(graph)
    few = {name: p.activation_bits for name, p in precisions.items() if p.activation_bits < STORED_BITS}
    return {groups[graph[name].inputs[0]]: bits for name, bits in few.items()}


def assign_precisions(
    graph: Graph, precision: Precision, *, first_last_bits: int = 0
) -> tuple[Graph, dict[str, Precision]]:
    """The graph in which every few-bit tensor has a grid of its own, and the precision of every weighted layer.

    Args:
      graph: the prepared graph; returned as it is where activations have 8 bits.
      precision: of all weighted layers.
      first_last_bits: bits of weights and activations for the first and last weighted layers (`first_and_last`); 0: as
        all others.
    """
    apart = first_and_last(graph) if first_last_bits else set()
    bits = first_last_bits or 8
    wide = dataclasses.replace(precision, weight_bits=bits, activation_bits=bits, clusters=0)
    found = {node.name: wide if node.name in apart else precision for node in graph.nodes if is_weighted(node)}
    return separate_inputs(graph, [name for name, p in found.items() if p.activation_bits < STORED_BITS]), found


@dataclasses.dataclass(frozen=True)
class Unit:
    """Nodes that share one precision; called like the first of them."""

    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.nodes[0]


@once_per_structure
def units(graph: Graph) -> tuple[Unit, ...]:
    """The units of all weighted layers, in topological order of their first nodes.

    Calls of one Keras layer share its weights and so its precision. Nothing else has to be tied: the inputs of a sum or
    a concatenation have grids of their own bits and scales whatever the weights before them lie on; where a float layer
    meets an integer one, the converter puts a Quantize or Dequantize between them, whose cost is counted
    (`tfq.allocation.program.Border`); and what a w4a4 layer reads is a copy where others read it too.
    """
    return _units(graph, is_weighted)


@once_per_structure
def dynamic_units(graph: Graph) -> tuple[Unit, ...]:
    """The units where all activations stay float: the layers and embeddings that TFLite runs with integer weights."""
    return _units(graph, can_be_dynamic)


def _units(graph: Graph, chosen: Callable[[Node], bool]) -> tuple[Unit, ...]:
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if chosen(node):
            found.setdefault(node.group, []).append(node.name)
    return tuple(Unit(tuple(names)) for names in found.values())


def is_weighted(node: Node) -> bool:
    """Whether the node multiplies its input by a kernel: a convolution or a dense layer."""
    return matrix_of(node.kind) is not None


def can_pack(node: Node) -> bool:
    """Whether TFLite runs the node with INT4 weights."""
    matrix = matrix_of(node.kind)
    return matrix is not None and matrix.packs


def can_be_dynamic(node: Node) -> bool:
    """Whether TFLite runs the node with integer weights and float activations, and fast."""
    return operator_of(node.kind).dynamic_axis is not None


def can_be_int16(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether runtimes run the node, whose output has this shape, on int16 activations, and well."""
    operator = operator_of(node.kind)
    return operator.int16 and (operator.most_int16 is None or shape[-1] <= operator.most_int16)


def storage_of(node: Node, precision: Precision) -> str:
    """The integer type that holds the node's weights: the narrowest of this precision that its kernel reads."""
    if precision.storage != "packed" or precision.weight_bits > MOST_PACKED_BITS:
        return "int8"
    if not precision.is_dynamic:
        return "int4" if can_pack(node) else "int8"
    axis = operator_of(node.kind).packed_axis
    if axis is None:
        return "int8"
    row = node.weights[OPERATORS[node.kind].kernel].shape[axis]  # ends on a whole byte
    if precision.weight_bits <= _TWO_BITS and row % 4 == 0:
        return "int2"
    return "int4" if row % 2 == 0 else "int8"


def largest_weight(node: Node) -> float:
    """Magnitude of the largest number among the node's weights and biases."""
    return max(float(np.abs(values).max()) for values in node.weights.values())


def dynamic_precisions(graph: Graph, bits: int, *, first_last_bits: int = 0) -> dict[str, Precision]:
    """Of every layer with weights, where all activations stay float.

    Args:
      graph: the prepared graph.
      bits: of weights among float activations; those of layers without such a kernel are float16, or float32 where
        that cannot hold them.
      first_last_bits: of the first and last weighted layers (`first_and_last`); 0: as all others.
    """
    apart = first_and_last(graph) if first_last_bits else set()

    def of(node: Node) -> Precision:
        if can_be_dynamic(node):
            return dynamic_range(first_last_bits if node.name in apart else bits)
        return FLOAT16 if largest_weight(node) <= LARGEST_FLOAT16 else FLOAT32

    return {node.name: of(node) for node in graph.nodes if is_weighted(node) or can_be_dynamic(node)}


def first_and_last(graph: Graph) -> set[str]:
    """The weighted layers that a model input reaches, or that reach a model output, through no other one.

    A depthwise convolution of size 1, such as an input's normalisation, does not count as another one. The
    calls of one Keras layer belong together: where one of them is first or last, all are.
    """
    readers = graph.readers
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
    groups, readers, nodes = grid_groups(graph), graph.readers, graph.by_name
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
    matrix = matrix_of(node.kind)
    if matrix is None or not matrix.is_depthwise:
        return False
    shape = node.weights[OPERATORS[node.kind].kernel].shape
    return all(shape[axis] == 1 for axis in matrix.window_axes)
