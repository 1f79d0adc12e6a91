"""Processes that do not outlive the one that started them, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Looked up now: between fork and exec of a process with threads the loader's lock may be held by one that is not there.
_PRCTL = ctypes.CDLL(None).prctl


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Called in a new process: it gets the signal when the thread of `parent` that started it ends, or has ended."""
    _PRCTL(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Descendants whose parents end become children of this process, so that `kill_children` finds them."""
    _PRCTL(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_children() -> None:
    """Kill and reap the children of this process, and with `adopt_orphans` all descendants.

    Those that made a session of their own, such as the server of adb, chose to go on by themselves and do.
    """
    session = os.getsid(0)
    while found := [child for child in _children() if _session(child) == session]:
        for child in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> list[int]:
    """Of the process's main thread; those of other threads' making count as its own."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended since
            found += map(int, path.read_text(encoding="ascii").split())
    return found


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return None
