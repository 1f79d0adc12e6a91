"""Float .tflite files as input: read, checked, and refused by name where they are quantised.

Nothing here imports TensorFlow or starts the interpreter, so that a bad file is refused before either.
"""

from __future__ import annotations

import pathlib

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError
from tfq.execution.tflite import integers, parse_tflite, read_content

_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
DTYPES = {code: name.lower() for code, name in _TYPES.items()}
_OF_QUANTISED_FILES = ("QUANTIZE", "FAKE_QUANT")


def read_float_tflite(path: pathlib.Path) -> schema.ModelT:
    """The object tree of a float .tflite.

    Raises:
      UserError: it cannot be read, is damaged, is quantised already, or its inputs have no batch axis of one sample.
    """
    model = parse_tflite(read_content(path), source=str(path))
    _require_float(model, path)
    graph = model.subgraphs[0]
    for index in integers(graph.inputs):
        tensor = graph.tensors[index]
        shape = integers(tensor.shape)
        if shape[:1] != [1]:
            raise UserError(
                f"{path}: its input {tensor_name(tensor)!r} has the shape {shape}, and one sample at a time is taken:"
                " export it again with a batch axis of size 1 in front"
            )
    return model


def _require_float(model: schema.ModelT, path: pathlib.Path) -> None:
    """float16 and float32 pass; so do integers without a scale, which are indices and shapes."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            grid = tensor.quantization
            if grid is not None and (grid.details is not None or (grid.scale is not None and len(grid.scale))):
                raise UserError(
                    f"{path} is quantised already: its tensor {tensor_name(tensor)!r} is {_TYPES[tensor.type]} with"
                    " scales; give the float .tflite that it was made from"
                )
    for code in model.operatorCodes:
        name = operator_name(code)
        if name in _OF_QUANTISED_FILES:
            raise UserError(f"{path} is quantised already: it holds a {name}; give the float .tflite")


def packed(model: schema.ModelT) -> bytes:
    """The file of a parsed model."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def operator_name(code: schema.OperatorCodeT) -> str:
    """TFLite's name of an operator; a custom one is called as its maker called it."""
    if code.customCode:
        return code.customCode.decode()
    return _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def tensor_name(tensor: schema.TensorT) -> str:
    """As the file has it; of the names that a converter joins, the first."""
    return (tensor.name or b"").decode().split(";")[0]
