"""The samples of one run: arrays by input name, in memory or, over a limit, in a temporary file."""

from __future__ import annotations

import dataclasses
import io
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from tfq.errors import UserError

MEMORY_LIMIT = 1 << 30
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
      arrays: input name -> [n, ...] in the model's dtype; a read-only np.memmap when large.
      indices: [n] int64, the position of each sample in its source; ascending.
      labels: [n] int64, or [n, ...] of whatever dtype the source has; None without labels.
      names: file of each sample, relative to its folder; empty for other sources.
      class_names: name of each integer label, where the source names its classes.
      warnings: what a person should know about this data, one line each.
      memory_limit: bytes above which the arrays made from these live in a temporary file too.
    """

    arrays: Mapping[str, np.ndarray]
    indices: np.ndarray
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    memory_limit: int = MEMORY_LIMIT

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, batch_size: int, positions: np.ndarray | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Batches by input name, of all samples or of those at these positions; the last one may be smaller.

        The arrays are copies in memory.
        """
        taken = np.arange(len(self)) if positions is None else positions
        for start in range(0, len(taken), batch_size):
            batch = {name: np.array(a[taken[start : start + batch_size]]) for name, a in self.arrays.items()}
            self._release_pages()
            yield batch

    def head(self, count: int) -> Samples:
        """The first `count` samples, or all where there are fewer."""
        return self.take(range(min(count, len(self))))

    def take(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """The samples at these positions of `self`, in the given order."""
        positions = np.asarray(indices, dtype=np.int64)
        writer = SampleWriter(self.memory_limit)
        for slot, position in enumerate(positions):
            label = None if self.labels is None else self.labels[position]
            writer.write(slot, {name: a[position] for name, a in self.arrays.items()}, label)
            self._release_pages()
        arrays, labels = writer.finish() if len(positions) else self._empty()
        return dataclasses.replace(
            self,
            arrays=arrays,
            labels=labels,
            indices=self.indices[positions],
            names=tuple(self.names[p] for p in positions) if self.names else (),
        )

    def _release_pages(self) -> None:
        """Hand the pages read from temporary files back, or a whole pass would make all of them resident."""
        for array in self.arrays.values():
            if isinstance(array.base, mmap.mmap):
                array.base.madvise(mmap.MADV_DONTNEED)

    def _empty(self) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        return {name: a[:0] for name, a in self.arrays.items()}, None if self.labels is None else self.labels[:0]

    def split(self, held_back: float, seed: int) -> tuple[Samples, Samples]:
        """(samples to fit on, samples held back), drawn at random and each in source order.

        Args:
          held_back: how many to hold back: a fraction as a float in (0, 1), rounded, or a count as
            an int. Both parts get at least one sample.
          seed: of the draw; the same seed gives the same split.

        Raises:
          UserError: there are too few samples to split so.
        """
        count = max(1, round(held_back * len(self))) if isinstance(held_back, float) else held_back
        if not 1 <= count < len(self):
            raise UserError(f"cannot hold back {count} of {len(self)} samples; give more calibration samples")
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

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

    def __init__(self, memory_limit: int = MEMORY_LIMIT):
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
