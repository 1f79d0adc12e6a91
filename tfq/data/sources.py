"""What every source of samples offers; one file per kind of source implements it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import numpy as np

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


class Source(Protocol):
    """Samples in a fixed order; construction raises `UserError` where the source cannot serve the model.

    Attributes:
      count: number of samples, None where only a whole pass would tell.
      class_names: name of each integer label, or empty.
      warnings: what was noticed on opening.
      label_hint: where labels belong, for the error when they are needed and missing.
    """

    @property
    def count(self) -> int | None: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def label_hint(self) -> str: ...

    def labels(self) -> np.ndarray | None:
        """[n, ...] labels of all samples, None without; reads no more than it must."""
        ...

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        """The samples at the ascending positions `wanted` (None: all), in source order; a new pass each time."""
        ...
