"""What a run may take of the machine, and where it shows how far it is."""

from __future__ import annotations

import concurrent.futures
import dataclasses

from tfq.execution.progress import Progress, Silent


@dataclasses.dataclass(frozen=True, eq=False)
class Resources:
    """Handed to every stop that runs many samples.

    Attributes:
      memory_limit: bytes of samples and of what is computed of them that a stop keeps in memory; the rest lies in
        temporary files, or is computed of fewer samples at a time. What a single sample takes is always kept.
      workers: threads or processes that work on layers.
      progress: told of every sample, layer or step.
      executor: takes the work on layers in place of workers of this process's own (`tfq.execution.workers`).
    """

    memory_limit: int = 2**29
    workers: int = 1
    progress: Progress = dataclasses.field(default_factory=Silent)
    executor: concurrent.futures.Executor | None = None

    def batch(self, bytes_each: int, most: int) -> int:
        """Samples to work on at a time, `most` of them where so many fit; one takes `bytes_each`."""
        return max(1, min(most, self.memory_limit // max(1, bytes_each)))

    def silent(self) -> Resources:
        """The same without a word."""
        return dataclasses.replace(self, progress=Silent())


DEFAULT = Resources()
