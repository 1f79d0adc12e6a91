"""Arrays in NumPy's file format, row by row from a stream that can only be read forward.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from tfq.errors import UserError
from tfq.execution.inputs import check_room

_BLOCK_BYTES = 4 << 20
_IN_MEMORY = 64 << 20
_MOST_HEADER = 10_000
_MOST_BYTES = 1 << 62
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}  # of the header, by version


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before the values: their shape, order and dtype, and its own `size` in bytes."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    size: int

    @property
    def bytes(self) -> int:
        """Of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], where: str) -> Header:
    """The header; leaves the stream at the first value. Raises UserError, which calls the array `where`."""
    try:
        version = np.lib.format.read_magic(stream)
    except (ValueError, EOFError) as error:
        raise UserError(f"{where} is no NumPy array, or damaged: {error}") from error
    if version not in _LENGTHS:
        raise UserError(f"{where} is a structured array (.npy version {version}); store a plain numeric array")
    form = _LENGTHS[version]
    start = stream.read(struct.calcsize(form))
    length = struct.unpack(form, start)[0] if len(start) == struct.calcsize(form) else 0
    if not 0 < length <= _MOST_HEADER:
        raise UserError(f"{where} has a header of {length} bytes; expected 1 to {_MOST_HEADER}: the file is damaged")
    text = start + stream.read(length)
    read = np.lib.format.read_array_header_1_0 if form == "<H" else np.lib.format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(io.BytesIO(text))
        sizes = tuple(int(length) for length in shape)
    except Exception as error:  # NumPy gives the header to Python's parser, which raises anything
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise UserError(f"{where} has a damaged header: {told}") from error
    if dtype.hasobject:
        raise UserError(f"{where} holds pickled Python objects, which are not read; store a plain numeric array")
    header = Header(sizes, bool(fortran_order), dtype, len(np.lib.format.MAGIC_PREFIX) + 2 + len(text))
    if any(length < 0 for length in sizes) or header.bytes >= _MOST_BYTES:
        raise UserError(f"{where} has the shape {sizes}, which no array can have; the file is damaged")
    return header


def rows(stream: IO[bytes], header: Header, stop: int, where: str) -> Iterator[np.ndarray]:
    """The first `stop` rows, a block of them in memory at a time.

    Raises:
      EOFError: the stream ends early.
      UserError: rows stored column by column need more room than there is for temporary files.
    """
    total = min(stop, header.shape[0]) if header.shape else 0
    if header.fortran_order and len(header.shape) > 1:
        yield from _rows_of_columns(stream, header, total, where)
        return
    shape = header.shape[1:]
    row_bytes = math.prod(shape) * header.dtype.itemsize
    block = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, total, block):
        count = min(block, total - start)
        yield from np.frombuffer(_read(stream, count * row_bytes, where), header.dtype).reshape((count, *shape))


def _rows_of_columns(stream: IO[bytes], header: Header, total: int, where: str) -> Iterator[np.ndarray]:
    """Rows of an array stored column by column: of every column only the first `total` values are kept.

    No row is contiguous, so all columns have to go by before the first row is there; where many rows are wanted they
    lie in a temporary file.
    """
    count, shape, size = header.shape[0], header.shape[1:], header.dtype.itemsize
    columns, kept = math.prod(shape), total * math.prod(shape) * size
    if kept > _IN_MEMORY:
        check_room(kept, where)
    with tempfile.TemporaryFile() if kept > _IN_MEMORY else io.BytesIO() as file:
        at_once = max(1, _BLOCK_BYTES // max(1, count * size))
        for start in range(0, columns, at_once):
            if count * size > _BLOCK_BYTES:
                for chunk in _chunks(stream, total * size, where):
                    file.write(chunk)
                for _ in _chunks(stream, (count - total) * size, where):
                    pass
            else:
                some = min(at_once, columns - start)
                block = np.frombuffer(_read(stream, some * count * size, where), np.uint8)
                file.write(np.ascontiguousarray(block.reshape(some, count * size)[:, : total * size]).data)
        file.flush()
        found: np.ndarray
        if isinstance(file, io.BytesIO):
            found = np.frombuffer(file.getvalue(), header.dtype).reshape((total, *shape), order="F")
        else:
            found = np.memmap(file, header.dtype, "r", shape=(total, *shape), order="F")
        for row in found:
            yield np.array(row)


def _read(stream: IO[bytes], size: int, where: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{where} ends early")
    return data


def _chunks(stream: IO[bytes], size: int, where: str) -> Iterator[bytes]:
    """The next `size` bytes."""
    for start in range(0, size, _BLOCK_BYTES):
        yield _read(stream, min(_BLOCK_BYTES, size - start), where)
