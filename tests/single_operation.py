"""Files of one operation, and what the installed runtime does with them."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfq.targets.target import FAST, PLAIN, REFUSED, Operand, Operation

_BITS = {"int2": 2, "int4": 4, "int8": 8, "int16": 16, "int32": 32, "int64": 64, "float32": 32}
_BIASES = {"int8": "int32", "int16": "int64"}  # by what is read
# Outputs whose grid TFLite prescribes.
_FIXED = {
    "LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0), "LOG_SOFTMAX": (16 / 256, 127),
    "L2_NORMALIZATION": (1 / 128, 0),
}  # fmt: skip
_IMAGE, _ROW = (1, 8, 8, 4), (1, 16)
_STRIDE = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
_POOL = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}


@dataclasses.dataclass(frozen=True)
class Shape:
    """How an operator is made: shapes of its inputs and output, which inputs are constant, its options.

    Attributes:
      inputs: the shape of an activation, the values of a constant index tensor, or "kernel", "alpha" or "bias".
      kernel: shape of the kernel, and its channel axis.
      options: name of the schema's option class without "Options", and its fields.
    """

    inputs: tuple[Any, ...]
    output: tuple[int, ...]
    options: tuple[str, Mapping[str, Any]] = ("", {})
    kernel: tuple[tuple[int, ...], int] = ((), 0)


def _index(*values: Any) -> np.ndarray:
    return np.array(values[0] if len(values) == 1 else values, np.int32)


_PADDINGS = _index([[0, 0], [1, 1], [1, 1], [0, 0]])
SHAPES: dict[str, Shape] = {
    "CONV_2D": Shape((_IMAGE, "kernel", "bias"), (1, 8, 8, 6), ("Conv2D", _STRIDE), ((6, 3, 3, 4), 0)),
    "DEPTHWISE_CONV_2D": Shape(
        (_IMAGE, "kernel", "bias"), _IMAGE, ("DepthwiseConv2D", {**_STRIDE, "depthMultiplier": 1}), ((1, 3, 3, 4), 3)
    ),
    "FULLY_CONNECTED": Shape(((1, 8), "kernel", "bias"), (1, 6), ("FullyConnected", {}), ((6, 8), 0)),
    "TRANSPOSE_CONV": Shape(
        (_index(1, 16, 16, 6), "kernel", _IMAGE),
        (1, 16, 16, 6),
        ("TransposeConv", {"strideW": 2, "strideH": 2}),
        ((6, 3, 3, 4), 0),
    ),
    "BATCH_MATMUL": Shape(((1, 4, 8), (1, 8, 6)), (1, 4, 6), ("BatchMatMul", {})),
    **{name: Shape((_IMAGE, _IMAGE), _IMAGE, (name.capitalize(), {"potScaleInt16": False})) for name in ("ADD", "SUB")},
    **{name: Shape((_IMAGE, _IMAGE), _IMAGE, (name.capitalize(), {})) for name in ("MUL", "DIV")},
    **{name: Shape((_IMAGE, _IMAGE), _IMAGE, ("MaximumMinimum", {})) for name in ("MAXIMUM", "MINIMUM")},
    "SQUARED_DIFFERENCE": Shape((_IMAGE, _IMAGE), _IMAGE),
    "CONCATENATION": Shape((_IMAGE, _IMAGE), (1, 8, 8, 8), ("Concatenation", {"axis": 3})),
    "LEAKY_RELU": Shape((_IMAGE,), _IMAGE, ("LeakyRelu", {"alpha": 0.1})),
    "PRELU": Shape((_IMAGE, "alpha"), _IMAGE, kernel=((1, 1, 4), 0)),
    **{name: Shape((_ROW,), _ROW) for name in ("LOG_SOFTMAX", "L2_NORMALIZATION")},
    "SOFTMAX": Shape((_ROW,), _ROW, ("Softmax", {"beta": 1.0})),
    **{name: Shape((_IMAGE,), (1, 4, 4, 4), ("Pool2D", _POOL)) for name in ("MAX_POOL_2D", "AVERAGE_POOL_2D")},
    **{
        name: Shape((_IMAGE, _index(1, 2)), (1, 4), ("Reducer", {"keepDims": False}))
        for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
    },
    "RESIZE_BILINEAR": Shape((_IMAGE, _index(16, 16)), (1, 16, 16, 4), ("ResizeBilinear", {"halfPixelCenters": True})),
    "RESIZE_NEAREST_NEIGHBOR": Shape((_IMAGE, _index(16, 16)), (1, 16, 16, 4), ("ResizeNearestNeighbor", {})),
    "PAD": Shape((_IMAGE, _PADDINGS), (1, 10, 10, 4), ("Pad", {})),
    "MIRROR_PAD": Shape((_IMAGE, _PADDINGS), (1, 10, 10, 4), ("MirrorPad", {"mode": 0})),
    "SLICE": Shape((_IMAGE, _index(0, 0, 0, 0), _index(1, 4, 4, 4)), (1, 4, 4, 4), ("Slice", {})),
    "STRIDED_SLICE": Shape(
        (_IMAGE, _index(0, 0, 0, 0), _index(1, 4, 4, 4), _index(1, 1, 1, 1)), (1, 4, 4, 4), ("StridedSlice", {})
    ),
    "TRANSPOSE": Shape((_IMAGE, _index(0, 2, 1, 3)), _IMAGE, ("Transpose", {})),
    "RESHAPE": Shape((_IMAGE, _index(1, 256)), (1, 256), ("Reshape", {"newShape": [1, 256]})),
    "EXPAND_DIMS": Shape((_IMAGE, np.int32(1)), (1, 1, 8, 8, 4), ("ExpandDims", {})),
    "SQUEEZE": Shape(((1, 1, 8, 4),), (1, 8, 4), ("Squeeze", {"squeezeDims": [1]})),
    "SPLIT": Shape((np.int32(3), _IMAGE), _IMAGE, ("Split", {"numSplits": 1})),
    "PACK": Shape((_IMAGE,), (1, 1, 8, 8, 4), ("Pack", {"valuesCount": 1, "axis": 1})),
    "SPACE_TO_DEPTH": Shape((_IMAGE,), (1, 4, 4, 16), ("SpaceToDepth", {"blockSize": 2})),
    "DEPTH_TO_SPACE": Shape((_IMAGE,), (1, 16, 16, 1), ("DepthToSpace", {"blockSize": 2})),
    "BROADCAST_TO": Shape(((1, 1, 1, 4), _index(1, 8, 8, 4)), _IMAGE),
    "TILE": Shape((_IMAGE, _index(1, 2, 1, 1)), (1, 16, 8, 4)),
    "GATHER": Shape((_IMAGE, _index(0, 1)), (1, 2, 8, 4), ("Gather", {"axis": 1})),
    "GELU": Shape((_IMAGE,), _IMAGE, ("Gelu", {})),
}
_PLAIN_SHAPE = Shape((_IMAGE,), _IMAGE)  # of an activation function


def operation(name: str, types: tuple[str, ...], scales: tuple[float, ...] = (), channels: int = 0) -> Operation:
    """An operation of these element types.

    Args:
      scales: of the operands that have one, in order, the output last; by default all alike. An output whose grid is
        prescribed keeps it.
      channels: input channels of FULLY_CONNECTED.
    """
    shape = SHAPES.get(name, _PLAIN_SHAPE)
    activation, weights = types[0], types[-1]
    drawn = iter(scales)

    def scale(dtype: str) -> tuple[float, ...]:
        return (next(drawn, 0.02),) if dtype.startswith("int") else ()

    inputs = []
    for made in shape.inputs:
        if isinstance(made, tuple):
            sizes = (1, channels) if channels else made
            inputs.append(Operand(activation, sizes, scale(activation)))
        elif isinstance(made, str) and made == "bias":
            sizes = (shape.kernel[0][shape.kernel[1]],)
            product = np.prod([o.scale[0] for o in inputs if o.scale], dtype=np.float32)
            factors = (float(product),) if activation in _BIASES else ()
            inputs.append(Operand(_BIASES.get(activation, "float32"), sizes, factors, constant=True))
        elif isinstance(made, str):
            sizes = (shape.kernel[0][0], channels) if channels else shape.kernel[0]
            inputs.append(Operand(weights, sizes, scale(weights), constant=True))
        else:
            inputs.append(Operand("int32", np.shape(made), constant=True))
    written = {"DEQUANTIZE": "float32", "QUANTIZE": types[1] if len(types) > 1 else "int8"}
    output, sizes = written.get(name, activation), shape.output
    if output in _BIASES and name in _FIXED:
        grid, zero_point = _FIXED[name] if output == "int8" else (2.0**-15, 0)
        return Operation(name, tuple(inputs), (Operand(output, sizes, (grid,), zero_point),), dict(shape.options[1]))
    return Operation(name, tuple(inputs), (Operand(output, sizes, scale(output)),), dict(shape.options[1]))


def file_of(made: Operation, version: int) -> bytes:
    """A .tflite of this operation alone."""
    shape = SHAPES.get(made.operator, _PLAIN_SHAPE)
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, made.operator)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    model.version, model.operatorCodes, model.buffers, graph.tensors = 3, [code], [schema.BufferT()], []
    for position, operand in enumerate((*made.inputs, *made.outputs)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{position}".encode(), list(operand.shape)
        tensor.type = getattr(schema.TensorType, operand.dtype.upper())
        given = shape.inputs[position] if position < len(shape.inputs) else ()
        if operand.constant:
            data = schema.BufferT()
            count = -(-int(np.prod(operand.shape)) * _BITS[operand.dtype] // 8)
            stored = given.tobytes() if isinstance(given, (np.ndarray, np.generic)) else b"\0" * count
            data.data = np.frombuffer(stored, np.uint8)
            model.buffers.append(data)
            tensor.buffer = len(model.buffers) - 1
        if operand.scale:
            axis = shape.kernel[1] if isinstance(given, str) and given == "kernel" else 0
            many = operand.shape[axis] if isinstance(given, str) and given != "alpha" else 1
            grid = tensor.quantization = schema.QuantizationParametersT()
            grid.scale, grid.quantizedDimension = np.full(many, operand.scale[0], np.float32), axis
            grid.zeroPoint = np.full(many, operand.zero_point, np.int64)
        graph.tensors.append(tensor)
    count = len(made.inputs)
    operator.inputs, operator.outputs = list(range(count)), [count]
    graph.inputs = [i for i, operand in enumerate(made.inputs) if not operand.constant]
    graph.outputs, graph.operators, model.subgraphs = [count], [operator], [graph]
    kind, fields = shape.options
    if kind:
        operator.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def asked(made: Operation) -> str:
    """What the installed runtime does with the operation: FAST, PLAIN or REFUSED; versions are tried upwards."""
    return in_a_child(lambda: _asked_here(made))


def in_a_child(ask: Callable[[], str]) -> str:
    """The answer of a child process; REFUSED where it ends without one, as some scales have a runtime do."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            os.write(write, ask().encode())
        finally:
            os._exit(0)
    os.close(write)
    answer = os.read(read, 100).decode()
    os.close(read)
    os.waitpid(child, 0)
    return answer or REFUSED


def _asked_here(made: Operation) -> str:
    for version in range(1, 15):
        try:
            interpreter = Interpreter(model_content=file_of(made, version), num_threads=1)
            interpreter.allocate_tensors()
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            if "Didn't find op" in str(error):  # of this version
                continue
            return REFUSED
        taken = any(found["op_name"] == "DELEGATE" for found in interpreter._get_ops_details())
        return FAST if taken else PLAIN
    return REFUSED
