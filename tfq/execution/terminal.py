"""Text on its way to a terminal, which obeys control characters: names from files must not reach it as they are."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

# C0 but tab and newline, DEL, C1; line and paragraph separators; what turns the direction of writing round.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BREAK = re.compile("[\t\n]")


def printable(text: str) -> str:
    """`text` with every control character written as Python writes it (`\\x1b`); tabs and newlines stay."""
    return _CONTROL.sub(_escaped, text)


def one_line(text: str) -> str:
    """`printable`, without tabs and newlines too: for a name within a line."""
    return _BREAK.sub(_escaped, printable(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class PrintableStream(io.TextIOWrapper):
    """A text stream to which everything is written `printable`; what its encoding lacks is escaped."""

    def __init__(self, descriptor: int, *, encoding: str, line_buffering: bool):
        raw = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        super().__init__(raw, encoding, errors="backslashreplace", line_buffering=line_buffering)

    def write(self, text: str) -> int:
        super().write(printable(text))
        return len(text)

    def write_control(self, text: str) -> None:
        """Write control characters that are tfq's own."""
        super().write(text)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send what the process writes to file descriptors 1 and 2, C++ included, nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "wb") as sink:
        saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
        try:
            for descriptor, _ in saved:
                os.dup2(sink.fileno(), descriptor)
            yield
        finally:
            for descriptor, copy in saved:
                os.dup2(copy, descriptor)
                os.close(copy)
