"""Whether everything that the flatbuffer of a .tflite refers to lies within its bytes, and no more than they hold.

The generated parser goes where offsets lead and makes an object of everything that a vector counts; so does the
interpreter, in native code. A table may be referred to twice, so a file of some kB can stand for millions of tables:
they are counted, too.
"""

from __future__ import annotations

import struct
from typing import Any

_MOST_TABLES = 1_000_000
_TEXT = "text"
# A table and its fields, slot by slot. A number: bytes of a scalar. [ ]: a vector of scalars or tables. { }: a union,
# type -> table, whose type is the byte in the slot before. -: nothing to follow. Other tables of options hold scalars.
_SCHEMA = """
Model 4 [OperatorCode] [SubGraph] text [Buffer] [4] [Metadata] [SignatureDef] [ExternalBufferGroup] [ExternalBuffer]
OperatorCode 1 text 4 4
SubGraph [Tensor] [4] [4] [Operator] text 4
Tensor [4] 1 4 text Quantization 1 Sparsity [4] 1 [VariantSubType] 4
Quantization [4] [4] [4] [8] 1 {1:Vector8,2:Blockwise,3:Blockwise} 4
Blockwise 4 4 4 [4]
Sparsity [4] [4] [Dimension]
Dimension 1 4 1 {1:Vector32,2:Vector16,3:Vector8} 1 {1:Vector32,2:Vector16,3:Vector8}
Vector32 [4]
Vector16 [2]
Vector8 [1]
VariantSubType [4] 1 1
Operator 4 [4] [4] 1 {3:ConcatEmbeddings,8:FullyConnected,17:Vector32,30:Vector32,115:Vector32} [1] 1 [1] [4] 8 8 1 \
 {21:Composite} 4
ConcatEmbeddings 4 [4] [4]
FullyConnected - - - - - [1]
Composite text 4 [1] 1 4
Options
Buffer [1] 8 8
Metadata text 4
SignatureDef [TensorMap] [TensorMap] text - 4
TensorMap text 4
ExternalBufferGroup text
ExternalBuffer 4 4 8 8 text
"""


def _parsed(field: str) -> Any:
    if field[0] == "[":
        return [_parsed(field[1:-1])]
    if field[0] == "{":
        return {int(kind): table for kind, table in (pair.split(":") for pair in field[1:-1].split(","))}
    return int(field) if field.isdecimal() else field


_TABLES = {
    table: {slot: _parsed(field) for slot, field in enumerate(fields) if field != "-"}
    for table, *fields in map(str.split, _SCHEMA.strip().splitlines())
}
_OFFSET = 4


def check_bounds(content: bytes) -> None:
    """Raises ValueError, in words, for anything that leads out of the bytes or repeats itself beyond measure."""
    try:
        _Walk(content).table("Model", _unsigned(content, 0))
    except struct.error as error:
        raise ValueError("an offset leads out of the file") from error


class _Walk:
    def __init__(self, content: bytes):
        self._content = content
        self._left = _MOST_TABLES

    def table(self, kind: str, position: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it stands for more than {_MOST_TABLES:,} tables")
        content = self._content
        rows = position - struct.unpack_from("<i", content, position)[0]
        if not 0 <= rows < len(content):
            raise ValueError("an offset leads out of the file")
        rows_bytes, own_bytes = struct.unpack_from("<HH", content, rows)
        if rows_bytes < 4 or own_bytes < 4:
            raise ValueError("a table has no header")
        self._within(rows, rows_bytes)
        self._within(position, own_bytes)
        for slot, field in _TABLES[kind].items():
            if place := self._place(rows, rows_bytes, slot):
                if place + (field if isinstance(field, int) else _OFFSET) > own_bytes:
                    raise ValueError("a field lies out of its table")
                if isinstance(field, dict):
                    before = self._place(rows, rows_bytes, slot - 1)
                    field = field.get(content[position + before] if before else 0, "Options")
                self._field(field, position + place)

    def _field(self, field: Any, position: int) -> None:
        if isinstance(field, int):
            return
        target = position + _unsigned(self._content, position)
        if isinstance(field, list):
            self._vector(field[0], target)
        elif field == _TEXT:
            self._within(target + _OFFSET, _unsigned(self._content, target))
        else:
            self.table(field, target)

    def _vector(self, element: int | str, position: int) -> None:
        count = _unsigned(self._content, position)
        first = position + _OFFSET
        self._within(first, count * (element if isinstance(element, int) else _OFFSET))
        if isinstance(element, str):
            for place in range(first, first + count * _OFFSET, _OFFSET):
                self.table(element, place + _unsigned(self._content, place))

    def _place(self, rows: int, rows_bytes: int, slot: int) -> int:
        """Where a field lies in its table; 0 for one that is not there."""
        row = 4 + 2 * slot
        return struct.unpack_from("<H", self._content, rows + row)[0] if row + 2 <= rows_bytes else 0

    def _within(self, position: int, size: int) -> None:
        if position + size > len(self._content):
            raise ValueError("a vector or table reaches beyond the end of the file")


def _unsigned(content: bytes, position: int) -> int:
    return struct.unpack_from("<I", content, position)[0]
