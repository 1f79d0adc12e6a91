"""The words in which a model is refused: one line that names the layer, the reason and the way out."""

from __future__ import annotations

from tfq.errors import UserError

UNSAFE = (
    "run again with `allow_unsafe_deserialization=True` if you trust the file's author, or replace it by standard"
    " layers"
)


def import_of(module: object) -> str:
    """The way out for a class of that module."""
    shown = shortened(module, 100) if isinstance(module, str) and module.isprintable() else "its.module"
    return f"give `imports='{shown}'` if you trust that module; or {UNSAFE}"


class NoRuleError(UserError):
    """There is no rule for an operation in this form; it can be carried through as it is (`tfq.models.carried`)."""


def refuse(what: str, reason: str, way_out: str) -> UserError:
    return UserError(f"{what} cannot be taken: {reason}; {way_out}")


def short_cause(error: BaseException) -> str:
    """The first line of a library's message, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return shortened(text)


def shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
