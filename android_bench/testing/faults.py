"""What can go wrong with a test device, on demand.

A device is given any number of faults; each waits for its occasion and strikes `times` times, then never again.
Faults of commands strike where the shell command contains the text `command` (every command contains ""); their
`after_seconds` count from the start of that command.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Offline:
    """The device takes the connection and never answers, as one that is still booting or whose adbd hangs."""

    times: int = 1


@dataclass(frozen=True)
class Unauthorized:
    """The device asks for a key and nobody taps "allow"."""

    times: int = 1


@dataclass(frozen=True)
class DropPush:
    """The connection is lost when `after_bytes` of a push have arrived."""

    after_bytes: int
    times: int = 1


@dataclass(frozen=True)
class StorageFull:
    """When `after_bytes` of a push have arrived, another app has taken all the rest; it keeps it."""

    after_bytes: int
    times: int = 1


@dataclass(frozen=True)
class Corrupt:
    """One bit of the pushed file changes on its way to the flash, and the push succeeds."""

    times: int = 1


@dataclass(frozen=True)
class Slow:
    """No more than `bytes_per_second` go through a push or a pull. Holds for as long as the device runs."""

    bytes_per_second: int


@dataclass(frozen=True)
class Hang:
    """The command neither starts nor ends."""

    command: str = ""
    times: int = 1


@dataclass(frozen=True)
class Disconnect:
    """The connection is lost while the command runs; the command goes on."""

    command: str = ""
    after_seconds: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class Kill:
    """What the command has started gets SIGKILL, as from Android's low-memory killer; its shell stays."""

    command: str = ""
    after_seconds: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class Reboot:
    """The device restarts while the command runs: every process dies, storage stays."""

    command: str = ""
    after_seconds: float = 0.0
    times: int = 1


Fault = Offline | Unauthorized | DropPush | StorageFull | Corrupt | Slow | Hang | Disconnect | Kill | Reboot
_F = TypeVar("_F", bound=Fault)


class Armed:
    """The faults of one device and how often each may still strike."""

    def __init__(self, faults: Sequence[Fault]):
        self._faults = list(faults)
        self._left = [float(getattr(fault, "times", math.inf)) for fault in faults]
        self._lock = threading.Lock()

    def strike(self, kind: type[_F], *, command: str = "", pushed: int = 0) -> _F | None:
        """The first fault of this kind with strikes left that this command, or this many pushed bytes, sets off."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                if not isinstance(fault, kind) or not self._left[number]:
                    continue
                if getattr(fault, "command", "") in command and getattr(fault, "after_bytes", 0) <= pushed:
                    self._left[number] -= 1
                    return fault
        return None
