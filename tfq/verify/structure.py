"""Every tensor of the finished .tflite against the specification.

The file is read afresh from its bytes; tensors are found by the names that `tfq.export.passes` gave
them ("conv", "conv/kernel", "conv/bias", "conv/3"). Checked are: inputs and outputs; dtype, scale and
zero-point of every activation; every integer, scale and axis of weights and biases, and that the layer's
own operation reads them; the bytes and types of a float layer's weights; that an operation works in float where
the specification says so, and nowhere else; that no quantised tensor has a grid nobody specified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfq.errors import VerificationError
from tfq.export import flatbuffer
from tfq.export.binding import stored_constant, weight_positions
from tfq.export.layout import pack, tflite_layout, tflite_scales
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.operators import OPERATORS
from tfq.simulate.weights import snap_node, weight_integers
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization

_BORDER = ("QUANTIZE", "DEQUANTIZE")


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was checked and found as specified.

    Attributes:
      activations, weights, biases: tensors checked; those of float layers are among the weights and biases.
      integers: weight and bias integers compared one by one.
      operators: operations of the file; `float_operators` of them work in float, as specified.
      absent: activation tensors that the converter made superfluous (data movement only).
    """

    activations: int
    weights: int
    biases: int
    integers: int
    operators: int
    float_operators: int
    absent: tuple[str, ...]


def verify_structure(content: bytes, graph: Graph, spec: QuantizationSpec) -> Verification:
    """Check the whole file.

    Raises:
      VerificationError: names the first tensors that differ, and their Keras layers.
    """
    model = flatbuffer.parse(content)
    subgraph = model.subgraphs[0]
    tensors = {flatbuffer.text(t.name): t for t in subgraph.tensors}
    faults = [*_edges(model, graph, spec)]
    if len(tensors) < len(subgraph.tensors):
        faults.append(f"{len(subgraph.tensors) - len(tensors)} tensors have the names of others")
    absent = []
    for name, grid in spec.activations.items():
        tensor = tensors.get(f"{name}/quantized") or tensors.get(name)
        if tensor is None:
            if graph[name].kind != INPUT and OPERATORS[graph[name].kind].output == "same":
                absent.append(name)
            else:
                faults.append(f"activation {name!r} ({_layers(graph, name)}) is not in the file")
        else:
            faults += _grid_faults(f"activation {name!r} ({_layers(graph, name)})", tensor, grid)
    weights = biases = integers = 0
    for layer in spec.layers:
        node = graph[layer.name]
        for name, codes in weight_integers(node, layer).items():
            grid = layer.weights[name]
            shape = codes.shape
            scales, axis = np.asarray(grid.scale, np.float32), 0
            if name != "bias":
                scales, axis = tflite_scales(node.kind, grid, shape)
                codes = tflite_layout(node.kind, codes)
            tensor = tensors.get(f"{layer.name}/{name}")
            if tensor is None and name == "bias" and not codes.any():
                continue  # the converter leaves out a bias of zeros
            what = f"{name} of {layer.name!r} ({_layers(graph, layer.name)})"
            faults += _constant_faults(model, what, tensor, codes, grid, scales, axis)
            weights, biases = weights + (name != "bias"), biases + (name == "bias")
            integers += codes.size
        for name, values in _float_weights(node, layer).items():
            tensor = tensors.get(f"{layer.name}/{name}")
            if tensor is None and name == "bias" and not values.any():
                continue
            what = f"{name} of {layer.name!r} ({_layers(graph, layer.name)})"
            faults += _float_faults(model, what, tensor, values, layer.precision)
            weights, biases = weights + (name != "bias"), biases + (name == "bias")
    float_operators = 0
    for operator in subgraph.operators:
        found, is_float = _operator_faults(model, operator, graph, spec)
        faults += found
        float_operators += is_float
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise VerificationError(
            f"the .tflite differs from the specification: {'; '.join(faults[:3])}{more};"
            " this is a defect of tfq: please report it with the model"
        )
    operators = len(subgraph.operators)
    return Verification(
        len(spec.activations) - len(absent), weights, biases, integers, operators, float_operators, tuple(absent)
    )


def _layers(graph: Graph, name: str) -> str:
    origin = graph[name].origin
    return "Keras layer " + origin[0] if len(origin) == 1 else "Keras layers " + ", ".join(origin)


def _edges(model: Any, graph: Graph, spec: QuantizationSpec) -> Iterator[str]:
    """Names, order and types of the file's inputs and outputs."""
    subgraph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    edges = (
        ("input", subgraph.inputs, signature.inputs, graph.inputs, graph.inputs, spec.input_type),
        ("output", subgraph.outputs, signature.outputs, graph.output_names, graph.outputs, spec.output_type),
    )
    for what, indices, entries, names, nodes, wanted in edges:
        index_of = {flatbuffer.text(e.name): int(e.tensorIndex) for e in entries}
        if [index_of.get(n) for n in names] != [int(i) for i in indices] or len(index_of) != len(names):
            name_of = {index: name for name, index in index_of.items()}
            yield f"the {what}s are {[name_of.get(int(i)) for i in indices]}, specified {list(names)}"
            continue
        for name, node, index in zip(names, nodes, indices, strict=True):
            tensor = subgraph.tensors[index]
            owner = flatbuffer.text(tensor.name).split("/")[0]
            if owner != node:
                yield f"{what} {name!r} is the tensor of {owner!r}, specified {node!r} ({_layers(graph, node)})"
            if node in spec.activations and flatbuffer.type_name(tensor) != wanted:
                yield f"{what} {name!r} is {flatbuffer.type_name(tensor)}, specified {wanted}"
            if wanted == "uint8" and node in spec.activations:
                grid, zero_points = spec.activations[node], flatbuffer.zero_points(tensor)
                if flatbuffer.scales(tensor)[0] != np.float32(grid.scale[0]) or zero_points[0] != grid.zero_point + 128:
                    yield f"{what} {name!r} has the zero-point {zero_points[0]}, specified {grid.zero_point + 128}"


def _grid_faults(what: str, tensor: Any, grid: TensorQuantization) -> Iterator[str]:
    scales, zero_points = flatbuffer.scales(tensor), flatbuffer.zero_points(tensor)
    kind = flatbuffer.type_name(tensor)
    if kind != grid.storage:
        yield f"{what} is {kind}, specified {grid.storage}"
    elif scales.tolist() != list(grid.scale) or zero_points.tolist() != [grid.zero_point]:
        yield (
            f"{what} has scale {scales.tolist()}, zero-point {zero_points.tolist()},"
            f" specified {list(grid.scale)}, {grid.zero_point}"
        )


def _constant_faults(
    model: Any, what: str, tensor: Any, codes: np.ndarray, grid: TensorQuantization, scales: np.ndarray, axis: int
) -> Iterator[str]:
    if tensor is None:
        yield f"{what} is not in the file"
        return
    if flatbuffer.type_name(tensor) != grid.storage or tuple(tensor.shape) != codes.shape:
        yield (
            f"{what} is {flatbuffer.type_name(tensor)}{[int(n) for n in tensor.shape]},"
            f" specified {grid.storage}{list(codes.shape)}"
        )
        return
    if not np.array_equal(flatbuffer.scales(tensor), scales):
        yield f"{what} has scales that differ from the specified ones"
    if not np.array_equal(flatbuffer.zero_points(tensor), np.full(len(scales), grid.zero_point)):
        yield f"{what} has zero-points other than {grid.zero_point}"
    if len(scales) > 1 and tensor.quantization.quantizedDimension != axis:
        yield f"{what} has its scales along axis {tensor.quantization.quantizedDimension}, specified {axis}"
    if np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes() != pack(codes, grid.storage):
        yield f"{what} holds integers that differ from the specified ones"


def _float_weights(node: Node, layer: LayerQuantization) -> dict[str, np.ndarray]:
    """The kernel and the bias of a float layer as the file holds them; nothing for other layers."""
    if layer.precision == "int8" or not OPERATORS[node.kind].kernel:
        return {}
    dtype = {"float32": "<f4", "float16": "<f2"}[layer.precision]
    values = snap_node(node, layer).weights
    return {n: (v if n == "bias" else tflite_layout(node.kind, v)).astype(dtype) for n, v in values.items()}


def _float_faults(model: Any, what: str, tensor: Any, values: np.ndarray, precision: str) -> Iterator[str]:
    if tensor is None:
        yield f"{what} is not in the file"
    elif flatbuffer.type_name(tensor) != precision or tuple(tensor.shape) != values.shape:
        found = f"{flatbuffer.type_name(tensor)}{[int(n) for n in tensor.shape]}"
        yield f"{what} is {found}, specified {precision}{list(values.shape)}"
    elif np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes() != values.tobytes():
        yield f"{what} holds values that differ from the specified ones"


def _operator_faults(model: Any, operator: Any, graph: Graph, spec: QuantizationSpec) -> tuple[list[str], bool]:
    """Faults of one operation, and whether it works in float."""
    tensors = model.subgraphs[0].tensors
    kind = flatbuffer.operator_name(model, operator)
    touched = [tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
    in_float = any(flatbuffer.type_name(t) in ("float32", "float16") for t in touched)
    in_integers = any(flatbuffer.type_name(t) in ("int8", "int4") for t in touched)
    if kind in _BORDER:
        return [], False
    name = flatbuffer.text(tensors[operator.outputs[0]].name).split("/")[0]
    layer = {x.name: x for x in spec.layers}.get(name)
    if layer is None:
        return [f"operation {kind} writes {name!r}, which the specification does not know"], in_float
    if in_float and layer.precision == "int8":
        return [f"{kind} of layer {name!r} ({_layers(graph, name)}) works in float, specified int8"], True
    if in_integers and layer.precision != "int8":
        return [f"{kind} of layer {name!r} ({_layers(graph, name)}) works in int8, specified {layer.precision}"], False
    faults = []
    for weight, position in weight_positions(model, operator, graph[name]).items():
        label = flatbuffer.text(tensors[stored_constant(model, int(operator.inputs[position]))].name)
        if label != f"{name}/{weight}":
            faults.append(f"{kind} of layer {name!r} ({_layers(graph, name)}) reads {label!r} as its {weight}")
    if in_float:
        return faults, True
    known = [spec.activations[t] for t in (*layer.inputs, layer.output) if t in spec.activations]
    named = {layer.output, f"{layer.output}/quantized", *layer.inputs, *(f"{i}/quantized" for i in layer.inputs)}
    named |= {f"{name}/{weight}" for weight in node_weights(graph, name)}
    for tensor in touched:
        label = flatbuffer.text(tensor.name)
        if label in named or not flatbuffer.scales(tensor).size or label.split("/")[0] != name:
            continue
        if not any(not list(_grid_faults("", tensor, grid)) for grid in known):
            faults.append(f"tensor {label!r} inside {kind} of layer {name!r} has a grid that nobody specified")
    return faults, False


def node_weights(graph: Graph, name: str) -> tuple[str, ...]:
    """Names of the constants a node may own; a bias may be there although the Keras layer has none."""
    kernel = OPERATORS[graph[name].kind].kernel
    return (kernel, "bias") if kernel else ()
