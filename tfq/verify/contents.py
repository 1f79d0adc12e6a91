"""A finished .tflite as the runtime reads it: the source of all that `verify` says about a file.

Nothing here is shared with `tfq.export`: the file's tables come through the runtime's own schema, the elements of
constants through its interpreter (which unpacks INT4 and INT2).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError, VerificationError
from tfq.execution.interpreter import TensorInfo, TfliteModel, parse_tflite

_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_NUMBER = re.compile(r"Node number (\d+)")  # in the runtime's messages: a position among the operations
_DTYPES = {"int4": "int8", "int2": "int8", "unknown": "void"}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of the file: its kind ("CONV_2D") and the tensors it reads and writes; -1: none."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """The file's only subgraph.

    Attributes:
      content: the file.
      table: it, parsed.
      operations: in the order in which they run.
      inputs, outputs: tensor by the name that the signature gives it, in the signature's order.
    """

    content: bytes
    table: Any
    operations: tuple[Operation, ...]
    inputs: dict[str, int]
    outputs: dict[str, int]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(_name(self.table, index) for index in range(len(self.table.subgraphs[0].tensors)))

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Tensor by name."""
        return {name: index for index, name in enumerate(self.names)}

    @functools.cached_property
    def writer(self) -> dict[int, int]:
        """Tensor -> position of the operation that writes it."""
        return {t: i for i, operation in enumerate(self.operations) for t in operation.outputs}

    def info(self, index: int) -> TensorInfo:
        """Shape, element type (int8 of INT4) and grid."""
        tensor = self.table.subgraphs[0].tensors[index]
        shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
        kind, grid = self.type_of(index), tensor.quantization
        found = TensorInfo(self.names[index], index, shape, np.dtype(_DTYPES.get(kind, kind)))
        if grid is None or grid.scale is None:
            return found
        scale, zero_point = tuple(map(float, grid.scale)), tuple(map(int, grid.zeroPoint))
        return dataclasses.replace(found, scale=scale, zero_point=zero_point, axis=int(grid.quantizedDimension))

    def type_of(self, index: int) -> str:
        """ "int8", "int4" and the like, as the tensor is stored."""
        return _TYPES.get(self.table.subgraphs[0].tensors[index].type, "unknown")

    def is_constant(self, index: int) -> bool:
        data = self.table.buffers[self.table.subgraphs[0].tensors[index].buffer].data
        return data is not None and len(data) > 0

    def is_state(self, index: int) -> bool:
        """Whether an operation keeps it from one run to the next; it begins with zeros."""
        return bool(self.table.subgraphs[0].tensors[index].isVariable)

    @functools.cached_property
    def runtime(self) -> TfliteModel:
        """Its interpreter, with the builtin kernels.

        Raises:
          VerificationError: it refuses the file.
        """
        try:
            return TfliteModel(self.content, delegate=False)
        except UserError as error:
            number = _NUMBER.search(str(error))
            layer = self.names[self.operations[int(number[1])].outputs[0]].split("/")[0] if number else ""
            where = f"in layer {layer!r}: " if layer else ""
            raise _refused(f"{where}{error}") from error

    def elements(self, index: int) -> np.ndarray:
        """Elements of a constant, as the runtime reads them."""
        return self.runtime.constant(index)


def read(content: bytes) -> Contents:
    """The file.

    Raises:
      VerificationError: it is broken.
    """
    try:
        table = parse_tflite(content, source="the .tflite")
    except UserError as error:
        raise _refused(str(error)) from error
    operations = tuple(
        Operation(_kind(table, o), tuple(map(int, o.inputs)), tuple(map(int, o.outputs)))
        for o in table.subgraphs[0].operators
    )
    signature = table.signatureDefs[0]
    inputs, outputs = (
        {entry.name.decode(): int(entry.tensorIndex) for entry in entries}
        for entries in (signature.inputs, signature.outputs)
    )
    return Contents(content, table, operations, inputs, outputs)


def _refused(why: str) -> VerificationError:
    return VerificationError(f"{why}; this is a defect of tfq: please report it with the model")


def _name(table: Any, index: int) -> str:
    return table.subgraphs[0].tensors[index].name.decode()


def _kind(table: Any, operator: Any) -> str:
    code = table.operatorCodes[operator.opcodeIndex]
    return _KINDS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")


def cut(
    contents: Contents, operations: list[int], sources: list[int], target: int, *, delegate: bool = False
) -> TfliteModel:
    """A model of these operations alone, each with its own tables and constants, as the runtime runs it.

    Args:
      operations: positions, in the order in which they run.
      sources: tensors that become the inputs; called "0", "1", ...
      target: the tensor that becomes the output.
      delegate: with XNNPACK.

    Raises:
      UserError: the runtime refuses it.
    """
    whole = contents.table.subgraphs[0]
    kept = [contents.operations[i] for i in operations]
    used = sorted(
        {t for o in kept for t in (*o.inputs, *o.outputs) if t >= 0}
        | {int(t) for i in operations for t in _intermediates(whole.operators[i])}
        | {target, *sources}
    )
    place = {-1: -1} | {old: new for new, old in enumerate(used)}
    model, part, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    model.version, model.subgraphs, model.signatureDefs = contents.table.version, [part], [signature]
    codes = sorted({whole.operators[i].opcodeIndex for i in operations})
    model.operatorCodes = [contents.table.operatorCodes[i] for i in codes]
    model.buffers = [schema.BufferT()]
    part.tensors, part.operators = [], []
    for index in used:
        tensor = _copy(whole.tensors[index])
        if contents.is_constant(index):
            model.buffers.append(contents.table.buffers[tensor.buffer])
        tensor.buffer = len(model.buffers) - 1 if contents.is_constant(index) else 0
        part.tensors.append(tensor)
    for index in operations:
        operator, found = _copy(whole.operators[index]), contents.operations[index]
        operator.opcodeIndex = codes.index(operator.opcodeIndex)
        operator.inputs = np.asarray([place[t] for t in found.inputs], np.int32)
        operator.outputs = np.asarray([place[t] for t in found.outputs], np.int32)
        if len(_intermediates(operator)):
            operator.intermediates = np.asarray([place[int(t)] for t in operator.intermediates], np.int32)
        part.operators.append(operator)
    part.inputs = np.asarray([place[t] for t in sources], np.int32)
    part.outputs = np.asarray([place[target]], np.int32)
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [_entry(str(i), place[t]) for i, t in enumerate(sources)]
    signature.outputs = [_entry("output", place[target])]
    if len(contents.table.subgraphs) > 1:  # the bodies of loops: with all that they may refer to
        model.subgraphs += contents.table.subgraphs[1:]
        model.operatorCodes, model.buffers = contents.table.operatorCodes, contents.table.buffers
        for operator, index in zip(part.operators, operations, strict=True):
            operator.opcodeIndex = whole.operators[index].opcodeIndex
        for tensor, index in zip(part.tensors, used, strict=True):
            tensor.buffer = whole.tensors[index].buffer
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return TfliteModel(bytes(builder.Output()), delegate=delegate)


def _intermediates(operator: Any) -> Any:
    """Tensors that a recurrent operation works in."""
    return () if operator.intermediates is None else operator.intermediates


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _copy(table: Any) -> Any:
    """A shallow copy of one table."""
    made = type(table)()
    vars(made).update(vars(table))
    return made
