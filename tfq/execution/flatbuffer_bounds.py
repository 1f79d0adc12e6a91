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
# Slot of a table -> its field: bytes of a scalar; _TEXT; [bytes] a vector of scalars; [name] one of tables; name of a
# table; {type: name} a union, whose type is the byte in the slot before. Tables of options hold scalars otherwise.
_TABLES: dict[str, dict[int, Any]] = {
    "Model": {
        0: 4,
        1: ["OperatorCode"],
        2: ["SubGraph"],
        3: _TEXT,
        4: ["Buffer"],
        5: [4],
        6: ["Metadata"],
        7: ["SignatureDef"],
        8: ["ExternalBufferGroup"],
        9: ["ExternalBuffer"],
    },
    "OperatorCode": {0: 1, 1: _TEXT, 2: 4, 3: 4},
    "SubGraph": {0: ["Tensor"], 1: [4], 2: [4], 3: ["Operator"], 4: _TEXT, 5: 4},
    "Tensor": {
        0: [4],
        1: 1,
        2: 4,
        3: _TEXT,
        4: "Quantization",
        5: 1,
        6: "Sparsity",
        7: [4],
        8: 1,
        9: ["VariantSubType"],
        10: 4,
    },
    "Quantization": {
        0: [4],
        1: [4],
        2: [4],
        3: [8],
        4: 1,
        5: {1: "Vector8", 2: "Blockwise", 3: "Blockwise"},
        6: 4,
    },
    "Blockwise": {0: 4, 1: 4, 2: 4, 3: [4]},
    "Sparsity": {0: [4], 1: [4], 2: ["Dimension"]},
    "Dimension": {0: 1, 1: 4, 2: 1, 3: {1: "Vector32", 2: "Vector16", 3: "Vector8"}, 4: 1}
    | {5: {1: "Vector32", 2: "Vector16", 3: "Vector8"}},
    "Vector32": {0: [4]},
    "Vector16": {0: [2]},
    "Vector8": {0: [1]},
    "VariantSubType": {0: [4], 1: 1, 2: 1},
    "Operator": {
        0: 4,
        1: [4],
        2: [4],
        3: 1,
        4: {3: "ConcatEmbeddings", 8: "FullyConnected", 17: "Vector32", 30: "Vector32", 115: "Vector32"},
        5: [1],
        6: 1,
        7: [1],
        8: [4],
        9: 8,
        10: 8,
        11: 1,
        12: {21: "Composite"},
        13: 4,
    },
    "ConcatEmbeddings": {0: 4, 1: [4], 2: [4]},
    "FullyConnected": {5: [1]},
    "Composite": {0: _TEXT, 1: 4, 2: [1], 3: 1, 4: 4},
    "Options": {},
    "Buffer": {0: [1], 1: 8, 2: 8},
    "Metadata": {0: _TEXT, 1: 4},
    "SignatureDef": {0: ["TensorMap"], 1: ["TensorMap"], 2: _TEXT, 4: 4},
    "TensorMap": {0: _TEXT, 1: 4},
    "ExternalBufferGroup": {0: _TEXT},
    "ExternalBuffer": {0: 4, 1: 4, 2: 8, 3: 8, 4: _TEXT},
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
