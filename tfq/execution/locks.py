"""Locks on files and directories that say whether the run that made them is still at work.

A lock goes with its process, however that ends. Some network drives have no locks: nothing there is taken for stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def lock(descriptor: int) -> None:
    """Hold what is open until its last descriptor is closed."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def locked_directory(make: Callable[[], Path]) -> tuple[Path, int]:
    """A directory that `make` has made, and the descriptor that holds its lock."""
    while True:
        path = make()
        with contextlib.suppress(FileNotFoundError):  # another run took it for a stale one before it was locked
            held = os.open(path, os.O_RDONLY)
            lock(held)
            if path.exists():
                return path, held
            os.close(held)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove those of this user's files and directories that match and that no process holds; links stay."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # it went, it is a link, it is none of ours, or its process is at work
            held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if os.fstat(held).st_uid == os.getuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            finally:
                os.close(held)
