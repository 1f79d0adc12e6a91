"""What comes back from a device: the runner's lines (FORMAT.md), the outputs, and what the device says of itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfq.errors import UserError

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Description:
    """A device.

    Attributes:
      name: for people: "Google Pixel 8", or the host's.
      serial: adb's, or "host".
      abi, system: what its programs are made for.
      emulated: why its timings mean nothing; "" where they do.
      properties: Android's of the SoC and the build, as far as they are there.
    """

    name: str
    serial: str
    abi: str
    system: str
    emulated: str
    properties: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a job left on a device.

    Attributes:
      device: it ran on.
      machine: the runner's last line of this kind.
      records: the runner's, by task; or made here for a task that took the device down: {"status": "device", ...}.
      outputs: local copies, by path in the job's folder.
      before, after: battery and thermal state as Android's services tell it; empty on Linux.
      notes: what happened on the way, such as restarts.
    """

    device: Description
    machine: Record
    records: Mapping[str, Record]
    outputs: Mapping[str, Path]
    before: Mapping[str, float]
    after: Mapping[str, float]
    notes: tuple[str, ...] = ()


def read_results(path: Path) -> tuple[Record, dict[str, Record]]:
    """(last machine line, task lines by id); a torn last line is none. Raises UserError for anything else."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; the runner has left no results") from error
    machine: Record = {}
    records: dict[str, Record] = {}
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            found = json.loads(line)
            if found["kind"] == "machine":
                machine = found
            else:
                records[found["id"]] = found
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} line {number}: expected a line of tfq_runner ({error!r})") from error
    if not machine:
        raise UserError(f"{path}: the line about the machine is missing; the runner was stopped at its very start")
    return machine, records
