"""Reading and writing .tflite files as objects, with the few look-ups that the passes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
_TYPES = {name.lower(): code for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_TYPE_NAMES = {code: name for name, code in _TYPES.items()}
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data starts at a multiple of 16 bytes of the file.

    The schema demands it (force_align: 16) and a file that is mapped into memory needs it; the
    generated Python code packs buffers without.
    """

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  the generated code's name
        data = None
        if self.data is not None and len(self.data):
            raw = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), _ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class _SharedVectors(schema.QuantizationParametersT):
    """Quantisation parameters whose equal vectors are written once.

    Every channel of every kernel and bias has an int64 zero-point, and all of them are 0: without
    sharing they take more room than the biases themselves. A flatbuffer may refer to one vector
    from many tables.
    """

    def Pack(self, builder: _Builder) -> int:  # noqa: N802  the generated code's name
        scale = builder.shared(None if self.scale is None else np.asarray(self.scale, np.float32))
        zero_point = builder.shared(None if self.zeroPoint is None else np.asarray(self.zeroPoint, np.int64))
        schema.QuantizationParametersStart(builder)
        if scale is not None:
            schema.QuantizationParametersAddScale(builder, scale)
        if zero_point is not None:
            schema.QuantizationParametersAddZeroPoint(builder, zero_point)
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)


class _Builder(flatbuffers.Builder):
    """A builder that remembers the vectors it wrote."""

    def __init__(self) -> None:
        super().__init__(1024 * 1024)
        self._written: dict[tuple[str, bytes], int] = {}

    def shared(self, values: np.ndarray | None) -> int | None:
        """Offset of a vector of these values, written at the first call with them."""
        if values is None:
            return None
        key = (values.dtype.str, values.tobytes())
        if key not in self._written:
            self._written[key] = self.CreateNumpyVector(values)
        return self._written[key]


def parse(content: bytes) -> Any:
    """The file as a `schema.ModelT`."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def serialize(model: Any) -> bytes:
    """A `schema.ModelT` as the bytes of a file."""
    for buffer in model.buffers:
        buffer.__class__ = _AlignedBuffer
    for tensor in (t for subgraph in model.subgraphs for t in subgraph.tensors):
        if tensor.quantization is not None and tensor.quantization.details is None:
            tensor.quantization.__class__ = _SharedVectors
    builder = _Builder()
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """ "CONV_2D" and the like; a custom operation's own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return text(code.customCode)
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def type_name(tensor: Any) -> str:
    """ "int8" and the like; a type that the schema does not know comes as "type <number>"."""
    return _TYPE_NAMES.get(tensor.type, f"type {tensor.type}")


def text(value: bytes | str | None) -> str:
    """The object API gives names as bytes."""
    return value.decode() if isinstance(value, bytes) else (value or "")


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether the tensor's values are in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def scales(tensor: Any) -> np.ndarray:
    """float32 scales, empty for a tensor without quantisation."""
    found = tensor.quantization.scale if tensor.quantization is not None else None
    return np.zeros(0, np.float32) if found is None else np.asarray(found, np.float32)


def zero_points(tensor: Any) -> np.ndarray:
    """int64 zero-points, empty for a tensor without quantisation."""
    found = tensor.quantization.zeroPoint if tensor.quantization is not None else None
    return np.zeros(0, np.int64) if found is None else np.asarray(found, np.int64)


def set_grid(tensor: Any, scale: Sequence[float] | np.ndarray, zero_point: int, axis: int = 0) -> None:
    """Give the tensor these scales, one or one per channel of `axis`, and this zero-point."""
    if tensor.quantization is None:
        tensor.quantization = schema.QuantizationParametersT()
    quantization = tensor.quantization
    quantization.scale = np.asarray(scale, np.float32)
    quantization.zeroPoint = np.full(len(scale), zero_point, np.int64)
    quantization.quantizedDimension = axis if len(scale) > 1 else 0
    quantization.min = quantization.max = None


def empty_model() -> Any:
    """A `schema.ModelT` of one subgraph without tensors and operations."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [schema.BufferT()], []
    return model


def add_buffer(model: Any, data: bytes) -> int:
    """Append a buffer; its index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def add_tensor(model: Any, shape: Sequence[int] | np.ndarray, dtype: str, data: bytes | None = None) -> int:
    """Append a tensor, a constant where there is data; its index."""
    tensor = schema.TensorT()
    tensor.shape, tensor.hasRank = np.asarray(shape, np.int32), True
    tensor.type, tensor.buffer = _TYPES[dtype], 0
    if data is not None:
        tensor.buffer = add_buffer(model, data)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def make_operator(model: Any, builtin: int, source: int, target: int, *, version: int) -> Any:
    """An operation without options that reads one tensor and writes one; it is not in the model yet."""
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, builtin, version=version)
    operator.inputs, operator.outputs = np.asarray([source], np.int32), np.asarray([target], np.int32)
    return operator


def replace_input(operator: Any, old: int, new: int) -> None:
    """Let the operation read tensor `new` where it reads `old`."""
    operator.inputs = np.asarray([new if i == old else i for i in operator.inputs], np.int32)


def operator_code(model: Any, builtin: int, *, version: int) -> int:
    """Index of an operator code, added where the file lacks it."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin and code.version >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
