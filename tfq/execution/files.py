"""Output that appears whole or not at all.

A result is written beside its final place, under a hidden name, and moved in when it is complete. What
was there before stays as it is until that moment. A partial result is locked by the process that writes
it; one that nobody locks was left by a process that died, and the next run removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from tfq.errors import UserError

OUTPUT_NAMES = (
    "model.tflite",
    "model.tflite.gz",
    "float.tflite",
    "spec.json",
    "report.json",
    "report.html",
    "recipe.json",
)

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
    path = Path(path).resolve()
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(path)
        _check_replaceable(path, overwrite=overwrite, ours=ours)
        partial, lock = _locked_directory(path)
    try:
        with _full_disk_as_user_error(path):
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
        os.close(lock)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in place of one that may be there. Raises UserError where it cannot."""
    path = Path(path).resolve()
    if path.is_dir():
        raise UserError(f"cannot write the file {path}: it is a directory; name a file")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(path)
        partial = _partial_name(path)
        try:
            with partial.open("xb") as file:
                _lock(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            _sync_directory(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def _aside_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _locked_directory(path: Path) -> tuple[Path, int]:
    """A new partial directory for `path`, and the descriptor that holds its lock."""
    while True:
        partial = _partial_name(path)
        partial.mkdir()
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # another run took it for a stale one before it was locked
            continue
        _lock(lock)
        if partial.exists():
            return partial, lock
        os.close(lock)


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # some network drives have no locks: there no partial is taken for stale
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _clean_up(path: Path) -> None:
    """Remove partial results of dead processes; put back what one of them had moved aside."""
    aside = _aside_name(path)
    if aside.exists():
        if path.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(path)
    for partial in path.parent.glob(f".{_literal(path.name)}.partial-????????"):
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process is at work, or the file system has no locks to tell
            continue
        else:
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _literal(name: str) -> str:
    """The glob pattern that matches `name` only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _check_replaceable(path: Path, *, overwrite: bool, ours: Collection[str]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"cannot write the directory {path}: it is a file; name a directory")
    found = sorted(entry.name for entry in path.iterdir())
    if found and not overwrite:
        raise UserError(f"{path} exists already; pass --overwrite to replace it, or name another directory")
    foreign = [name for name in found if name not in ours]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{path} holds files that are not tfq's ({foreign[0]}{more}); --overwrite would delete them,"
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
    """Exchange two directories in one step; False where the system cannot (it is Linux's renameat2)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
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
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name a place that can be written") from error


@contextlib.contextmanager
def _full_disk_as_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"cannot write {path}: {error.strerror}; make room or name another place") from error
        raise
