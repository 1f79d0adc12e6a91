"""Where the samples lie that a name stands for. It is told before anything is read, and without TensorFlow."""

from __future__ import annotations

import dataclasses
import glob
import os
from pathlib import Path

from tfq.data.functions import check_module
from tfq.errors import UserError
from tfq.execution.inputs import check_encodable, check_regular, kind_of

_SOURCES = "give an .npz or .npy file, a folder of images, a .tfrecord file or module:function"
_ANNOTATIONS = "give a COCO .json, or a folder of .txt, .xml or .png"


@dataclasses.dataclass(frozen=True)
class Location:
    """What a name stands for.

    Attributes:
      kind: "images", "tfrecords", "npz", "npy" or "function".
      paths: the folder or the files; none of a function.
    """

    kind: str
    paths: tuple[Path, ...] = ()


def locate(name: str) -> Location:
    """What the name of a source stands for, as `tfq.data.loading.load_samples` describes it.

    Raises UserError where nothing is there, or nothing that may be read.
    """
    check_encodable(name, "the name of the data")
    path = Path(name)
    kind = _kind(path)
    if kind == "a directory":
        if not os.access(path, os.R_OK | os.X_OK):
            raise UserError(f"{name} may not be read by this user; change its permissions")
        return Location("images", (path,))
    if kind:
        check_regular(path, name)
    if ".tfrec" in path.name.lower():
        paths = (path,) if kind else tuple(Path(found) for found in sorted(glob.glob(name)))
        if not paths:
            raise UserError(f"{name} does not exist; {_SOURCES}")
        for found in paths:
            check_encodable(str(found), "a file of the data")
            check_regular(found, str(found))
        return Location("tfrecords", paths)
    if path.suffix.lower() in (".npz", ".npy"):
        if not kind:
            raise UserError(f"{name} does not exist; {_SOURCES}")
        return Location(path.suffix.lower()[1:], (path,))
    module, _, function = name.rpartition(":")
    if module and function.isidentifier():
        check_module(name)
        return Location("function")
    raise UserError(f"{name} {'is no data that can be read' if kind else 'does not exist'}; {_SOURCES}")


def check_sources(*sources: object, annotations: str | os.PathLike[str] = "") -> None:
    """Raises UserError where nothing can be read by a name among the sources, or by that of their annotations.

    What is no text is an object of the caller's, or None for none.
    """
    for source in sources:
        if isinstance(source, str):
            locate(source)
    if not annotations:
        return
    path = Path(annotations)
    kind = _kind(path)
    if not kind:
        raise UserError(f"`annotations` is {path}, which does not exist; {_ANNOTATIONS}")
    if kind != "a directory":
        check_regular(path, str(path))


def _kind(path: Path) -> str:
    """`kind_of`; UserError where the system cannot tell."""
    try:
        return kind_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
