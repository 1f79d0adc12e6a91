"""Class names from a text file, one a line."""

from __future__ import annotations

from pathlib import Path

from tfq.errors import UserError


def read_labels(path: str) -> tuple[str, ...]:
    """The names; none for an empty path. Raises UserError for a file that cannot be read as text."""
    if not path:
        return ()
    try:
        return tuple(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the labels in {path} cannot be read ({error}); give a text file, one name a line") from error
