"""Where samples come from: one small class per kind of source, told apart by the name given."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfq.data.samples import InputSignature
from tfq.errors import UserError


@dataclasses.dataclass(frozen=True)
class RawSample:
    """One sample as it is stored: before preprocessing and conversion to the model's dtype.

    `where` says in an error message which sample it is; `name` is its file, if it has its own.
    """

    index: int
    where: Mapping[str, str]
    inputs: Mapping[str, np.ndarray]
    label: np.ndarray | None = None
    name: str = ""


class Source(Protocol):
    """Samples in a fixed order.

    Attributes:
      count: number of samples, None where only a whole pass would tell.
      class_names: name of each integer label, or empty.
      warnings: what was noticed on opening.
    """

    @property
    def count(self) -> int | None: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def labels(self) -> np.ndarray | None:
        """[n] labels of all samples, None without; reads as little as possible."""
        ...

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        """The samples at the ascending positions `wanted` (None: all), in source order; a new pass each time."""
        ...


def open_source(source: str, signatures: Sequence[InputSignature], *, preprocess: str = "none") -> Source:
    """The source behind a name given by the user.

    Args:
      source: path of an .npz or .npy file, of a folder of images, of a TFRecord file (or a pattern
        such as "train-*.tfrecord"), or "module:function" (also "path/file.py:function").
      signatures: the model's inputs.
      preprocess: the preprocessing that will follow.

    Raises:
      UserError: it does not exist, cannot be read, or does not fit the model's inputs.
    """
    from tfq.data import arrays

    path = Path(source)
    if path.suffix in (".npz", ".npy"):
        _require_file(path)
        return arrays.NpzSource(path, signatures) if path.suffix == ".npz" else arrays.NpySource(path, signatures)
    raise UserError(
        f"{source!r} is no data source: give an .npz or .npy file, a folder of images, a TFRecord file, or module:function"
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} {'is a folder, not a file' if path.is_dir() else 'does not exist'}")
