"""The runner's tensor container (FORMAT.md): writes inputs, reads outputs, neither held in memory as a whole."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tfq.errors import UserError

_MAGIC, _VERSION, _ALIGNMENT = b"TFQT", 1, 64
_MOST_TENSORS, _MOST_NAME, _MOST_RANK = 1024, 4096, 8
_TYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float16",
    11: "float64",
    12: "complex128",
    13: "uint64",
    16: "uint32",
    17: "uint16",
}
_CODES = {name: code for code, name in _TYPES.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One tensor to be written.

    Attributes:
      name: of the model's input.
      dtype: of its elements.
      shape: of one sample as the model takes it, batch axis included.
      blocks: makes the samples anew, in order, as arrays [k, *shape].
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[np.ndarray]]


def write_tensors(path: Path, samples: int, columns: Sequence[Column]) -> None:
    """Writes a container of `samples` samples.

    Raises:
      UserError: an element type that the runner does not know.
      ValueError: blocks that do not add up to `samples` of the column's type and shape.
    """
    for column in columns:
        if column.dtype.name not in _CODES:
            raise UserError(f"input {column.name!r} has {column.dtype} elements, which tfq-bench cannot feed")
    # The header's length does not depend on the offsets in it.
    offsets, end = [], len(_header(samples, columns, [0] * len(columns)))
    for column in columns:
        offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = offsets[-1] + samples * math.prod(column.shape) * column.dtype.itemsize
    with path.open("wb") as file:
        file.write(_header(samples, columns, offsets))
        for column, offset in zip(columns, offsets, strict=True):
            file.write(bytes(offset - file.tell()))
            written = 0
            for block in column.blocks():
                if block.dtype != column.dtype or block.shape[1:] != column.shape:
                    raise ValueError(f"{column.name}: got {block.dtype} {block.shape}, expected {column}")
                written += len(block)
                file.write(np.ascontiguousarray(block.astype(block.dtype.newbyteorder("<"), copy=False)).data)
            if written != samples:
                raise ValueError(f"{column.name}: got {written} samples, expected {samples}")


def read_tensors(path: Path) -> list[tuple[str, np.ndarray]]:
    """The (name, [samples, *shape of one]) of a container in its order; read-only views of the file.

    Raises UserError for a file that cannot be read, or is not a whole container.
    """
    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise UserError(f"{path}: no tensors can be read ({error}); expected a tensor container") from error
    try:
        return _parsed(content)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cut off or no tensor container ({error}, {content.size} bytes)") from error


def _header(samples: int, columns: Sequence[Column], offsets: Sequence[int]) -> bytes:
    parts = [_MAGIC, struct.pack("<IQI", _VERSION, samples, len(columns))]
    for column, offset in zip(columns, offsets, strict=True):
        name, rank = column.name.encode(), len(column.shape)
        parts += [struct.pack("<I", len(name)), name]
        parts.append(struct.pack(f"<iI{rank}iQ", _CODES[column.dtype.name], rank, *column.shape, offset))
    return b"".join(parts)


def _parsed(content: np.ndarray) -> list[tuple[str, np.ndarray]]:
    at = 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        size = struct.calcsize(form)
        values = struct.unpack(form, content[at : at + size].tobytes())
        at += size
        return values

    if content[:4].tobytes() != _MAGIC:
        raise ValueError("it does not begin with TFQT")
    at = 4
    version, samples, count = take("<IQI")
    if version != _VERSION or not samples or not 1 <= count <= _MOST_TENSORS:
        raise ValueError(f"version {version}, {samples} samples, {count} tensors")
    described = []
    for _ in range(count):
        (length,) = take("<I")
        if length > _MOST_NAME:
            raise ValueError(f"a name of {length} bytes")
        name = content[at : at + length].tobytes().decode()
        at += length
        code, rank = take("<iI")
        if code not in _TYPES or rank > _MOST_RANK:
            raise ValueError(f"element type {code}, rank {rank}")
        dimensions = take(f"<{rank}i")
        (offset,) = take("<Q")
        if min(dimensions, default=0) < 0:
            raise ValueError(f"dimensions {dimensions}")
        described.append((name, np.dtype(_TYPES[code]).newbyteorder("<"), (samples, *dimensions), offset))
    tensors, end = [], at
    for name, dtype, shape, offset in described:
        size = math.prod(shape) * dtype.itemsize
        if offset != -(-end // _ALIGNMENT) * _ALIGNMENT or offset + size > content.size:
            raise ValueError(f"tensor {name!r} of {size} bytes at {offset}")
        end = offset + size
        tensors.append((name, content[offset:end].view(dtype).reshape(shape)))
    if end != content.size:
        raise ValueError(f"{content.size - end} bytes after the last tensor")
    return tensors
