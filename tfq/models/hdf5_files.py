"""HDF5 files that hold nothing but numbers: what is checked before anybody reads a dataset.

HDF5 can point outside: a dataset may lie in other files (external storage, virtual datasets), a name may
be a link to another file. It can also promise much and hold little: a compressed or unwritten dataset of
terabytes in a file of kilobytes. Keras writes neither, so both are refused, by name.

Limits, all of what the file declares, so that nothing is unpacked to find out:
  a dataset that is not compressed   holds as many bytes as it declares;
  all datasets together              at most 100 times the file's size and 64 MiB more, and `MOST_BYTES`;
  an attribute                       at most `LARGEST_ATTRIBUTE`; the model's configuration `LARGEST_TEXT`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import pathlib
import resource
from collections.abc import Iterator
from typing import Any

import h5py

from tfq.errors import UserError
from tfq.models.refusals import shortened

LARGEST_TEXT = 64 * 2**20
LARGEST_ATTRIBUTE = 2**30
MOST_BYTES = 8 * 2**30  # a .tflite holds at most 2 GiB; training files hold the optimizer's moments too
MOST_OBJECTS = 200_000
MOST_RATIO, SLACK = 100, 64 * 2**20
# deflate, shuffle, fletcher32: what h5py and Keras offer, and what cannot load a plug-in
_FILTERS = (1, 2, 3)
# A global heap: its signature and version 1; its size follows in 8 bytes.
_HEAP = b"GCOL\x01\0\0\0"
_WEIGHTS = "save the model again with model.save()"


def check_hdf5(file: h5py.File, path: pathlib.Path) -> int:
    """How many numbers the file's datasets hold.

    Args:
      file: open for reading.
      path: for messages, and for its size.

    Raises:
      UserError: something lies outside the file or is larger than the file can hold.
    """
    size = path.stat().st_size
    longest = _longest_text(path)
    declared, numbers = 0, 0
    todo: list[tuple[str, Any]] = [("/", file)]
    seen: set[Any] = set()
    while todo:
        name, item = todo.pop()
        _check_attributes(item, name, longest)
        if isinstance(item, h5py.Dataset):
            declared += _check_dataset(item, name)
            numbers += math.prod(item.shape or ())
            if declared > min(MOST_BYTES, MOST_RATIO * size + SLACK):
                raise _refuse(name, f"a file of {size} bytes declares {declared} bytes of weights")
        elif isinstance(item, h5py.Group):
            todo += [found for found in _children(item, name) if _new(found[1], seen)]
            if len(seen) > MOST_OBJECTS:
                raise _refuse(name, f"the file holds more than {MOST_OBJECTS} objects")
    return numbers


def _refuse(name: str, reason: str) -> UserError:
    return UserError(f"HDF5 object {shortened(name)!r}: {reason}; {_WEIGHTS}")


def _new(item: Any, seen: set[Any]) -> bool:
    """Whether an object is met for the first time: a group can be linked into itself."""
    place = h5py.h5o.get_info(item.id).addr
    if place in seen:
        return False
    seen.add(place)
    return True


def _children(group: h5py.Group, name: str) -> list[tuple[str, Any]]:
    found = []
    for child in group:
        full = f"{name.rstrip('/')}/{child}"
        link = group.get(child, getlink=True)
        if not isinstance(link, h5py.HardLink):
            target = getattr(link, "filename", None) or getattr(link, "path", "")
            raise _refuse(full, f"it is a link to {shortened(str(target))!r}, not data of this file")
        found.append((full, group[child]))
    return found


def _check_dataset(dataset: h5py.Dataset, name: str) -> int:
    """Its declared bytes."""
    created = dataset.id.get_create_plist()
    if created.get_external_count():
        where = created.get_external(0)[0].decode("utf-8", "replace")
        raise _refuse(name, f"its data lies in another file, {shortened(where)!r}")
    if created.get_layout() == h5py.h5d.VIRTUAL:
        raise _refuse(name, "it is a virtual dataset, whose data lies in other files")
    filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        raise _refuse(name, f"it is packed by the HDF5 filter {max(filters)}")
    if dataset.dtype.kind not in "biufVS" or dataset.dtype.hasobject:
        raise _refuse(name, f"it holds {dataset.dtype}, not numbers")
    declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if declared > stored and created.get_layout() != h5py.h5d.CHUNKED:
        raise _refuse(name, f"it declares {declared} bytes and holds {stored}")
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if chunk > max(declared, SLACK):
        raise _refuse(name, f"it is stored in pieces of {chunk} bytes")
    return declared


def _check_attributes(item: Any, name: str, longest: int) -> None:
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        count = math.prod(attribute.shape or ())
        # texts of variable length lie in the file's heap, and many may be one and the same
        most = count * (longest if attribute.dtype.hasobject else attribute.dtype.itemsize)
        if most > LARGEST_ATTRIBUTE:
            raise _refuse(name, f"its attribute {shortened(str(key), 60)!r} may take {most} bytes")
        if attribute.dtype.hasobject:
            with _at_most(LARGEST_ATTRIBUTE):  # a text says its own length, for which the library makes room
                item.attrs[key]


@contextlib.contextmanager
def _at_most(more: int) -> Iterator[None]:
    """Let this process have at most `more` bytes more memory than it has; beyond that, reading fails.

    Where the system does not tell how much it has, nothing is held.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError, IndexError):
        yield
        return
    limit = pages * resource.getpagesize() + more
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _longest_text(path: pathlib.Path) -> int:
    """The largest piece of the file's heaps, which holds every text of variable length.

    Raises:
      ValueError: a heap is damaged so that the HDF5 library would read it for ever.
    """
    longest = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_HEAP)
        while at >= 0:
            size = int.from_bytes(content[at + 8 : at + 16], "little")
            if at + size <= len(content):  # else the library refuses it, or it is no heap but a number
                _check_heap(content, at + 16, at + size)
            longest = max(longest, size)
            at = content.find(_HEAP, at + 8)
    return min(longest, path.stat().st_size)


def _check_heap(content: mmap.mmap, at: int, end: int) -> None:
    """Walk the objects of a heap: number, references, size in 8 bytes, data up to a multiple of 8."""
    while at + 16 <= end:
        number = int.from_bytes(content[at : at + 2], "little")
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        # object 0 is the free space, whose size counts its own head
        step = size if number == 0 else 16 + -(-size // 8) * 8
        if step < 16 or at + step > end:
            raise ValueError("a heap of texts is damaged")
        at += step


def text_attribute(file: h5py.File, key: str) -> str | None:
    """A text of the root group, or None where there is none.

    Raises:
      ValueError: it is no text.
    """
    if key not in file.attrs:
        return None
    value = file.attrs[key]
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    if len(value) > LARGEST_TEXT:
        raise ValueError(f"{key} is longer than {LARGEST_TEXT} bytes")
    return value
