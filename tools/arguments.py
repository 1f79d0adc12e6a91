"""What is checked of a command's arguments before and after absl reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from tfq.errors import UserError
from tfq.execution.inputs import check_encodable, read_text

_FLAG_FILES = ("--flagfile", "-flagfile")
_MOST_BYTES = 1 << 20
_DEEPEST = 8
_LARGEST = 2**32 - 1
_OPTION = re.compile(r"`([a-z][a-z_]*)(?:=([^`]*))?`")
_FLAGS = {
    "calibration": "calibration_data",
    "evaluation": "evaluation_data",
    "imports": "import",
}  # of the options that have other names


def expanded(arguments: Sequence[str], *, depth: int = 0) -> list[str]:
    """The arguments with the lines of every --flagfile in its place.

    Lines that are empty or begin with # or // are comments, as in absl, which would wait for a pipe and read a device
    for ever.

    Raises UserError for a file that cannot be read or reads itself, and for bytes that are no UTF-8.
    """
    found: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        check_encodable(argument, "an argument")
        if argument == "--":
            return [*found, argument, *rest]
        name, equals, path = argument.partition("=")
        if name not in _FLAG_FILES:
            found.append(argument)
            continue
        if not equals:
            path = rest.pop(0) if rest else ""
        if depth == _DEEPEST:
            raise UserError(f"--flagfile={path}: flag files name each other more than {_DEEPEST} deep")
        text = read_text(Path(path).expanduser(), what=f"--flagfile={path}", most=_MOST_BYTES)
        lines = [line.strip() for line in text.splitlines()]
        wanted = [line for line in lines if line and not line.startswith(("#", "//"))]
        found += expanded(wanted, depth=depth + 1)
    return found


def with_flags(text: str) -> str:
    """The text with the library's options, as `weight_bits` and `pipeline='light'` in backquotes, written as flags."""

    def flag(option: re.Match[str]) -> str:
        name, value = _FLAGS.get(option[1], option[1]), option[2]
        if value in (None, "True"):
            return f"--{name}"
        return f"--no{name}" if value == "False" else f"--{name}={value.strip(chr(39))}"

    return _OPTION.sub(flag, text)


def check_numbers(values: flags.FlagValues) -> None:
    """Raises UserError for a number that no command can use: NaN, infinite, or beyond 32 bits."""
    for name in values:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name} is {value}; it must be a finite number")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise UserError(f"--{name} has {len(str(abs(value)))} digits; it must be at most {_LARGEST}")


def check_idle(values: flags.FlagValues, acts: Mapping[str, bool], instead: str) -> None:
    """Raises UserError for a flag that is given and does not act; `instead` says why, and what to do."""
    for name, active in acts.items():
        if values[name].present and not active:
            raise UserError(f"--{name} is given and {instead}")
