"""What a run notes down as it goes: its stages, with time and memory, and its warnings."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from tfq.execution.progress import SILENT, Progress, entered


@dataclasses.dataclass(frozen=True)
class Stage:
    """Time of one stop of the road, and the process's peak memory after it."""

    name: str
    seconds: float
    peak_memory_mb: float


class Journal:
    """Collects stages and warnings; `stages` and `warnings` grow in order."""

    def __init__(self, progress: Progress = SILENT) -> None:
        """progress: is told of every stage."""
        self._progress = progress
        self.stages: list[Stage] = []
        self.warnings: list[str] = []

    def warn(self, *warnings: str) -> None:
        self.warnings.extend(w for w in warnings if w and w not in self.warnings)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        with entered(self._progress, name):
            yield
        self.stages.append(Stage(name, round(time.monotonic() - start, 3), round(peak_memory_mb(), 1)))


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    # getrusage would give a child of a large process its parent's peak
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    raise RuntimeError("/proc/self/status gives no VmHWM; tfq needs Linux")
