"""Output that appears whole or not at all.

A result is written beside its final place, under a hidden name, and moved in when it is complete. What
was there before stays as it is until that moment. A partial result is locked by the process that writes
it; one that nobody locks was left by a process that died, and the next run removes it.

What is no regular file (a terminal, a pipe, /dev/stdout, /dev/null) is never replaced: it is written into.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from tfq.errors import UserError
from tfq.execution.locks import lock, locked_directory, remove_stale

EXPLORER_NAMES = {figure: f"model_explorer_{figure}.json" for figure in ("error", "bits", "time")}
"""Figure of the layers -> its file."""
OUTPUT_NAMES = (
    "model.tflite",
    "model.tflite.gz",
    "model_nms.tflite",
    "float.tflite",
    "spec.json",
    "report.json",
    "report.html",
    "recipe.json",
    "HOWTO.md",
    "MODEL_CARD.md",
    *EXPLORER_NAMES.values(),
)
MOST_POINTS = 1000
"""Of a frontier, for each kind of budget."""
POINT_NAMES = tuple(f"point_{number}.tflite" for number in range(1, 2 * MOST_POINTS + 1))
FRONTIER_NAMES = ("frontier.json", "frontier.csv", "frontier.html", "frontier.png", "recipe.json")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def staged_directory(path: Path, *, overwrite: bool, ours: Collection[str] = OUTPUT_NAMES) -> Iterator[Path]:
    """A new directory to write into, which becomes `path` when the block ends without an exception.

    Args:
      path: the final directory; missing parents are made. An empty directory counts as none.
      overwrite: replace what `path` holds.
      ours: names of the files that may be replaced. A directory that holds anything else is refused.

    Raises:
      UserError: `path` exists without `overwrite`, is not a directory, or holds files of others; it
        cannot be written; the disk is full.
    """
    path = _resolved(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(path)
        _check_replaceable(path, overwrite=overwrite, ours=ours)
        partial, held = locked_directory(lambda: _new_directory(path))
    try:
        with _writing(path, full_only=True):
            yield partial
            _sync(partial)
        with _writing(path):
            _check_replaceable(path, overwrite=overwrite, ours=ours)
            if overwrite and path.exists():
                _swap(partial, path)
            else:
                partial.rename(path)
            _sync_directory(path.parent)
    finally:
        # after the exchange this is the old content; after an error the unfinished new one
        with contextlib.suppress(FileNotFoundError):  # moved into place, or another run cleans up the same
            shutil.rmtree(partial)
        os.close(held)


class Saved:
    """What a run gives, as files."""

    files: Mapping[str, bytes]
    own_names: ClassVar[Collection[str]] = OUTPUT_NAMES
    """Of the files that an earlier run may have left."""

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write all files, whole or not at all, and return where they are.

        Args:
          directory: a new folder; missing parents are made.
          overwrite: replace the files of an earlier run.

        Raises UserError where it is there already or cannot be written, or holds files of others.
        """
        with staged_directory(Path(directory), overwrite=overwrite, ours=self.own_names) as staged:
            self.write(staged)
        return Path(directory)

    def write(self, directory: Path) -> None:
        """Write all files into a folder that is there."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in place of one that may be there; into what is no regular file.

    Raises UserError where it cannot.
    """
    if _is_stream(path):
        with _writing(path):
            _write_into(path, content)
        return
    path = _file(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(path)
        partial = _partial_name(path)
        try:
            with partial.open("xb") as file:
                lock(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            _sync_directory(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def check_file(path: Path, *, regular: bool = False) -> None:
    """Raise UserError where `write_atomic` could not write this file; for a look before long work.

    Args:
      path: of a file that need not be there.
      regular: a file that is read and written in pieces: no stream will do.
    """
    if _is_stream(path):
        if regular:
            raise UserError(f"cannot write {path}: it is not a regular file; name another file")
        with _writing(path):
            os.close(_open_stream(path))
        return
    _check_parent(_file(path))


def check_directory(path: Path) -> None:
    """Raise UserError where no directory can be made at this path; for a look before long work."""
    path = _resolved(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f"cannot write the directory {path}: it is a file; name a directory")
    _check_parent(path)


def remove_partials(path: Path) -> None:
    """Remove partial results that processes which were killed have left of this file or directory."""
    with contextlib.suppress(OSError, UserError):
        _clean_up(_resolved(path))


def _resolved(path: Path) -> Path:
    """The path without links. Raises UserError for one that no system takes."""
    try:
        found = Path(path).resolve()
        if not found.name:
            raise UserError(f"cannot write {found}: it is the root of all folders; name another place")
        return found
    except ValueError as error:  # a NUL
        raise UserError(f"cannot write {str(path)!r}: {error}; name another place") from error
    except (OSError, RuntimeError) as error:  # a loop of links, which older Pythons tell by RuntimeError
        reason = getattr(error, "strerror", None) or "its links lead round in a circle"
        raise UserError(f"cannot write {path}: {reason}; name another place") from error


def _file(path: Path) -> Path:
    path = _resolved(path)
    if os.path.isdir(path):
        raise UserError(f"cannot write the file {path}: it is a directory; name a file")
    return path


def _check_parent(path: Path) -> None:
    """Whether something of this name can be made; the folders above it need not be there yet."""
    with _writing(path):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # tells of what is too long, and of a file among the folders
        missing = [path]
        for folder in path.parents:
            if os.path.lexists(folder):
                break
            missing.append(folder)
        longest = os.pathconf(folder, "PC_NAME_MAX")
        if any(len(os.fsencode(part.name)) > longest for part in missing):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        attempt = folder / _partial_name(path).name
        attempt.mkdir()
        attempt.rmdir()


_DESCRIPTORS = re.compile(r"/proc/(\d+)(/task/\d+)?/fd")


def _is_stream(path: Path) -> bool:
    """Whether the path is something that is written into: no regular file, or the name of an open descriptor."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # not there, or for `_resolved` to tell
        return False
    if stat.S_ISDIR(mode):
        return False
    return not stat.S_ISREG(mode) or _descriptor(Path(path)) is not None


def _descriptor(path: Path) -> tuple[int, int] | None:
    """(process, descriptor) that /dev/stdout, /dev/fd/3 and the like name; it may have text in it already."""
    for _ in range(40):
        if (found := _DESCRIPTORS.fullmatch(os.path.realpath(path.parent))) and path.name.isdecimal():
            return int(found[1]), int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def _open_stream(path: Path) -> int:
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        raise OSError(errno.EINVAL, "it is neither a file nor a stream")
    process, descriptor = _descriptor(path) or (0, 0)
    if process == os.getpid():  # what it points to may be shared with others, and with it the place to write at
        return os.dup(sys.stderr.fileno() if descriptor == 2 else descriptor)
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads") from error
        raise


def _write_into(path: Path, content: bytes) -> None:
    sys.stdout.flush()  # where it is the same stream, what was printed stands before
    descriptor = _open_stream(path)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.partial-{secrets.token_hex(4)}")


def _aside_name(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.previous")


def _short(name: str) -> str:
    """The name, or what stands for it where more could not be added to it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


def _new_directory(path: Path) -> Path:
    partial = _partial_name(path)
    partial.mkdir()
    return partial


def _clean_up(path: Path) -> None:
    """Remove partial results of dead processes; put back what one of them had moved aside."""
    aside = _aside_name(path)
    if aside.exists():
        if path.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(path)
    remove_stale(path.parent, f".{glob.escape(_short(path.name))}.partial-????????")


def _check_replaceable(path: Path, *, overwrite: bool, ours: Collection[str]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"cannot write the directory {path}: it is a file; name a directory")
    found = sorted(entry.name for entry in path.iterdir())
    if found and not overwrite:
        raise UserError(f"{path} exists already; pass `overwrite=True` to replace it, or name another directory")
    foreign = [name for name in found if name not in ours]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{path} holds files that are not tfq's ({foreign[0]}{more}); `overwrite=True` would delete them,"
            " name another directory"
        )


def _swap(partial: Path, path: Path) -> None:
    """Put `partial` in the place of `path`, and the old content in the place of `partial`."""
    if _exchange(partial, path):
        return
    # The file system has no exchange. Killed between the two renames, the next run puts the old one back.
    aside = _aside_name(path)
    path.rename(aside)
    try:
        partial.rename(path)
    except OSError:
        aside.rename(path)
        raise
    aside.rename(partial)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; False where the file system cannot."""
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code))


def _sync(directory: Path) -> None:
    """Make the content of `directory` last through a power cut."""
    for file in directory.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path, *, full_only: bool = False) -> Iterator[None]:
    """What the system does not let be written is a UserError; full_only: other errors are not of this file alone."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        if full_only and not full:
            raise
        advice = "make room or name another place" if full else "name a place that can be written"
        raise UserError(f"cannot write {path}: {error.strerror}; {advice}") from error
