"""A temporary directory of one run, in which all its temporary files lie: they go together, whoever made them.

It is locked by the processes of the run. One that nobody locks was left by a run that was killed, and the next removes
it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

from tfq.errors import UserError
from tfq.execution.locks import locked_directory, remove_stale

_PREFIX = "tfq-run-"
_LEAST_BYTES = 16 << 20  # TensorFlow alone writes some 100 kB
_VARIABLE = "TMPDIR"


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory, and the descriptor that holds its lock."""

    path: Path
    lock: int

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def run_directory() -> RunDirectory:
    """A new directory that this process and those that it starts from now on take for TMPDIR.

    Raises UserError where the system's temporary directory cannot be written or has no room.
    """
    base = _base()
    try:
        remove_stale(base, f"{_PREFIX}*")
        made = RunDirectory(*locked_directory(lambda: Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))))
    except OSError as error:
        raise UserError(
            f"cannot write temporary files to {base}: {error.strerror}; set {_VARIABLE} to another directory"
        ) from error
    os.environ[_VARIABLE] = str(made.path)
    tempfile.tempdir = None  # asked for again, it is looked up anew
    return made


def _base() -> Path:
    given = os.environ.get(_VARIABLE)
    if given:
        base = Path(given)
        if not base.is_dir():
            raise UserError(f"{_VARIABLE}={given} is not a directory; set it to one that can be written")
    else:
        try:
            base = Path(tempfile.gettempdir())
        except OSError as error:
            raise UserError(f"there is no temporary directory that can be written; set {_VARIABLE} to one") from error
    base = base.absolute()
    free = shutil.disk_usage(base).free
    if free < _LEAST_BYTES:
        raise UserError(
            f"the temporary directory {base} has {free / 2**20:.0f} MiB left, expected at least"
            f" {_LEAST_BYTES >> 20}; make room, or set {_VARIABLE} to another directory"
        )
    return base
