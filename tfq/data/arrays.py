"""Samples in NumPy files: .npz and .npy.

An .npz is read member by member as a stream of rows, so that a compressed file of any size needs
only one block of rows in memory. Pickled (object) arrays are refused: they can run code.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfq.data.checks import check_dtype, check_shape
from tfq.data.samples import InputSignature
from tfq.data.sources import RawSample
from tfq.errors import UserError

LABELS = "y"
_BLOCK_BYTES = 4 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


class NpzSource:
    """An .npz: array `x` for a model with one input, else one array per input name; labels in `y`.

    Arrays with other names are ignored.
    """

    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    label_hint = "labels belong in the array 'y'"

    def __init__(self, path: Path, signatures: Sequence[InputSignature]):
        self._path = path
        with _damage_as_user_error(path):
            if not zipfile.is_zipfile(path):
                raise UserError(
                    f"{path} is not an .npz file (no zip archive, or a truncated one);"
                    " write it with numpy.savez_compressed"
                )
            with zipfile.ZipFile(path) as archive:
                names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
                self._members = _members_by_input(path, names, signatures)
                self._has_labels = LABELS in names and LABELS not in self._members.values()
                counts: dict[str, int] = {}
                for signature in signatures:
                    member = self._members[signature.name]
                    with archive.open(member + ".npy") as stream:
                        shape, _, dtype = _read_header(stream, f"array {member!r} of {path}")
                    _check_header(shape, dtype, signature, f"array {member!r} of {path}")
                    counts[member] = shape[0]
                if self._has_labels:
                    with archive.open(LABELS + ".npy") as stream:
                        shape, _, _ = _read_header(stream, f"array {LABELS!r} of {path}")
                    counts[LABELS] = shape[0] if shape else 0
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise UserError(f"the arrays of {path} differ in their number of samples: {listed}")
        self._count = next(iter(counts.values()))

    @property
    def count(self) -> int:
        return self._count

    def labels(self) -> np.ndarray | None:
        if not self._has_labels:
            return None
        with _damage_as_user_error(self._path), zipfile.ZipFile(self._path) as archive:
            return np.array(list(_rows(archive, LABELS, None)))

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        stop = self._count if wanted is None else min(max(wanted, default=-1) + 1, self._count)
        picked = None if wanted is None else set(wanted)
        with _damage_as_user_error(self._path), zipfile.ZipFile(self._path) as archive:
            inputs = {name: _rows(archive, member, stop) for name, member in self._members.items()}
            labels = _rows(archive, LABELS, stop) if self._has_labels else None
            for index in range(stop):
                row = {name: next(rows) for name, rows in inputs.items()}
                label = None if labels is None else next(labels)
                if picked is None or index in picked:
                    where = {n: f"sample {index} of array {m!r} of {self._path}" for n, m in self._members.items()}
                    yield RawSample(index, where, row, label)


class NpySource:
    """An .npy: the input of a model with one input; memory-mapped, without labels."""

    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    label_hint = "use an .npz with the labels in the array 'y'"

    def __init__(self, path: Path, signatures: Sequence[InputSignature]):
        if len(signatures) != 1:
            raise UserError(f"{path} holds one array, the model has the inputs {_listed(signatures)}; give an .npz")
        self._path = path
        self._name = signatures[0].name
        with _damage_as_user_error(path), path.open("rb") as stream:
            shape, _, dtype = _read_header(stream, str(path))
        _check_header(shape, dtype, signatures[0], str(path))
        with _damage_as_user_error(path):
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)

    @property
    def count(self) -> int:
        return len(self._array)

    def labels(self) -> None:
        return None

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        for index in range(self.count) if wanted is None else wanted:
            if index < self.count:
                yield RawSample(
                    index, {self._name: f"sample {index} of {self._path}"}, {self._name: np.array(self._array[index])}
                )


def _listed(signatures: Sequence[InputSignature]) -> str:
    return ", ".join(repr(s.name) for s in signatures)


def _members_by_input(path: Path, names: Sequence[str], signatures: Sequence[InputSignature]) -> dict[str, str]:
    """Input name -> array name."""
    has = ", ".join(repr(n) for n in names) or "none"
    if len(signatures) == 1:
        name = signatures[0].name
        if "x" in names:
            return {name: "x"}
        if name in names:
            return {name: name}
        raise UserError(f"{path} has no array 'x'; it has: {has}; the model's input may be called 'x' or {name!r}")
    missing = [s.name for s in signatures if s.name not in names]
    if missing:
        raise UserError(
            f"{path} has no array for the inputs {', '.join(map(repr, missing))}; it has: {has};"
            f" the model's inputs are {_listed(signatures)}"
        )
    return {s.name: s.name for s in signatures}


def _check_header(shape: tuple[int, ...], dtype: np.dtype, signature: InputSignature, where: str) -> None:
    check_dtype(dtype, signature, where)
    if shape == signature.shape:
        raise UserError(f"{where} has shape {shape}: the axis of samples is missing; for one sample store x[None]")
    if not shape:
        raise UserError(f"{where} is a single number; expected samples of shape {signature.shape}")
    if shape[0] == 0:
        raise UserError(f"{where} is empty (shape {shape})")
    check_shape(shape[1:], signature, where)


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype); leaves the stream at the first value."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise UserError(f"{where} is a structured array (.npy version {version}); store a plain numeric array")
    shape, fortran_order, dtype = read(stream)
    if dtype.hasobject:
        raise UserError(f"{where} holds pickled Python objects, which are not read; store a plain numeric array")
    return shape, fortran_order, dtype


def _rows(archive: zipfile.ZipFile, member: str, stop: int | None) -> Iterator[np.ndarray]:
    """The first `stop` rows of a member, a block of them in memory at a time."""
    with archive.open(member + ".npy") as stream:
        shape, fortran_order, dtype = _read_header(stream, f"array {member!r}")
        if fortran_order and len(shape) > 1:
            yield from _fortran_rows(stream, shape, dtype)
            return
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        block = max(1, _BLOCK_BYTES // max(1, row_bytes))
        total = shape[0] if stop is None else min(stop, shape[0])
        for start in range(0, total, block):
            rows = min(block, total - start)
            data = stream.read(rows * row_bytes)
            if len(data) != rows * row_bytes:
                raise EOFError(f"array {member!r} ends early")
            yield from np.frombuffer(data, dtype).reshape((rows, *shape[1:]))


def _fortran_rows(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Rows of an array stored column by column: through a temporary file, since no row is contiguous."""
    with tempfile.TemporaryFile() as file:
        while data := stream.read(_BLOCK_BYTES):
            file.write(data)
        file.flush()
        mapped = np.memmap(file, dtype, "r", shape=shape, order="F")
        for row in mapped:
            yield np.array(row)


@contextlib.contextmanager
def _damage_as_user_error(path: Path) -> Iterator[Any]:
    try:
        yield
    except _DAMAGE as error:
        raise UserError(f"cannot read {path}: {error}; the file is damaged or not a NumPy file") from error
