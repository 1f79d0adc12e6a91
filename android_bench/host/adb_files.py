"""Files on their way to a device: which they are, their hashes, and how many names fit into one command."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
from collections.abc import Iterable, Iterator, Sequence
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


def local_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; expected a file that can be read") from e
    return digest.hexdigest()


def batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """The paths in groups, each short enough for one shell command."""
    batch: list[str] = []
    for path in paths:
        if batch and sum(len(os.fsencode(quoted(quoted(p)))) + 1 for p in [*batch, path]) > _COMMAND_BYTES:
            yield batch
            batch = []
        batch.append(path)
    if batch:
        yield batch


def quoted(text: str) -> str:
    return shlex.quote(text)


def joined(command: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, command))
