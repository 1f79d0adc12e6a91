"""Which operation and which tensors of a converted file stand for which node.

The converter fuses, drops and inserts operations, and joins the names of what it fused:
"model/quant_tfq0003/relu/Relu;model/quant_tfq0003/BiasAdd;...". The first identifier in the name of
an operation's output is its node; of an operation that computes, the first of a node that computes, since a
reshape behind it may have become part of it. A data-movement node may vanish (a Flatten before a fully connected
operation); nothing else may.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tfq.export import flatbuffer
from tfq.export.convert import IDENTIFIER, identifiers
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.rewrite import unmoved
from tfq.operations.table import OPERATORS, operator_of
from tfq.quantized_model import QuantizedModel

_WEIGHTED = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "GATHER": (0,),
    "EMBEDDING_LOOKUP": (1,),
    "PRELU": (1,),
}
# Operations that "same" nodes (`tfq.operations.table`) become.
_MOVING_OPERATIONS = """
    RESHAPE TRANSPOSE CONCATENATION PACK PAD PADV2 SLICE STRIDED_SLICE SPLIT SPLIT_V MAX_POOL_2D AVERAGE_POOL_2D
    REDUCE_MAX RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR MAXIMUM MINIMUM TILE BROADCAST_TO EXPAND_DIMS SQUEEZE QUANTIZE
    REVERSE_V2
"""
_MOVES = frozenset(_MOVING_OPERATIONS.split())


@dataclasses.dataclass(frozen=True)
class Binding:
    """A converted file against its graph; all numbers are indices into the only subgraph.

    Attributes:
      operator_node: operator index -> node name. Operations at a border between number formats
        (QUANTIZE, DEQUANTIZE) that serve no node are absent.
      node_tensor: node name -> tensor index of its output, the quantised one where there are two.
        Absent where the node vanished.
      inputs, outputs: node name -> index of the tensor at the file's edge.
    """

    operator_node: Mapping[int, str]
    node_tensor: Mapping[str, int]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def bind(model: Any, graph: Graph) -> Binding:
    """Trace every operation of a freshly converted file to its node.

    Raises:
      RuntimeError: an operation belongs to no node.
    """
    named = names_in(graph)
    subgraph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    inputs = _edge(signature.inputs, graph.inputs, identifiers(graph))
    outputs = _edge(signature.outputs, graph.outputs, identifiers(graph))
    node_tensor = dict(inputs)
    result = {tensor: name for name, tensor in outputs.items()}
    for operator in subgraph.operators:  # the quantised tensor behind a float output
        if flatbuffer.operator_name(model, operator) == "DEQUANTIZE" and int(operator.outputs[0]) in result:
            result.setdefault(int(operator.inputs[0]), result[int(operator.outputs[0])])
    writer = {tensor: name for name, tensor in node_tensor.items()}
    operator_node: dict[int, str] = {}
    nameless = _nameless(model, graph, result)
    needed = set(outputs.values()).union(*(map(int, operator.inputs) for operator in subgraph.operators))
    for index, operator in enumerate(subgraph.operators):
        kind = flatbuffer.operator_name(model, operator)
        made = [int(tensor) for tensor in operator.outputs]  # of a sort, the places alone may be needed
        source, target = int(operator.inputs[0]), next((tensor for tensor in made if tensor in needed), made[0])
        if kind == "DEQUANTIZE":
            continue
        if kind == "QUANTIZE" and _is_border(subgraph, source, target):
            writer[target] = result.get(target, writer[source])
            node_tensor[writer[target]] = target
            continue
        label = flatbuffer.text(subgraph.tensors[target].name)
        found = named(label)
        if not found and index not in nameless and target not in result:
            raise RuntimeError(f"{kind} writes {label!r}, which belongs to no node")
        found = found or ([] if index in nameless else [result[target]])
        if kind in _WEIGHTED:  # it may have taken in the reshape behind it
            found = [source for name in found for source in unmoved(graph, name)]
        name = _owner(kind, found, graph) if found else nameless[index]
        if kind == "FULLY_CONNECTED":
            name = _by_kernel(
                named(flatbuffer.text(subgraph.tensors[int(operator.inputs[1])].name)),
                name,
                graph,
                operator_node.values(),
            )
        operator_node[index] = writer[target] = name
        node_tensor[name] = target
    return Binding(operator_node, node_tensor, inputs, outputs)


def names_in(graph: Graph) -> Callable[[str], list[str]]:
    """A function: the nodes whose identifiers stand in the name of a converted tensor."""
    names = {identifier: name for name, identifier in identifiers(graph).items()}
    return lambda label: [names[found] for found in IDENTIFIER.findall(label) if found in names]


def _nameless(model: Any, graph: Graph, result: Mapping[int, str]) -> dict[int, str]:
    """Operation index -> its node, of those of carried layers that the converter calls by names of its own.

    They lie between operations of their node; without a barrier behind it (`tfq.export.convert`), before those of
    another. `result`: tensors at the file's end -> their nodes, whatever the converter calls them.
    """
    named, subgraph = names_in(graph), model.subgraphs[0]
    owners: dict[int, str] = {}
    read_by: dict[int, str] = {}  # tensor -> a carried node that reads it
    found: dict[int, str] = {}
    for index, operator in reversed(list(enumerate(subgraph.operators))):
        names = [n for tensor in operator.outputs for n in named(flatbuffer.text(subgraph.tensors[tensor].name))]
        names = names or [result[int(tensor)] for tensor in operator.outputs if int(tensor) in result]
        name = names[0] if names else next((read_by[int(t)] for t in operator.outputs if int(t) in read_by), "")
        if name and not names:
            found[index] = name
        if name and graph[name].kind == "Carried":
            read_by |= dict.fromkeys(map(int, operator.inputs), name)
        owners[index] = name
    writer = {int(t): owners[i] for i, operator in enumerate(subgraph.operators) for t in operator.outputs}
    for index, operator in enumerate(subgraph.operators):
        sources = [writer[int(t)] for t in operator.inputs if writer.get(int(t))]
        near = [n for source in sources for n in (source, *graph.readers[source]) if graph[n].kind == "Carried"]
        near = near or [n for source in graph.inputs for n in graph.readers[source] if graph[n].kind == "Carried"]
        if not owners[index] and near:
            found[index] = near[0]
            writer |= dict.fromkeys(map(int, operator.outputs), near[0])
    return found


def _by_kernel(kernels: Sequence[str], name: str, graph: Graph, claimed: Collection[str]) -> str:
    """The node of a dense operation whose output bears `name`, and whose kernel those of `kernels`.

    A reshape that the next dense layer makes of its input may become part of the operation in front of it, which then
    bears the next one's name. The kernel bears its own; equal ones are stored once.
    """
    own = next((kernel for kernel in kernels if operator_of(graph[kernel].kind).kernel), name)
    return name if graph[own].group == graph[name].group or own in claimed else own


def _owner(kind: str, names: Sequence[str], graph: Graph) -> str:
    """The node that an operation of this kind stands for, of those named in its output."""
    if kind in _WEIGHTED:
        names = [n for n in names if graph[n].kind != INPUT and OPERATORS[graph[n].kind].kernel] or names
    elif kind not in _MOVES:
        names = [n for n in names if graph[n].kind != INPUT and OPERATORS[graph[n].kind].output != "same"] or names
    return names[0]


def _edge(entries: Any, nodes: Sequence[str], identifier: Mapping[str, str]) -> dict[str, int]:
    """Node name -> tensor index of the file's inputs or outputs, by the converter's signature.

    The order of inputs and outputs in the file is not the model's.
    """
    index = {flatbuffer.text(entry.name): int(entry.tensorIndex) for entry in entries}
    return {name: index[identifier[name]] for name in nodes}


def _is_border(subgraph: Any, source: int, target: int) -> bool:
    """Whether a QUANTIZE changes the number format, rather than being a Requantize node."""
    types = {flatbuffer.type_name(subgraph.tensors[i]) for i in (source, target)}
    return len(types) > 1


def missing(model: Any, binding: Binding, graph: QuantizedModel) -> list[str]:
    """What the file lacks: nodes that compute something but have no operation, or no weights there.

    Of several copies of a float tensor the converter keeps one.
    """
    operators = model.subgraphs[0].operators
    weighted = {name for i, name in binding.operator_node.items() if weight_positions(model, operators[i], graph[name])}
    lacking = []
    for node in graph.nodes:
        if node.kind == INPUT or (node.kind == "Requantize" and node.name not in graph.grids):
            continue
        operator = OPERATORS[node.kind]
        if node.name not in binding.node_tensor and operator.output != "same":
            lacking.append(f"{node.kind} {node.name!r} has no operation")
        elif operator.kernel and node.name not in weighted:
            lacking.append(f"{node.kind} {node.name!r} has no weights")
    return lacking


def without_operators(model: Any, binding: Binding, dropped: Collection[int]) -> Binding:
    """Remove operations by their indices; the binding after it."""
    subgraph = model.subgraphs[0]
    kept = [i for i in range(len(subgraph.operators)) if i not in dropped]
    subgraph.operators = [subgraph.operators[i] for i in kept]
    operator_node = {new: binding.operator_node[old] for new, old in enumerate(kept) if old in binding.operator_node}
    return dataclasses.replace(binding, operator_node=operator_node)


def stored_constant(model: Any, index: int) -> int:
    """The constant behind a tensor that an operation reads: float16 weights reach it through a DEQUANTIZE."""
    subgraph = model.subgraphs[0]
    for operator in subgraph.operators:
        if index in operator.outputs and flatbuffer.operator_name(model, operator) == "DEQUANTIZE":
            source = int(operator.inputs[0])
            return source if flatbuffer.is_constant(model, subgraph.tensors[source]) else index
    return index


def weight_positions(model: Any, operator: Any, node: Node) -> dict[str, int]:
    """Weight or bias of `node` -> the position among the operation's inputs where it is read."""
    kind = flatbuffer.operator_name(model, operator)
    if node.kind == INPUT or kind not in _WEIGHTED or not OPERATORS[node.kind].kernel:
        return {}
    roles = zip((OPERATORS[node.kind].kernel, "bias"), _WEIGHTED[kind], strict=False)
    return {role: at for role, at in roles if at < len(operator.inputs) and operator.inputs[at] >= 0}
