"""Class names from a text file, one a line."""

from __future__ import annotations

from pathlib import Path

from tfq.errors import UserError
from tfq.execution.inputs import read_text

MOST_BYTES = 16 << 20


def read_labels(path: str) -> tuple[str, ...]:
    """The names; none for an empty path. Raises UserError for a file that holds no names, or an empty line."""
    if not path:
        return ()
    text = read_text(Path(path), what=f"the file of labels {path}", most=MOST_BYTES)
    names = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
    if not any(names):
        raise UserError(f"the file of labels {path} is empty; expected one class name a line")
    if "" in names:
        raise UserError(f"line {names.index('') + 1} of the labels {path} is empty; expected one class name a line")
    return tuple(names)
