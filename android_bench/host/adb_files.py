"""Files on their way to a device: which they are, their hashes, and how many names fit into one command."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfq.errors import UserError

# A shell command must fit into one message of the oldest devices, 4096 bytes.
_COMMAND_BYTES = 3000


def files_below(local: Path, remote: str) -> Iterator[tuple[str, Path]]:
    if local.is_file():
        yield remote, local
    elif local.is_dir():
        for path in sorted(local.rglob("*")):
            if path.is_file():
                yield posixpath.join(remote, path.relative_to(local).as_posix()), path
    else:
        raise UserError(f"{local}: no such file or folder; expected one to push to {remote}")


def batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """The paths in groups, each short enough for one shell command."""
    batch: list[str] = []
    for path in paths:
        if batch and sum(len(os.fsencode(shlex.quote(shlex.quote(p)))) + 1 for p in [*batch, path]) > _COMMAND_BYTES:
            yield batch
            batch = []
        batch.append(path)
    if batch:
        yield batch
