"""Many jobs on a folder that several machines share: each shard has its part, and a journal of what it has done.

Job k of the list belongs to shard k mod n, so two shards never do the same job, and need not know of each other. The
journal is locked while its shard is at work: the same shard cannot run twice. What a job gives appears whole or not at
all; so a shard that is killed and started again does what is not there yet.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tfq.errors import UserError
from tfq.execution.ledger import Ledger
from tfq.execution.resources import Resources
from tfq.execution.workers import spread

DONE = "done"
Job = TypeVar("Job")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """Of "3/16"; the whole of "". Raises UserError for what is no part."""
        if not text:
            return cls()
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            count = int(found[2]) if found and int(found[2]) else 16
            raise UserError(
                f"--shard is {text!r}; it must be a part and the number of parts, from 1/{count} to {count}/{count}"
            )
        return cls(int(found[1]), int(found[2]))

    def part(self, jobs: Mapping[str, Job]) -> dict[str, Job]:
        """Its jobs of all, in their order."""
        return dict(list(jobs.items())[self.number - 1 :: self.count])

    def named(self, name: str) -> str:
        """A file's name that no other shard has."""
        return name if self.count == 1 else f"{name}-{self.number}-of-{self.count}"


def worked_off(
    jobs: Mapping[str, tuple[Any, ...]],
    work: Callable[..., str],
    *,
    is_done: Callable[[str], bool],
    journal: Path,
    resources: Resources,
) -> Iterator[tuple[str, str]]:
    """(name, what became of it) of every job, those that are done already first.

    Args:
      jobs: arguments of `work` by name.
      work: says `DONE`, or why it is not.
      is_done: whether what a job gives is there.
      journal: file of the jobs done, with their seconds.
      resources: whose workers or executor take the jobs.

    Raises:
      UserError: the journal is used by another process at this moment, or cannot be written.
    """
    with Ledger(journal, measures="seconds of every job done", depends_on="the folder that it lies in") as ledger:
        waiting = []
        for name in jobs:
            if not is_done(name):
                waiting.append(name)
                continue
            if (name,) not in ledger.values:  # killed before it was noted down
                ledger.add((name,), 0.0)
            yield name, DONE
        with spread(resources, work) as apart:
            for number, (outcome, seconds) in apart(_timed, ((work, *jobs[name]) for name in waiting)):
                if outcome == DONE:
                    ledger.add((waiting[number],), seconds)
                yield waiting[number], outcome


def _timed(work: Callable[..., str], *arguments: Any) -> tuple[str, float]:
    """(what the work says, seconds)."""
    start = time.monotonic()
    return work(*arguments), round(time.monotonic() - start, 3)
