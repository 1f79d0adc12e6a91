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


def without_output(others: bool) -> str:
    """The way out for an output that computes nothing; `others`: the model has more."""
    if others:
        return "take it out of the model's outputs"
    return "the model has no other output, so there is nothing to quantise: see whether it is the file that you mean"


def no_import(name: str, cause: str) -> UserError:
    """Of a module that the user names."""
    return UserError(
        f"`imports` names {name!r}, which cannot be imported ({cause}); install it, or put its folder on PYTHONPATH"
    )


def refuse(what: str, reason: str, way_out: str) -> UserError:
    return UserError(f"{what} cannot be taken: {reason}; {way_out}")


def independent(output: str, others: bool) -> UserError:
    """Refuses an output that is the same whatever the inputs; `others`: the model has some that are not."""
    return refuse(f"Output {output!r}", "it does not depend on the inputs", without_output(others))


def short_cause(error: BaseException) -> str:
    """The first line of a library's message, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return shortened(text)


def shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
