"""Samples from objects of the caller's: arrays, iterables, `tf.data.Dataset`s.

    array                  [n, ...], of a model with one input
    {name: array}          arrays [n, ...] by input name, as in an .npz: `x` will do for a single input, labels in `y`
    (x, y)                 inputs as above, or a list of arrays in the order of the model's inputs, and labels [n, ...]
    iterable               of samples or batches, each as `tfq.data.functions` takes it
    function               that is called without arguments, once a pass, and gives such an iterable
    tf.data.Dataset        of such elements

Of an endless iterable no more is taken than is asked for. An iterator, such as a generator, can be gone through once
only; everything else has to give the same samples in every pass.
Arrays are not copied where the model takes them as they are: a memory-mapped one stays on its disk.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfq.data.arrays import LABELS, check_array, listed, members_by_input
from tfq.data.checks import check_label_dtype
from tfq.data.functions import StreamSource
from tfq.data.samples import InputSignature
from tfq.data.sources import RawSample, Source, check_counts
from tfq.errors import UserError, described

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


class ArraySource(Source):
    """Arrays [n, ...] in memory, or mapped into it.

    Attributes:
      arrays: by input name.
    """

    label_hint = "give (x, y)"

    def __init__(self, name: str, inputs: Any, labels: Any, signatures: Sequence[InputSignature]):
        """`inputs` as the module says; `labels` None for those among the inputs, or none."""
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
