"""Some samples of an array, read when they are asked for: what lies on disk stays there."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """The samples of `array` [n, ...] at `positions` [k], in that order. What is read is a copy in memory."""

    array: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray | View, positions: np.ndarray) -> View:
        """Of an array, or of some of its samples."""
        if isinstance(values, View):
            return cls(values.array, values.positions[positions])
        return cls(values, positions)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        return len(self) * (self.array.nbytes // max(1, len(self.array)))

    def __getitem__(self, index: Any) -> np.ndarray:
        """The samples at a position, a slice or an array of positions."""
        found = np.array(self.array[self.positions[index]])
        release_pages(self.array)
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type[View], tuple[np.ndarray, np.ndarray]]:
        """Another process gets these samples, and not the others of the array."""
        return View, (self[:], np.arange(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


Arrays: TypeAlias = Mapping[str, np.ndarray | View]
"""Arrays [n, ...] by input name."""


def release_pages(array: np.ndarray) -> None:
    """Hand the pages read from a temporary file back, or a whole pass would make all of them resident.

    Only of a file mapped by tfq: what a user has changed in a mapped array of his own would be lost.
    """
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
