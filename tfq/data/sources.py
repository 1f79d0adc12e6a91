"""What every source of samples offers; one file per kind of source implements it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from tfq.errors import UserError

Item = TypeVar("Item")

# What is taken of a source that does not say how many samples it has, before it counts as endless.
MOST_SAMPLES = 1_000_000
MOST_BYTES = 64 << 30


@dataclasses.dataclass(frozen=True)
class RawSample:
    """One sample as it is stored: before preprocessing and conversion to the model's dtype.

    Attributes:
      index: position in the source.
      where: input name -> what an error message calls this sample.
      inputs: input name -> array without a batch axis.
      label: the label, None without.
      name: its file, relative to the folder, if it has one of its own.
    """

    index: int
    where: Mapping[str, str]
    inputs: Mapping[str, np.ndarray]
    label: np.ndarray | None = None
    name: str = ""


class Source:
    """Samples in a fixed order; construction raises `UserError` where the source cannot serve the model.

    Attributes:
      count: number of samples, None where only a whole pass would tell.
      class_names: name of each integer label, or empty.
      warnings: what was noticed on opening.
      label_hint: where labels belong, for the error when they are needed and missing.
    """

    count: int | None = None
    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    label_hint = ""

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        """The samples at the ascending positions `wanted` (None: all), in source order; a new pass each time."""
        raise NotImplementedError

    def labels(self) -> np.ndarray | None:
        """[n, ...] labels of all samples, None without; reads no more than it must."""
        raise NotImplementedError


def selected(items: Iterable[Item], wanted: Collection[int] | None) -> Iterator[tuple[int, Item]]:
    """(position, item) of those at the positions `wanted` (None: all); nothing behind the last of them is asked for."""
    picked = None if wanted is None else set(wanted)
    for index, item in enumerate(itertools.islice(items, None if picked is None else max(picked, default=-1) + 1)):
        if picked is None or index in picked:
            yield index, item


def stacked(labels: Iterable[np.ndarray | None], name: str) -> np.ndarray | None:
    """Labels one by one as [n, ...]; None where one is missing. Raises UserError where they differ in shape."""
    found = list(labels)
    shapes = {label.shape for label in found if label is not None}
    if len(shapes) > 1:
        raise UserError(f"the labels of {name} differ in shape: {sorted(shapes)[:4]}; make all alike")
    return None if not found or any(label is None for label in found) else np.stack(found)  # type: ignore[arg-type]


def check_counts(counts: Mapping[str, int], name: str) -> None:
    """Raises UserError where arrays differ in their number of samples; what they are called -> that number."""
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise UserError(f"the arrays of {name} differ in their number of samples: {told}")
