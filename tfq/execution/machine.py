"""The computer that a run is on: what its times are of."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
from pathlib import Path

from tfq.execution.predict import available_cores

_CPUINFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What times depend on.

    Attributes:
      cpu: the processor as it calls itself; the architecture where it does not.
      cores: those that this process may use.
      system: operating system and architecture.
      runtime: what runs the models, with its version.
    """

    cpu: str
    cores: int
    system: str
    runtime: str


def this_machine() -> Machine:
    """The computer that this process runs on."""
    runtime = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    return Machine(_cpu(), available_cores(), f"{platform.system()} {platform.machine()}", runtime)


def _cpu() -> str:
    """ARM kernels tell no name, other systems have no such file."""
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    found = re.search(r"^model name\s*: *(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
