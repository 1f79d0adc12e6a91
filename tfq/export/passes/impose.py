"""Every weight integer, bias integer, scale, zero-point and axis from the quantised model into the file.

Why that is needed: TFLiteConverter takes no per-channel fake-quant on dense layers and transposed convolutions,
derives scales that differ from the given ones in the last bit, and rounds biases by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer
from tfq.export.binding import Binding, missing, weight_positions
from tfq.export.layout import pack, tflite_layout, tflite_scales
from tfq.grid import Grid, activation_grid
from tfq.models.graph import Node
from tfq.models.pooling import place_factors
from tfq.numerics import reference
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import weight_integers

# operation -> (number, version) that may read INT4 weights; the runtime that brought the last of them
_INT4_OPERATORS = {
    "CONV_2D": (schema.BuiltinOperator.CONV_2D, 7),
    "DEPTHWISE_CONV_2D": (schema.BuiltinOperator.DEPTHWISE_CONV_2D, 7),
    "FULLY_CONNECTED": (schema.BuiltinOperator.FULLY_CONNECTED, 10),
}
_INT4_RUNTIME = b"2.11.0"
_LOWEST = -128  # code of 0 where nothing is negative
_NARROWEST_RANGE = 1e-6  # of the converter; the runtimes know no such limit


def impose(file: Any, model: QuantizedModel, binding: Binding) -> None:
    """Write the model's integers and grids into the file.

    An activation grid is not overwritten blindly: the converter's own must be the one that it makes of
    the model's, to 1e-5 of the scale and in the zero-point, or the model was not converted as wrapped.
    """
    lacking = missing(file, binding, model)
    if lacking:
        raise RuntimeError(f"the converter's file cannot carry the specification: {'; '.join(lacking)}")
    tensors = file.subgraphs[0].tensors
    for name, index in binding.node_tensor.items():
        if name in model.grids:
            _impose_activation(tensors[index], name, model.grids[name])
    for index, name in binding.operator_node.items():
        node = model[name]
        if OPERATORS[node.kind].kernel and node.precision.is_int8:
            impose_weights(file, file.subgraphs[0].operators[index], node, model.grids.get(node.inputs[0]))
        if node.kind == "MultiplyPlaces" and name in model.grids:
            _impose_factors(file, file.subgraphs[0].operators[index], node)


def _impose_activation(tensor: Any, name: str, grid: Grid) -> None:
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
    flatbuffer.set_grid(tensor, grid.scale, grid.zero_point)


def _converted(grid: Grid) -> tuple[float, int]:
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


def impose_weights(file: Any, operator: Any, node: Node, read: Grid | None) -> None:
    """Give the operation the integers and grids of its node's weights. `read`: the grid of what it reads, if any."""
    grids, codes, position_of = node.weight_grids, weight_integers(node), weight_positions(file, operator, node)
    name = OPERATORS[node.kind].kernel
    scales, axis = tflite_scales(node.kind, grids[name], node.weights[name].shape)
    kernel = tflite_layout(node.kind, codes[name])
    replace_constant(file, operator, position_of[name], kernel, grids[name], scales, axis)
    if grids[name].storage == "int4":
        _require_int4(file, operator)
    if "bias" not in position_of:
        # the converter leaves out a bias of zeros
        if "bias" in grids and codes["bias"].any():
            raise RuntimeError(f"the converter dropped the bias of {node.kind} {node.name!r}")
        return
    if "bias" in grids:
        grid, values = grids["bias"], codes["bias"]
        bias_scales = np.asarray(grid.scale, np.float32)
    else:  # the converter adds a zero bias where the layer has none
        size = file.subgraphs[0].tensors[operator.inputs[position_of["bias"]]].shape[0]
        assert read is not None
        storage, bits = ("int64", 40) if node.precision.is_int16 else ("int32", 32)
        values = np.zeros(size, storage)
        bias_scales = np.float32(read.scale[0]) * scales
        grid = Grid(tuple(map(float, bias_scales)), 0, bits, storage, True, 0)
    replace_constant(file, operator, position_of["bias"], values, grid, bias_scales, 0)


def _impose_factors(file: Any, operator: Any, node: Node) -> None:
    """The factors of the places on the grid that holds them: the converter takes one from 0 to the largest."""
    tensors, grid = file.subgraphs[0].tensors, activation_grid(node.config["step"], _LOWEST)
    position = next(p for p, i in enumerate(operator.inputs) if flatbuffer.is_constant(file, tensors[i]))
    factors = place_factors(node.config)
    codes = np.rint(factors / grid.scale[0]).astype(np.int32) + grid.zero_point
    replace_constant(file, operator, position, codes, grid, np.asarray(grid.scale, np.float32), 0)


def _require_int4(file: Any, operator: Any) -> None:
    """Mark `operator`, and the file, as needing a runtime that reads INT4 weights."""
    builtin, version = _INT4_OPERATORS[flatbuffer.operator_name(file, operator)]
    operator.opcodeIndex = flatbuffer.operator_code(file, builtin, version=version)
    require_runtime(file, _INT4_RUNTIME)


def require_runtime(file: Any, runtime: bytes) -> None:
    """State in the file that it needs this version of TFLite, b"2.11.0", or a later one."""
    for entry in file.metadata or ():
        if flatbuffer.text(entry.name) == "min_runtime_version":
            buffer = file.buffers[entry.buffer]
            stated = max(np.asarray(buffer.data, np.uint8).tobytes().rstrip(b"\0"), runtime, key=_version)
            buffer.data = np.frombuffer(stated.ljust(len(buffer.data), b"\0"), np.uint8)


def _version(text: bytes) -> list[int]:
    return [int(part) for part in text.split(b".")]


def replace_constant(
    file: Any, operator: Any, position: int, codes: np.ndarray, grid: Grid, scales: np.ndarray, axis: int
) -> None:
    """Give `operator` its own constant: the converter may have let several operations share the old one."""
    old, tensors = int(operator.inputs[position]), file.subgraphs[0].tensors
    new = flatbuffer.add_tensor(file, codes.shape, grid.storage, pack(codes, grid.storage))
    tensors[new].name = tensors[old].name
    flatbuffer.set_grid(tensors[new], scales, grid.zero_point, axis)
    flatbuffer.replace_input(operator, old, new)
