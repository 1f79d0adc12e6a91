"""Reading and writing .tflite files as objects, with the few look-ups that the passes share."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
_TYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT4: "int4",
}
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
    """ "int8" and the like; types tfq never writes come as "type <number>"."""
    return _TYPES.get(tensor.type, f"type {tensor.type}")


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


def set_grid(tensor: Any, scale: np.ndarray, zero_point: int, axis: int) -> None:
    """Give the tensor these scales, one or one per channel of `axis`, and this zero-point."""
    quantization = tensor.quantization
    quantization.scale = np.asarray(scale, np.float32)
    quantization.zeroPoint = np.full(len(scale), zero_point, np.int64)
    quantization.quantizedDimension = axis if len(scale) > 1 else 0
    quantization.min = quantization.max = None


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
