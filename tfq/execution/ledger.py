"""Numbers that take long to measure, kept line by line, so that a run that was killed goes on where it stopped.

A JSON-lines file: first {"measures": what, "depends_on": digest}, then one {"key": [...], "value": number} for each
result, on the disk before the next is measured. Python writes and reads a float without loss. What a killed run left
of its last line is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tfq.errors import UserError
from tfq.execution.files import check_file
from tfq.execution.json_files import MOST_BYTES, built, parse_json


@dataclasses.dataclass(frozen=True)
class _Result:
    """A line of the file."""

    key: tuple[str, ...]
    value: float


class Ledger(contextlib.AbstractContextManager):
    """The open file; a context manager. `values` are the results so far, by key.

    Args:
      path: of the file; it is made where there is none.
      measures: what the numbers are, in words.
      depends_on: digest of everything that they depend on.

    Raises:
      UserError: the file belongs to another run, is used by one at this moment, is none of this kind or cannot be
        written.
    """

    def __init__(self, path: Path, *, measures: str, depends_on: str):
        self.values: dict[tuple[str, ...], float] = {}
        self._path = path
        check_journal(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("a+b")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot write the journal {path}: {reason}; name another file") from error
        try:
            self._lock()
            self._read({"measures": measures, "depends_on": depends_on})
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: tuple[str, ...], value: float) -> None:
        """Note a result down; one that is not finite, which JSON has not, is measured anew next time."""
        if math.isfinite(value):
            self._append({"key": list(key), "value": value})
        self.values[key] = value

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run writes the journal {self._path} at this moment; wait for it, or name another file"
            ) from error

    def _read(self, header: dict[str, str]) -> None:
        self._file.seek(0)
        content = self._file.read(MOST_BYTES + 1)
        whole = content[: content.rfind(b"\n") + 1]
        foreign = f"{self._path} is not a journal of tfq, or it was edited; delete it, or name another file"
        if len(content) > MOST_BYTES or (not whole and not _line(header).startswith(content)):
            raise UserError(foreign)
        try:
            lines = [parse_json(line, f"line {number}") for number, line in enumerate(whole.split(b"\n")[:-1], 1)]
            found = lines[0] if lines else header
            results = [built(_Result, line, what=f"line {number}") for number, line in enumerate(lines[1:], 2)]
        except UserError as error:
            raise UserError(f"{foreign} ({error})") from error
        self.values = {result.key: result.value for result in results}
        if found != header:
            raise UserError(
                f"the journal {self._path} was written for another model, other samples or another method;"
                " delete it to measure anew, or name another file"
            )
        self._file.truncate(len(whole))
        if not lines:
            self._append(header)

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            self._file.write(_line(line))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write the journal {self._path}: {error.strerror}; make room") from error


def check_journal(path: Path) -> None:
    """Raise UserError where this file cannot be a journal: it is none, or cannot be written."""
    try:
        check_file(path, regular=True)
    except UserError as error:
        raise UserError(f"cannot write the journal {path}: {error}") from error


def _line(values: Mapping[str, object]) -> bytes:
    return json.dumps(values).encode() + b"\n"
