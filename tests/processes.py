"""Real processes for tests: started with a mark in their environment by which all their descendants are found."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any


class Family:
    """A process and its descendants; a context manager, after which none of them is left.

    Args:
      command: of the first.
      folder: its working directory; TMPDIR is the new folder `tmp` in it.
    """

    def __init__(self, command: Sequence[Any], folder: pathlib.Path, **environment: str):
        self._mark = f"TFQ_TEST_FAMILY={uuid.uuid4()}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        name, value = self._mark.split("=")
        self.first = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, "TMPDIR": str(self.temporary), **environment, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)
        self.first.communicate(timeout=60)

    def living(self) -> list[int]:
        """The processes that run, by their numbers, the first in front; one that has ended and waits is none."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue
        return sorted(found)

    def end(self, timeout: float = 60.0) -> tuple[int, str, str]:
        """(exit code, output, errors), when nobody holds the pipes any more."""
        output, errors = self.first.communicate(timeout=timeout)
        return self.first.returncode, output, errors

    def wait_until_none_lives(self) -> None:
        until(lambda: not self.living(), f"some of {self.living()} to end")

    def left(self) -> list[str]:
        """What lies in TMPDIR."""
        return sorted(os.listdir(self.temporary))


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)
