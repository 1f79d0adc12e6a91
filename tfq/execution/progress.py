"""Progress of long operations: one object, made by the command, passed down to whoever loops."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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

        def advance(steps: int) -> None:
            nonlocal done
            done += steps

        def told() -> str:
            return f"{described()}: {_state(done, total, time.monotonic() - start, expected_seconds)}"

        with self._shown(described, told):
            yield advance
        self._write(f"{described()}: done in {time.monotonic() - start:.1f} s", end=True)

    @contextlib.contextmanager
    def _shown(self, first: Callable[[], str], told: Callable[[], str]) -> Iterator[None]:
        """While the block runs: `first` at once, on a terminal, and what is `told` from the third second on."""
        start, ended = time.monotonic(), threading.Event()

        def tick() -> None:
            while not ended.wait(self._every):
                if time.monotonic() - start >= 2.0:
                    self._write(told(), end=False)

        ticker = threading.Thread(target=tick, daemon=True)
        if self._terminal:
            self._write(f"{first()} ...", end=False)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()
            if self._terminal:
                self._write("", end=False)

    def _write(self, text: str, *, end: bool) -> None:
        if self._terminal:
            getattr(self._stream, "write_control", self._stream.write)("\r\x1b[K")
        self._stream.write(one_line(text) + ("\n" if end or not self._terminal else ""))
        self._stream.flush()


@dataclasses.dataclass(frozen=True)
class Planned:
    """A stage of a run: in plain words, and its share of the time, in no unit; a guess by which the rest is told."""

    words: str
    share: float


class Course(Lines):
    """A whole run on one line: which of its stages it is in, in plain words, and about how long the rest takes.

    On a terminal the line is rewritten in place and vanishes in the end. A log gets one every 5 s, and one for each
    stage that has ended. The rest is told by the pace so far: what the stages that have ended took for their shares.
    """

    def __init__(self, stream: TextIO, plan: Mapping[str, Planned]):
        """plan: the stages by their names in the journal, in their order."""
        super().__init__(stream)
        self._plan, self._places = plan, {name: place for place, name in enumerate(plan, 1)}
        self._place = 0
        self._ended: dict[str, float] = {}
        self._task = (0, 0, 0.0)  # of the one that began last: steps done, steps, and when it began
        self._stages = 0  # that are open

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is a stage. One that comes again, or is not planned, moves the run no further."""
        start, planned = time.monotonic(), self._plan.get(name, Planned(name, 0.0))
        self._place = max(self._place, self._places.get(name, 0))
        words = f"{self._place} of {len(self._plan)}, {planned.words}" if self._place else planned.words
        self._task = (0, 0, start)

        def told() -> str:
            seconds = time.monotonic() - start
            done, total, _ = self._task
            state = f"{done}/{total}" if done and total else f"{seconds:.0f} s so far"
            left = self._left(planned, seconds)
            return f"{words}: {state}" + (f", about {_spoken(left)} left" if left else "")

        self._stages += 1
        try:
            with self._shown(lambda: words, told):
                yield
        finally:
            self._stages -= 1
        taken = time.monotonic() - start
        self._ended[name] = self._ended.get(name, 0.0) + taken
        if not self._terminal:
            self._write(f"{words}: done in {taken:.1f} s", end=True)

    @contextlib.contextmanager
    def task(
        self, description: str | Callable[[], str], total: int, *, expected_seconds: float = 0.0
    ) -> Iterator[Advance]:
        """As in `Progress`: steps of the stage that the run is in; outside of any, a stage of its own."""
        if not self._stages:
            with (
                self.stage(description() if callable(description) else description),
                self.task(description, total, expected_seconds=expected_seconds) as advance,
            ):
                yield advance
            return
        before, start = self._task, time.monotonic()
        self._task = (0, total, start)

        def step(steps: int) -> None:
            self._task = (self._task[0] + steps, total, start)

        yield step
        self._task = before

    def _left(self, planned: Planned, seconds: float) -> float:
        """Seconds from here to the end of the run; 0 while too little is known."""
        known = {name: taken for name, taken in self._ended.items() if name in self._plan}
        share = sum(self._plan[name].share for name in known)
        if not share:
            return 0.0
        pace = sum(known.values()) / share
        later = sum(stage.share for name, stage in self._plan.items() if self._places[name] > self._place)
        done, total, start = self._task
        of_task = (time.monotonic() - start) / done * max(total - done, 0) if done and total else 0.0
        return max(of_task, pace * planned.share - seconds) + pace * later  # a stage may have several tasks


def entered(progress: Progress, stage: str) -> contextlib.AbstractContextManager[None]:
    """The block is this stage of a run, to a progress that tells stages."""
    return progress.stage(stage) if isinstance(progress, Course) else contextlib.nullcontext()


def shown(progress: Progress | bool, plan: Mapping[str, Planned] | None = None) -> Progress:
    """Standard error for True, with one line over a run that has a plan; nothing for False."""
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return Silent()
    return Lines(sys.stderr) if plan is None else Course(sys.stderr, plan)


def _spoken(seconds: float) -> str:
    """ "40 s", "12 min", "1.5 h" """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _state(done: int, total: int, elapsed: float, expected_seconds: float) -> str:
    """ "120/512, about 8 s left"; without steps by the expected time; without either the time gone by."""
    if total and done:
        left = elapsed / done * max(total - done, 0)
        return f"{done}/{total}, about {left:.0f} s left"
    if expected_seconds > elapsed:
        return f"about {expected_seconds - elapsed:.0f} s left"
    return f"{elapsed:.0f} s so far"
