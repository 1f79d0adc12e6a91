"""Progress of long operations: one object, made by the command, passed down to whoever loops."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO


class Progress(Protocol):
    """What a long operation needs: `with progress.task("calibrate", total) as advance: advance(1)`."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Open a task of `total` steps; the value entered is called with the number of steps done."""
        ...


class Silent:
    """Shows nothing: the library's default."""

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        yield lambda _: None


class Lines:
    """Plain lines with an estimate of the time left: on a terminal rewritten in place, in a log one every 5 s.

    A task that ends within two seconds leaves only its closing line.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._every = 0.2 if self._terminal else 5.0

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        start = shown = self._clock()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, shown
            done += steps
            now = self._clock()
            if now - start >= 2.0 and now - shown >= self._every and done < total:
                shown = now
                left = (now - start) / done * (total - done)
                self._write(f"{description}: {done}/{total}, about {left:.0f} s left", end=False)

        if self._terminal:
            self._write(f"{description} ...", end=False)
        yield advance
        self._write(f"{description}: done in {self._clock() - start:.1f} s", end=True)

    def _write(self, text: str, *, end: bool) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if end else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
