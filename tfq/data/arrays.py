"""Samples in arrays: the caller's own, and those of NumPy files, .npz and .npy.

An .npz is read member by member as a stream of rows, so that a compressed file of any size needs
only one block of rows in memory. Pickled (object) arrays are refused: they can run code.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq.data.checks import check_dtype, check_label_dtype, check_shape
from tfq.data.npy import Header, read_header, rows
from tfq.data.samples import InputSignature
from tfq.data.sources import RawSample, Source, check_counts, selected
from tfq.errors import UserError, described

LABELS = "y"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    LookupError,
    RuntimeError,
)
# zlib makes at most 1,032 bytes of one: a member that claims more is damaged, or made to fill a disk.
_MOST_RATIO, _SLACK = 1032, 1 << 16
_MOST_UNPACKED = 64 << 30
_MOST_LABEL_BYTES = 1 << 30


class NpzSource(Source):
    """An .npz: array `x` for a model with one input, else one array per input name; labels in `y`.

    Arrays with other names are ignored.
    """

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
                self._members = members_by_input(path, names, signatures)
                self._has_labels = LABELS in names and LABELS not in self._members.values()
                counts: dict[str, int] = {}
                for signature in signatures:
                    member = self._members[signature.name]
                    header = _member_header(archive, path, member)
                    check_array(header, signature, f"array {member!r} of {path}")
                    counts[repr(member)] = header.shape[0]
                if self._has_labels:
                    header = _member_header(archive, path, LABELS)
                    check_label_dtype(header.dtype, f"array {LABELS!r} of {path}")
                    counts[repr(LABELS)] = header.shape[0] if header.shape else 0
                    if header.bytes > _MOST_LABEL_BYTES:
                        raise UserError(
                            f"the labels {LABELS!r} of {path} take {header.bytes:,} bytes; at most 2^30 are read"
                        )
        check_counts(counts, str(path))
        self.count: int = next(iter(counts.values()))

    def labels(self) -> np.ndarray | None:
        if not self._has_labels:
            return None
        with _damage_as_user_error(self._path), zipfile.ZipFile(self._path) as archive:
            return np.array(list(_rows(archive, LABELS, self.count)))

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        stop = self.count if wanted is None else min(max(wanted, default=-1) + 1, self.count)
        where = {name: f"array {member!r} of {self._path}" for name, member in self._members.items()}
        with _damage_as_user_error(self._path), zipfile.ZipFile(self._path) as archive:
            inputs = [_rows(archive, member, stop) for member in self._members.values()]
            labels = _rows(archive, LABELS, stop) if self._has_labels else itertools.repeat(None)
            for index, (label, *row) in selected(zip(labels, *inputs, strict=False), wanted):
                called = {name: f"sample {index} of {array}" for name, array in where.items()}
                yield RawSample(index, called, dict(zip(where, row, strict=True)), label)


class ArraySource(Source):
    """Arrays [n, ...] in memory, or mapped into it.

    Attributes:
      arrays: by input name.
    """

    label_hint = "give (x, y)"

    def __init__(self, name: str, inputs: Any, labels: Any, signatures: Sequence[InputSignature]):
        """`inputs` as `tfq.data.objects` says; `labels` None for those among the inputs, or none."""
        self._name = name
        found = {key: _array(value, f"{key!r} of {name}") for key, value in _by_name(inputs, name, signatures).items()}
        members = members_by_input(name, list(found), signatures)
        if labels is None and LABELS not in members.values():
            labels = found.get(LABELS)
        self._labels = None if labels is None else _array(labels, f"the labels of {name}")
        self.arrays = {s.name: found[members[s.name]] for s in signatures}
        for signature in signatures:
            check_array(self.arrays[signature.name], signature, self._called(signature.name))
        counts = {repr(key): len(array) for key, array in self.arrays.items()}
        if self._labels is not None:
            check_label_dtype(self._labels.dtype, name)
            counts["labels"] = len(self._labels) if self._labels.ndim else 0
        check_counts(counts, name)
        self.count: int = len(next(iter(self.arrays.values())))

    def labels(self) -> np.ndarray | None:
        return self._labels

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        for index in range(self.count) if wanted is None else wanted:
            if index < self.count:
                where = {key: f"sample {index} of {self._called(key)}" for key in self.arrays}
                inputs = {key: np.asarray(array[index]) for key, array in self.arrays.items()}
                label = None if self._labels is None else np.asarray(self._labels[index])
                yield RawSample(index, where, inputs, label)

    def _called(self, key: str) -> str:
        return self._name if len(self.arrays) == 1 else f"array {key!r} of {self._name}"


class NpySource(ArraySource):
    """An .npy: the input of a model with one input; memory-mapped, without labels."""

    label_hint = "use an .npz with the labels in the array 'y'"

    def __init__(self, path: Path, signatures: Sequence[InputSignature]):
        if len(signatures) != 1:
            raise UserError(f"{path} holds one array, the model has the inputs {listed(signatures)}; give an .npz")
        with _damage_as_user_error(path), path.open("rb") as stream:
            header = read_header(stream, str(path))
        check_array(header, signatures[0], str(path))
        _check_whole(header, path.stat().st_size, str(path))
        with _damage_as_user_error(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        super().__init__(str(path), array, None, signatures)


def listed(signatures: Sequence[InputSignature]) -> str:
    return ", ".join(repr(s.name) for s in signatures)


def members_by_input(path: object, names: Sequence[str], signatures: Sequence[InputSignature]) -> dict[str, str]:
    """Input name -> name of the array, among those in `path`, that holds its samples. Raises UserError."""
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
            f" the model's inputs are {listed(signatures)}"
        )
    return {s.name: s.name for s in signatures}


def check_array(header: Header | np.ndarray, signature: InputSignature, where: str) -> None:
    """UserError unless an array [n, ...] of this shape and dtype holds samples of the input."""
    shape = header.shape
    check_dtype(header.dtype, signature, where)
    if shape == signature.shape:
        raise UserError(f"{where} has shape {shape}: the axis of samples is missing; for one sample store x[None]")
    if not shape:
        raise UserError(f"{where} is a single number; expected samples of shape {signature.shape}")
    if shape[0] == 0:
        raise UserError(f"{where} is empty (shape {shape})")
    check_shape(shape[1:], signature, where)


def _check_whole(header: Header, available: int, where: str) -> None:
    if header.size + header.bytes > available:
        raise UserError(
            f"{where} ends early: its shape {header.shape} takes {header.bytes:,} bytes, and {available:,} are there"
        )


def _member_header(archive: zipfile.ZipFile, path: Path, member: str) -> Header:
    """The header of an array, once it is sure that as much is there as it says. Raises UserError."""
    info, where = archive.getinfo(member + ".npy"), f"array {member!r} of {path}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{where} is packed in a way that NumPy does not use; write it with numpy.savez_compressed")
    stored = min(info.compress_size, path.stat().st_size)
    if info.file_size > stored * (_MOST_RATIO if info.compress_type == zipfile.ZIP_DEFLATED else 1) + _SLACK:
        raise UserError(f"{where} claims {info.file_size:,} bytes in {stored:,} of the file; the file is damaged")
    if info.file_size > _MOST_UNPACKED and info.compress_type == zipfile.ZIP_DEFLATED:
        raise UserError(f"{where} unpacks to {info.file_size:,} bytes, at most 64 GiB are read; store it as an .npy")
    with archive.open(info) as stream:
        header = read_header(stream, where)
    _check_whole(header, info.file_size, where)
    return header


def _rows(archive: zipfile.ZipFile, member: str, stop: int) -> Iterator[np.ndarray]:
    """The first `stop` rows of a member."""
    with archive.open(member + ".npy") as stream:
        yield from rows(stream, read_header(stream, f"array {member!r}"), stop, f"array {member!r}")


@contextlib.contextmanager
def _damage_as_user_error(path: Path) -> Iterator[Any]:
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"cannot read {path}: {' '.join(str(error).split())[:200]}; the file is damaged or not a NumPy file"
        ) from error


def _by_name(inputs: Any, name: str, signatures: Sequence[InputSignature]) -> Mapping[str, Any]:
    if isinstance(inputs, Mapping):
        return inputs
    if len(signatures) == 1:
        return {signatures[0].name: inputs}
    if isinstance(inputs, (tuple, list)) and len(inputs) == len(signatures):
        return {s.name: value for s, value in zip(signatures, inputs, strict=True)}
    raise UserError(
        f"{name} is no dict, and the model has the inputs {listed(signatures)}; give a dict of arrays by input name"
    )


def _array(value: Any, what: str) -> np.ndarray:
    """A view of the array, read-only; UserError for what is none."""
    try:
        found = np.asarray(value)[...]
    except Exception as error:  # an object of the caller's may raise anything
        raise UserError(f"{what} is of type {type(value).__name__}, which is no array: {described(error)}") from error
    found.flags.writeable = False
    return found
