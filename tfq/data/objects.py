"""Samples from objects of the caller's: arrays, iterables, `tf.data.Dataset`s.

    array                  [n, ...], of a model with one input
    {name: array}          arrays [n, ...] by input name, as in an .npz: `x` will do for a single input, labels in `y`
    (x, y)                 inputs as above, or a list of arrays in the order of the model's inputs, and labels [n, ...]
    iterable               of samples or batches, each an array, a tuple or list of arrays in the order of the model's
                           inputs, a dict by input name, or (inputs, label)
    function               that is called without arguments, once a pass, and gives such an iterable
    tf.data.Dataset        of such elements

An element of an iterable is a batch where its arrays have one axis more than the model's inputs without theirs. Of an
endless iterable no more is taken than is asked for. An iterator, such as a generator, can be gone through once
only; everything else has to give the same samples in every pass.
Arrays are not copied where the model takes them as they are: a memory-mapped one stays on its disk.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfq.data.arrays import ArraySource
from tfq.data.functions import StreamSource
from tfq.data.samples import InputSignature
from tfq.data.sources import Source
from tfq.errors import UserError

Data: TypeAlias = (
    str
    | os.PathLike[str]
    | np.ndarray
    | Mapping[str, Any]
    | tuple[Any, Any]
    | Iterable[Any]
    | Callable[[], Iterable[Any]]
)
"""What data may be: a path or "module:function", or one of the objects of this module."""

_EXPECTED = (
    "expected an array, a dict of arrays by input name, (x, y), an iterable of samples, a tf.data.Dataset, or the path"
    " of a file or folder"
)
_INFINITE = -1  # tf.data.INFINITE_CARDINALITY


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """Data of the caller's, and what messages call it."""

    data: Any
    name: str

    def __str__(self) -> str:
        return self.name


def given(data: Data, name: str) -> str | Given:
    """What `load_samples` takes: the path, or the object, which messages call `name`."""
    return os.fspath(data) if isinstance(data, (str, os.PathLike)) else Given(data, name)


def open_object(source: Given, signatures: Sequence[InputSignature]) -> Source:
    """The source behind an object of the caller's. Raises UserError for anything that is none."""
    data, name = source.data, source.name
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UserError(f"{name} is a tuple of {len(data)}; expected (x, y), inputs and their labels")
        return ArraySource(name, *data, signatures)
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        return ArraySource(name, data, None, signatures)
    if hasattr(data, "element_spec") and hasattr(data, "cardinality"):
        return StreamSource(name, lambda: data, signatures, endless=int(data.cardinality()) == _INFINITE)
    if isinstance(data, Iterator):
        return StreamSource(name, _once(data, name), signatures)
    if isinstance(data, Iterable):
        return StreamSource(name, lambda: data, signatures)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset of Keras: batches by their number
        return StreamSource(name, lambda: (data[index] for index in range(len(data))), signatures)
    if callable(data):
        return StreamSource(name, data, signatures)
    raise UserError(f"{name} is of type {type(data).__name__}; {_EXPECTED}")


def _once(iterator: Iterator[Any], name: str) -> Callable[[], Iterable[Any]]:
    """A pass over an iterator, and no second one."""
    passes = iter([iterator])

    def begin() -> Iterable[Any]:
        for only in passes:
            return only
        raise UserError(
            f"{name} is a {type(iterator).__name__}, which gives its samples once; `selection` takes two passes: give"
            " an array, a list, or the function that makes it"
        )

    return begin
