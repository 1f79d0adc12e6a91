"""The samples of one run: arrays by input name, in memory or, over a limit, in a temporary file."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from tfq.errors import UserError
from tfq.execution.views import Arrays, View, release_pages

_BATCH = 32
_LABELS = ("labels",)


@dataclasses.dataclass(frozen=True)
class InputSignature:
    """One input of the model: `shape` without the batch axis, `dtype` by its NumPy name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Samples ready for the model.

    Attributes:
      arrays: input name -> [n, ...] in the model's dtype: read-only, a np.memmap when large; or views of some samples.
      indices: [n] int64, the position of each sample in its source; ascending.
      labels: [n] int64, or [n, ...] of whatever dtype the source has; None without labels.
      names: file of each sample, relative to its folder; empty for other sources.
      class_names: name of each integer label, where the source names its classes.
      warnings: what a person should know about this data, one line each.
    """

    arrays: Arrays
    indices: np.ndarray
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def of(cls, arrays: Arrays) -> Samples:
        """Arrays [n, ...] by input name as they stand."""
        return cls(arrays, np.arange(len(next(iter(arrays.values())))))

    def batches(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches by input name, copies in memory; the last one may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.at(slice(start, start + batch_size))

    def at(self, positions: slice | np.ndarray) -> dict[str, np.ndarray]:
        """The samples at these positions by input name, as copies in memory."""
        found = {name: np.array(values[positions]) for name, values in self.arrays.items()}
        for values in self.arrays.values():
            if isinstance(values, np.ndarray):  # a view does it by itself
                release_pages(values)
        return found

    def read(self) -> dict[str, np.ndarray]:
        """All of them by input name, as copies in memory: for a few."""
        return self.at(slice(None))

    def head(self, count: int) -> Samples:
        """The first `count` samples, or all where there are fewer; as `take`."""
        return self.take(range(min(count, len(self))))

    def spread(self, count: int) -> Samples:
        """`count` samples at even distances, or all where there are fewer; as `take`."""
        count = min(count, len(self))
        return self.take(np.arange(count) * len(self) // max(count, 1))

    def take(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """The samples at these positions of `self`, in the given order. No inputs are copied."""
        positions = np.asarray(indices, dtype=np.int64)
        return dataclasses.replace(
            self,
            arrays={name: View.of(values, positions) for name, values in self.arrays.items()},
            labels=None if self.labels is None else self.labels[positions],
            indices=self.indices[positions],
            names=tuple(self.names[p] for p in positions) if self.names else (),
        )

    def stored(self, memory_limit: int) -> Samples:
        """The same in arrays of their own: in memory, or in temporary files beyond so many bytes."""
        writer = SampleWriter(memory_limit)
        for slot in range(len(self)):
            label = None if self.labels is None else self.labels[slot]
            writer.write(slot, {name: values[slot] for name, values in self.arrays.items()}, label)
        arrays, labels = writer.finish()
        return dataclasses.replace(self, arrays=arrays, labels=labels)

    def extremes(self, name: str) -> tuple[float, float]:
        """The smallest and the largest number of an input."""
        ends = [(part[name].min(), part[name].max()) for part in self.batches(_BATCH)]
        return float(min(low for low, _ in ends)), float(max(high for _, high in ends))

    def representative_dataset(self) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
        """What `TFLiteConverter.representative_dataset` takes: a function that starts a new pass each time.

        Every item is one sample with a batch axis of 1, in the model's dtype: a dict by input name. (The
        list form depends on an order of inputs that the converter does not keep.)
        """
        return lambda: self.batches(1)


class SampleWriter:
    """Collects samples slot by slot; beyond `memory_limit` bytes in all, in temporary files.

    A slot may be written again, and the number of slots need not be known beforehand.
    """

    def __init__(self, memory_limit: int):
        self._memory_limit = memory_limit
        self._files: dict[Any, IO[bytes]] = {}
        self._rows: dict[Any, np.ndarray] = {}
        self._slots = 0
        self._spilled = False

    def write(self, slot: int, inputs: Mapping[str, np.ndarray], label: np.ndarray | None) -> None:
        """Put one sample; every call must bring the same inputs, shapes and dtypes."""
        rows: dict[Any, np.ndarray] = dict(inputs)
        if label is not None:
            rows[_LABELS] = np.asarray(label)
        if not self._files:
            self._rows = rows
            self._files = {key: io.BytesIO() for key in rows}
        self._slots = max(self._slots, slot + 1)
        try:
            for key, file in self._files.items():
                file.seek(slot * self._rows[key].nbytes)
                file.write(np.ascontiguousarray(rows[key]).data)
        except OSError as error:
            raise UserError(
                f"{self._slots:,} samples do not fit into {tempfile.gettempdir()}: {error.strerror}; make room, set"
                " TMPDIR to another folder, or give fewer samples"
            ) from error
        if not self._spilled and self._slots * sum(row.nbytes for row in self._rows.values()) > self._memory_limit:
            self._spilled = True
            self._files = {key: _to_disk(file) for key, file in self._files.items()}

    def finish(self) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """(arrays by input name, labels or None), read-only."""
        arrays = {key: self._array(key) for key in self._files}
        labels = arrays.pop(_LABELS, None)
        return arrays, labels

    def _array(self, key: Any) -> np.ndarray:
        row, file = self._rows[key], self._files[key]
        shape = (self._slots, *row.shape)
        if isinstance(file, io.BytesIO):
            array = np.frombuffer(file.getbuffer(), row.dtype).reshape(shape)
        else:
            file.flush()
            array = np.memmap(file, row.dtype, "r", shape=shape)
            file.close()
        array.flags.writeable = False
        return array


def _to_disk(memory: IO[bytes]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(memory.getbuffer())  # type: ignore[attr-defined]
    return file
