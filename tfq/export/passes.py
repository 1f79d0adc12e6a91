"""The passes over a freshly converted file, in the order of `finish`.

    requantize     the Requantize nodes become QUANTIZE operations
    impose         every weight integer, bias integer, scale, zero-point and axis from the specification
    free_clamps    a clamp at 6 far above everything its output can hold is written as a clamp at 0 alone
    set_edges      inputs and outputs of the element types the specification names
    name_tensors   Keras layer names on every tensor, and a signature with the user's input/output names
    share_buffers  constants of equal bytes are stored once; what nobody reads is dropped

Why `impose` is needed: TFLiteConverter takes no per-channel fake-quant on Dense and Conv2DTranspose,
derives scales that differ from the given ones in the last bit, and rounds biases by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import WEIGHTED, Binding, bind, missing
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.operators import OPERATORS
from tfq.numerics import reference
from tfq.simulate.weights import weight_integers
from tfq.spec import QuantizationSpec, TensorQuantization

_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32, "int4": schema.TensorType.INT4}
# node kind -> (permutation Keras -> TFLite layout, channel axis there)
_LAYOUT = {
    "Conv2D": ((3, 0, 1, 2), 0),
    "Conv2DTranspose": ((2, 0, 1, 3), 0),
    "Dense": ((1, 0), 0),
    "Embedding": ((0, 1), None),
    "PReLU": ((0, 1, 2), None),
}
# operation -> (number, version) that may read INT4 weights; the runtime that brought the last of them
_INT4_OPERATORS = {
    "CONV_2D": (schema.BuiltinOperator.CONV_2D, 7),
    "DEPTHWISE_CONV_2D": (schema.BuiltinOperator.DEPTHWISE_CONV_2D, 7),
    "FULLY_CONNECTED": (schema.BuiltinOperator.FULLY_CONNECTED, 10),
}
_INT4_RUNTIME = b"2.11.0"
_NARROWEST_RANGE = 1e-6  # of the converter; the runtimes know no such limit


def finish(content: bytes, graph: Graph, spec: QuantizationSpec | None) -> bytes:
    """The converted file with all passes applied; `spec` None (a float file) skips `impose`.

    Raises:
      RuntimeError: the converter's result cannot carry the specification (named).
    """
    model = flatbuffer.parse(content)
    binding = bind(model, graph)
    if spec is not None:
        binding = requantize(model, graph, binding)
        impose(model, graph, spec, binding)
        free_clamps(model)
        binding = set_edges(model, spec, binding)
    name_tensors(model, graph, binding)
    share_buffers(model)
    return flatbuffer.serialize(model)


def requantize(model: Any, graph: Graph, binding: Binding) -> Binding:
    """Make the operations that stand for Requantize nodes what they mean: a change of grid; the binding after it.

    Behind a float tensor the QUANTIZE that follows does that already: there the operation is dropped.
    """
    subgraph = model.subgraphs[0]
    dropped = set()
    for index, name in binding.operator_node.items():
        if graph[name].kind != "Requantize":
            continue
        operator = subgraph.operators[index]
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if flatbuffer.type_name(subgraph.tensors[target]) == "float32":
            for reader in subgraph.operators:
                reader.inputs = np.asarray([source if i == target else i for i in reader.inputs], np.int32)
            dropped.add(index)
        else:
            operator.opcodeIndex = _operator_code(model, schema.BuiltinOperator.QUANTIZE, version=2)
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    return _without_operators(model, binding, dropped)


def _without_operators(model: Any, binding: Binding, dropped: Collection[int]) -> Binding:
    """Remove operations by their indices; the binding after it."""
    subgraph = model.subgraphs[0]
    kept = [i for i in range(len(subgraph.operators)) if i not in dropped]
    subgraph.operators = [subgraph.operators[i] for i in kept]
    operator_node = {new: binding.operator_node[old] for new, old in enumerate(kept) if old in binding.operator_node}
    return dataclasses.replace(binding, operator_node=operator_node)


def _operator_code(model: Any, builtin: int, *, version: int) -> int:
    """Index of an operator code, added where the file lacks it."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin and code.version >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def tflite_layout(kind: str, values: np.ndarray) -> np.ndarray:
    """A kernel from the Keras layout to TFLite's."""
    if kind == "DepthwiseConv2D":  # [h, w, channels, multiplier] -> [1, h, w, channels * multiplier]
        return values.reshape(1, *values.shape[:2], -1)
    return np.transpose(values, _LAYOUT[kind][0])


def tflite_scales(kind: str, grid: TensorQuantization, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """(scales float32, channel axis) of a kernel in TFLite's layout; `shape` is the Keras one."""
    scales = np.asarray(grid.scale, np.float32)
    if kind == "DepthwiseConv2D":
        return (scales if grid.axis is None else np.repeat(scales, shape[-1])), 3
    axis = _LAYOUT[kind][1]
    return scales, 0 if axis is None else axis


def impose(model: Any, graph: Graph, spec: QuantizationSpec, binding: Binding) -> None:
    """Write the specification's integers and grids into the file.

    An activation grid is not overwritten blindly: the converter's own must be the one that it makes of
    the specification's, to 1e-5 of the scale and in the zero-point, or the model was not converted as wrapped.
    """
    lacking = missing(binding, graph)
    if lacking:
        raise RuntimeError(f"the converter's file cannot carry the specification: {'; '.join(lacking)}")
    tensors = model.subgraphs[0].tensors
    for name, index in binding.node_tensor.items():
        if name in spec.activations:
            _impose_activation(tensors[index], name, spec.activations[name])
    for index, name in binding.operator_node.items():
        node = graph[name]
        operator = OPERATORS[node.kind]
        if not operator.kernel or spec[name].precision != "int8":
            continue
        _impose_weights(model, model.subgraphs[0].operators[index], node, spec, binding)


def _impose_activation(tensor: Any, name: str, grid: TensorQuantization) -> None:
    scales, zero_points = flatbuffer.scales(tensor), flatbuffer.zero_points(tensor)
    scale, zero_point = _converted(grid)
    agrees = (
        flatbuffer.type_name(tensor) == grid.storage
        and scales.size == 1
        and abs(scales[0] / scale - 1) < 1e-5
        and zero_points[0] == zero_point
    )
    if not agrees:
        raise RuntimeError(
            f"tensor {name!r} came out of the converter as {flatbuffer.type_name(tensor)} with scale {scales[:1]},"
            f" zero-point {zero_points[:1]}; specified: {grid.storage}, {grid.scale[0]}, {grid.zero_point}"
        )
    _set_grid(tensor, grid, np.asarray(grid.scale, np.float32), 0)


def _converted(grid: TensorQuantization) -> tuple[float, int]:
    """Scale and zero-point that the converter makes of an activation grid: it widens ranges of less than 1e-6.

    Source: ExpandVerySmallRange in TensorFlow's quantization_utils.cc.
    """
    qmin, qmax = reference.integer_range(8, symmetric=False)
    low, high = (float(grid.scale[0]) * (code - grid.zero_point) for code in (qmin, qmax))
    if high - low > _NARROWEST_RANGE:
        return grid.scale[0], grid.zero_point
    low, high = min(low, -_NARROWEST_RANGE / 2), max(high, _NARROWEST_RANGE / 2)
    scale = (high - low) / (qmax - qmin)
    return scale, int(reference.round_half_away(qmin - low / scale))


def free_clamps(model: Any) -> None:
    """Make RELU6 a RELU where the runtime could not hold 6 / scale in an int32: the grid ends long before 6."""
    subgraph = model.subgraphs[0]
    clamp = schema.ActivationFunctionType
    for operator in subgraph.operators:
        scales = flatbuffer.scales(subgraph.tensors[int(operator.outputs[0])])
        if scales.size != 1 or 6.0 / float(scales[0]) < 2.0**31:
            continue
        if getattr(operator.builtinOptions, "fusedActivationFunction", None) == clamp.RELU6:
            operator.builtinOptions.fusedActivationFunction = clamp.RELU
        elif flatbuffer.operator_name(model, operator) == "RELU6":
            operator.opcodeIndex = _operator_code(model, schema.BuiltinOperator.RELU, version=2)


def _impose_weights(model: Any, operator: Any, node: Node, spec: QuantizationSpec, binding: Binding) -> None:
    layer = spec[node.name]
    codes = weight_integers(node, layer)
    name = OPERATORS[node.kind].kernel
    scales, axis = tflite_scales(node.kind, layer.weights[name], node.weights[name].shape)
    kernel = tflite_layout(node.kind, codes[name])
    _replace_constant(model, operator, binding.kernel[node.name], kernel, layer.weights[name], scales, axis)
    if layer.weights[name].storage == "int4":
        _require_int4(model, operator)
    if node.name not in binding.bias:
        # the converter leaves out a bias of zeros
        if "bias" in layer.weights and codes["bias"].any():
            raise RuntimeError(f"the converter dropped the bias of {node.kind} {node.name!r}")
        return
    if "bias" in layer.weights:
        grid, values = layer.weights["bias"], codes["bias"]
        bias_scales = np.asarray(grid.scale, np.float32)
    else:  # the converter adds a zero bias where the layer has none
        size = model.subgraphs[0].tensors[binding.bias[node.name]].shape[0]
        values = np.zeros(size, np.int32)
        bias_scales = np.float32(spec.activations[node.inputs[0]].scale[0]) * scales
        grid = TensorQuantization(tuple(map(float, bias_scales)), 0, 32, "int32", True, 0)
    _replace_constant(model, operator, binding.bias[node.name], values, grid, bias_scales, 0)


def _require_int4(model: Any, operator: Any) -> None:
    """Mark `operator`, and the file, as needing a runtime that reads INT4 weights."""
    builtin, version = _INT4_OPERATORS[flatbuffer.operator_name(model, operator)]
    operator.opcodeIndex = _operator_code(model, builtin, version=version)
    for entry in model.metadata or ():
        if flatbuffer.text(entry.name) == "min_runtime_version":
            buffer = model.buffers[entry.buffer]
            stated = max(np.asarray(buffer.data, np.uint8).tobytes().rstrip(b"\0"), _INT4_RUNTIME, key=_version)
            buffer.data = np.frombuffer(stated.ljust(len(buffer.data), b"\0"), np.uint8)


def _version(text: bytes) -> list[int]:
    return [int(part) for part in text.split(b".")]


def _replace_constant(
    model: Any, operator: Any, index: int, codes: np.ndarray, grid: TensorQuantization, scales: np.ndarray, axis: int
) -> None:
    """Give `operator` its own constant: the converter may have let several operations share the old one."""
    old = model.subgraphs[0].tensors[index]
    new = schema.TensorT()
    new.shape = np.asarray(codes.shape, np.int32)
    new.hasRank, new.name = True, old.name
    new.type = _TYPES[grid.storage]
    new.buffer = len(model.buffers)
    new.quantization = schema.QuantizationParametersT()
    _set_grid(new, grid, scales, axis)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(pack(codes, grid.storage), np.uint8)
    model.buffers.append(buffer)
    place = len(model.subgraphs[0].tensors)
    operator.inputs = np.asarray([place if i == index else i for i in operator.inputs], np.int32)
    model.subgraphs[0].tensors.append(new)


def pack(codes: np.ndarray, storage: str) -> bytes:
    """Integers as the file holds them: little-endian; int4 two a byte, the first in the low nibble."""
    if storage != "int4":
        return codes.astype({"int8": "<i1", "int32": "<i4"}[storage]).tobytes()
    nibbles = codes.reshape(-1).astype(np.uint8) & 0x0F
    nibbles = np.pad(nibbles, (0, nibbles.size % 2))
    return (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()


def _set_grid(tensor: Any, grid: TensorQuantization, scales: np.ndarray, axis: int) -> None:
    quantization = tensor.quantization
    quantization.scale = np.asarray(scales, np.float32)
    quantization.zeroPoint = np.full(len(scales), grid.zero_point, np.int64)
    quantization.quantizedDimension = axis if len(scales) > 1 else 0
    quantization.min = quantization.max = None


def set_edges(model: Any, spec: QuantizationSpec, binding: Binding) -> Binding:
    """Turn the float32 inputs and outputs that have a grid into what the specification names; the binding after it.

    TFLiteConverter's own `inference_output_type` removes the DEQUANTIZE of an output even where a float
    operation inside the model reads it too, and leaves that operation without an input.
    """
    subgraph = model.subgraphs[0]
    inputs, outputs = dict(binding.inputs), dict(binding.outputs)
    dropped: set[int] = set()
    for name in [n for n in inputs if n in spec.activations]:
        readers = [i for i, operator in enumerate(subgraph.operators) if inputs[name] in operator.inputs]
        if spec.input_type == "int8":
            dropped.update(readers)
            inputs[name] = int(subgraph.operators[readers[0]].outputs[0])
        elif spec.input_type == "uint8":
            _set_uint8(subgraph.tensors[inputs[name]], spec.activations[name])
    for name in [n for n in outputs if n in spec.activations and spec.output_type != "float32"]:
        writer = next(operator for operator in subgraph.operators if outputs[name] in operator.outputs)
        quantized = int(writer.inputs[0])
        outputs[name] = quantized
        if spec.output_type == "uint8":
            outputs[name] = _append_uint8_copy(model, quantized, spec.activations[name])
    read = {int(i) for operator in subgraph.operators for i in operator.inputs} | set(outputs.values())
    dropped |= {i for i, operator in enumerate(subgraph.operators) if not read & {int(t) for t in operator.outputs}}
    return dataclasses.replace(_without_operators(model, binding, dropped), inputs=inputs, outputs=outputs)


def _set_uint8(tensor: Any, grid: TensorQuantization) -> None:
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    _set_grid(tensor, grid, np.asarray(grid.scale, np.float32), 0)
    tensor.quantization.zeroPoint = np.asarray([grid.zero_point + 128], np.int64)


def _append_uint8_copy(model: Any, source: int, grid: TensorQuantization) -> int:
    """Add a QUANTIZE operation to uint8 at the end; the index of its output."""
    subgraph = model.subgraphs[0]
    tensor, operator = schema.TensorT(), schema.OperatorT()
    tensor.shape, tensor.shapeSignature = subgraph.tensors[source].shape, subgraph.tensors[source].shapeSignature
    tensor.hasRank = True
    _set_uint8(tensor, grid)
    operator.opcodeIndex = _operator_code(model, schema.BuiltinOperator.QUANTIZE, version=2)
    operator.inputs = np.asarray([source], np.int32)
    operator.outputs = np.asarray([len(subgraph.tensors)], np.int32)
    subgraph.tensors.append(tensor)
    subgraph.operators.append(operator)
    return len(subgraph.tensors) - 1


def name_tensors(model: Any, graph: Graph, binding: Binding) -> None:
    """Call every tensor by its Keras layer and give the file a signature with the user's own names.

    The output of layer "conv" is called "conv", its weights "conv/kernel" and "conv/bias"; further
    tensors of the layer "conv/1", "conv/2", ...
    """
    subgraph = model.subgraphs[0]
    labels: dict[int, str] = {}
    labels.update({index: name for name, index in binding.inputs.items()})
    for name, index in binding.node_tensor.items():
        labels.setdefault(index, name if name not in labels.values() else f"{name}/quantized")
    for index, name in binding.operator_node.items():
        operator, node = subgraph.operators[index], graph[name]
        for role, position in weight_positions(model, operator, node).items():
            labels.setdefault(int(operator.inputs[position]), f"{name}/{role}")
    owner = ""
    counts: dict[str, int] = {}
    for name, index in binding.outputs.items():
        if index not in labels:  # a copy at the file's edge in another type
            counts[name] = counts.get(name, 0) + 1
            labels[index] = f"{name}/{counts[name]}"
    for index, operator in enumerate(subgraph.operators):
        owner = binding.operator_node.get(index, owner or graph.inputs[0])
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor >= 0 and int(tensor) not in labels:
                counts[owner] = counts.get(owner, 0) + 1
                labels[int(tensor)] = f"{owner}/{counts[owner]}"
    for index, label in labels.items():
        subgraph.tensors[index].name = label
    subgraph.name = "main"
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    subgraph.inputs = np.asarray([binding.inputs[name] for name in graph.inputs], np.int32)
    subgraph.outputs = np.asarray([binding.outputs[name] for name in graph.outputs], np.int32)
    signature.inputs = _tensor_map(zip(graph.inputs, subgraph.inputs, strict=True))
    signature.outputs = _tensor_map(zip(graph.output_names, subgraph.outputs, strict=True))
    model.signatureDefs = [signature]
    model.description = "made by tfq"


def weight_positions(model: Any, operator: Any, node: Node) -> dict[str, int]:
    """Weight or bias of `node` -> the position among the operation's inputs where it is read."""
    kind = flatbuffer.operator_name(model, operator)
    if node.kind == INPUT or kind not in WEIGHTED or not OPERATORS[node.kind].kernel:
        return {}
    at_kernel, at_bias = WEIGHTED[kind]
    roles = {OPERATORS[node.kind].kernel: at_kernel}
    if at_bias is not None and len(operator.inputs) > at_bias and operator.inputs[at_bias] >= 0:
        roles["bias"] = at_bias
    return roles


def _tensor_map(pairs: Iterable[tuple[str, int]]) -> list[Any]:
    entries = []
    for name, index in pairs:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        entries.append(entry)
    return entries


def share_buffers(model: Any) -> None:
    """Store equal constants once and drop what nobody reads: tensors, their buffers, operator codes."""
    _drop_unused_operator_codes(model)
    for subgraph in model.subgraphs:
        _drop_unused_tensors(model, subgraph)
    empty = schema.BufferT()
    kept, position = [empty], {}
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    for holder in (*tensors, *(model.metadata or ())):
        data = model.buffers[holder.buffer].data
        if data is None or len(data) == 0:
            holder.buffer = 0
            continue
        key = hashlib.sha256(np.asarray(data, np.uint8).tobytes()).hexdigest()
        if key not in position:
            position[key] = len(kept)
            kept.append(model.buffers[holder.buffer])
        holder.buffer = position[key]
    model.buffers = kept


def _drop_unused_operator_codes(model: Any) -> None:
    operators = [operator for subgraph in model.subgraphs for operator in subgraph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def _drop_unused_tensors(model: Any, subgraph: Any) -> None:
    used = {int(i) for operator in subgraph.operators for i in (*operator.inputs, *operator.outputs) if i >= 0}
    used |= {int(i) for i in (*subgraph.inputs, *subgraph.outputs)}
    place = {old: new for new, old in enumerate(sorted(used))}
    place[-1] = -1
    subgraph.tensors = [subgraph.tensors[i] for i in sorted(used)]
    for holder in (*subgraph.operators, subgraph):
        holder.inputs = np.asarray([place[int(i)] for i in holder.inputs], np.int32)
        holder.outputs = np.asarray([place[int(i)] for i in holder.outputs], np.int32)
    for signature in model.signatureDefs or ():
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[int(entry.tensorIndex)]
