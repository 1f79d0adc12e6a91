"""What is checked of a command's arguments before and after absl reads them."""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags
from tfq_tools.tfq import COMMANDS

from tfq.errors import UserError
from tfq.execution.inputs import check_encodable, read_text

_FLAG_FILES = ("--flagfile", "-flagfile")
_MOST_BYTES = 1 << 20
_DEEPEST = 8
_LARGEST = 2**32 - 1
_OPTION = re.compile(r"`([a-z][a-z_]*(?:=[^`]*)?)`")
_FLAGS = {
    "calibration": "calibration_data",
    "evaluation": "evaluation_data",
    "imports": "import",
}  # of the options that have other names


def expanded(arguments: Sequence[str], values: flags.FlagValues, *, where: str = "", depth: int = 0) -> list[str]:
    """The arguments with the lines of every --flagfile in its place.

    Lines that are empty or begin with # or // are comments, as in absl, which would wait for a pipe and read a device
    for ever. Of a flag in several places the last one counts, as in absl, so that the command line can change what a
    file says.

    Args:
      arguments: those of one place, the command line or a file.
      values: the flags of the command.
      where: the place, for messages.

    Raises UserError for a file that cannot be read or reads itself, for bytes that are no UTF-8, and for a flag that
    one place gives two values.
    """
    _check_once(arguments, values, where)
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
        found += expanded(wanted, values, where=f"--flagfile={path}: ", depth=depth + 1)
    return found


def parsed(name: str, arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """What of a command's arguments stands without a flag; the flags have their values then.

    Args:
      name: of the command.
      arguments: of its call.
      values: its flags.

    Raises UserError as `expanded` does, and for a flag that it has not; flags.Error for a value that none can have.
    """
    try:
        return list(values([name, *expanded(arguments, values)])[1:])
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown(name, error.flagname, values)) from None


def _unknown(name: str, given: str, values: flags.FlagValues) -> str:
    """That a command has no flag of this name, which command does, and why this one does not; or what is near."""
    modules = {f"tfq-{command}": importlib.import_module(f"tfq_tools.{command}") for command in COMMANDS}
    reasons = getattr(modules.get(name), "ABSENT", {})
    for flag in (given, given.removeprefix("no")):
        commands = [command for command, module in modules.items() if flag in module.FLAGS]
        if commands:
            why = f", {reasons[flag]}" if flag in reasons else ""
            has = "have" if len(commands) > 1 else "has"
            return f"--{flag} is no flag of {name}{why}; {' and '.join(commands)} {has} it"
    near = " or ".join(f"--{other}" for other in difflib.get_close_matches(given, values, n=2))
    return f"there is no flag --{given}; {f'did you mean {near}?' if near else f'{name} --help lists the flags'}"


def _check_once(arguments: Sequence[str], values: flags.FlagValues, where: str) -> None:
    """Raises UserError for a flag with two values, of which absl would take the last; some flags may be repeated."""
    given: dict[str, str] = {}
    for name, value in _given(arguments, values):
        if given.setdefault(name, value) != value and not isinstance(values[name], flags.MultiFlag):
            raise UserError(f"{where}--{name} is given twice, as {given[name]!r} and as {value!r}; give it once")


def _given(arguments: Sequence[str], values: flags.FlagValues) -> Iterator[tuple[str, str]]:
    """(flag, value) as absl reads them, up to the first argument that is no flag."""
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        opposite = name.removeprefix("no")
        if name not in values and opposite in values and values[opposite].boolean:
            name, equals, value = opposite, "=", "false"
        if name not in values:
            continue
        if not equals:
            value = "true" if values[name].boolean else rest.pop(0) if rest else ""
        if f"--{name}" not in _FLAG_FILES:
            yield name, value


def with_flags(text: str) -> str:
    """The text with the library's options, as `weight_bits` and `pipeline='light'` in backquotes, written as flags."""
    return _OPTION.sub(lambda option: as_flag(option[1]), text)


def as_flag(option: str) -> str:
    """An option of the library, as `weight_bits` or `pipeline='light'`, written as a flag."""
    field, equals, value = option.partition("=")
    name = _FLAGS.get(field, field)
    if not equals or value == "True":
        return f"--{name}"
    return f"--no{name}" if value == "False" else f"--{name}={value.strip(chr(39))}"


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
