"""Progress of long operations: one object, made by the command, passed down to whoever loops."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from tfq.execution.terminal import one_line

Advance = Callable[[int], None]


class Progress(Protocol):
    """What a long operation needs: `with progress.task("calibrate", total) as advance: advance(1)`."""

    def task(
        self, description: str, total: int, *, expected_seconds: float = 0.0
    ) -> contextlib.AbstractContextManager[Advance]:
        """Open a task of `total` steps; the value entered is called with the number of steps done.

        A task that cannot tell its steps (`total` 0) says how long it expects to take.
        """
        ...


class Silent:
    """Shows nothing: the library's default."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, expected_seconds: float = 0.0) -> Iterator[Advance]:  # noqa: ARG002
        yield lambda _: None


SILENT = Silent()


class Lines:
    """Plain lines with an estimate of the time left: on a terminal rewritten in place, in a log one every 5 s.

    A task that ends within two seconds leaves only its closing line.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = 0.5 if self._terminal else 5.0

    @contextlib.contextmanager
    def task(
        self, description: str | Callable[[], str], total: int, *, expected_seconds: float = 0.0
    ) -> Iterator[Advance]:
        """As in `Progress`; the description may also be a function that tells what goes on at this moment."""
        start = time.monotonic()
        described = description if callable(description) else lambda: description
        done = 0
        ended = threading.Event()

        def advance(steps: int) -> None:
            nonlocal done
            done += steps

        def tick() -> None:
            while not ended.wait(self._every):
                elapsed = time.monotonic() - start
                if elapsed >= 2.0:
                    self._write(f"{described()}: {_state(done, total, elapsed, expected_seconds)}", end=False)

        ticker = threading.Thread(target=tick, daemon=True)
        if self._terminal:
            self._write(f"{described()} ...", end=False)
        ticker.start()
        try:
            yield advance
        finally:
            ended.set()
            ticker.join()
            if self._terminal:
                self._write("", end=False)
        self._write(f"{described()}: done in {time.monotonic() - start:.1f} s", end=True)

    def _write(self, text: str, *, end: bool) -> None:
        if self._terminal:
            getattr(self._stream, "write_control", self._stream.write)("\r\x1b[K")
        self._stream.write(one_line(text) + ("\n" if end or not self._terminal else ""))
        self._stream.flush()


def shown(progress: Progress | bool) -> Progress:
    """Lines on standard error for True, nothing for False."""
    if isinstance(progress, bool):
        return Lines(sys.stderr) if progress else Silent()
    return progress


def _state(done: int, total: int, elapsed: float, expected_seconds: float) -> str:
    """ "120/512, about 8 s left"; without steps by the expected time; without either the time gone by."""
    if total and done:
        left = elapsed / done * max(total - done, 0)
        return f"{done}/{total}, about {left:.0f} s left"
    if expected_seconds > elapsed:
        return f"about {expected_seconds - elapsed:.0f} s left"
    return f"{elapsed:.0f} s so far"
