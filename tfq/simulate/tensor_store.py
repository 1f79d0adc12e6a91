"""Arrays by name, in memory up to a limit and in temporary files beyond it.

What is in a file is read and written part by part, so that it never counts as resident memory.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import threading
from typing import IO

import numpy as np


@dataclasses.dataclass
class _Stored:
    """One array, either in memory or in a file; `row` are the bytes of one sample."""

    shape: tuple[int, ...]
    dtype: np.dtype
    memory: np.ndarray | None
    file: IO[bytes] | None

    @property
    def row(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class TensorStore:
    """Arrays [n, ...] that together keep at most `memory_limit` bytes in memory.

    Threads may write side by side, each its own samples.
    """

    def __init__(self, memory_limit: int):
        self._free = memory_limit
        self._stored: dict[str, _Stored] = {}
        self._files = threading.Lock()

    def create(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
        """Room for an array; in a file where it does not fit into what is left of the memory."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size <= self._free:
            self._free -= size
            self._stored[name] = _Stored(shape, kind, np.empty(shape, kind), None)
        else:
            file = tempfile.TemporaryFile()  # noqa: SIM115
            self._stored[name] = _Stored(shape, kind, None, file)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored[name].shape

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Put the samples from `start` on."""
        found = self._stored[name]
        if found.memory is not None:
            found.memory[start : start + len(values)] = values
            return
        assert found.file is not None
        with self._files:
            found.file.seek(start * found.row)
            found.file.write(np.ascontiguousarray(values, found.dtype).data)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The samples start..stop, as far as there are any; read-only."""
        found = self._stored[name]
        stop = found.shape[0] if stop is None else min(stop, found.shape[0])
        start = min(start, stop)
        if found.memory is not None:
            part = found.memory[start:stop]
            part.flags.writeable = False
            return part
        assert found.file is not None
        with self._files:
            found.file.seek(start * found.row)
            content = found.file.read((stop - start) * found.row)
        return np.frombuffer(content, found.dtype).reshape(stop - start, *found.shape[1:])

    def release(self, name: str) -> None:
        found = self._stored.pop(name)
        if found.memory is not None:
            self._free += found.memory.nbytes
        else:
            assert found.file is not None
            found.file.close()

    def close(self) -> None:
        """Release everything."""
        for name in list(self._stored):
            self.release(name)
