"""JSON that comes from outside: read within bounds, and checked against the dataclass that it is to become.

A dataclass is the schema of its file. `typing.get_type_hints` says what each field holds:

    bool, int, float, str         exactly that; true is no int, a whole number is a float, floats are finite
    X | None, X | Y               null, or the first that fits
    Literal["a", "b"]             one of these
    tuple[X, ...], tuple[X, Y]    an array of any length, of this length
    Mapping[str, X]               an object with any names
    a dataclass                   an object with its fields; those without a default must be there
    Any                           anything

Everything else ends in a UserError of one line that names the file, the field, what was got and what was expected.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import re
import sys
import types
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from tfq.errors import UserError
from tfq.execution.inputs import decoded, read_regular

MOST_BYTES = 64 << 20
_DEEPEST = 100
_LARGEST = 2**63
_SHOWN = 40
_STRING = re.compile(r'"(?:\\.|[^"\\])*"?', re.DOTALL)
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

Kind = TypeVar("Kind")
_Rule = str | Mapping[type, str]  # the arguments `unknown` of `built` and `read` of `check_read`


def read_json(path: Path, *, what: str, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file; arguments and errors as in `tfq.execution.inputs.read_regular`, and `parse_json`."""
    return parse_json(read_regular(path, what=what, most=most), what)


def parse_json(content: bytes | str, what: str) -> Any:
    """The value of a JSON text. Raises UserError, which calls it `what`, for anything that is not plain JSON.

    NaN and infinities, names that come twice in an object, and more than 100 levels are refused too.
    """
    text = decoded(content, what) if isinstance(content, bytes) else content
    if not text.strip():
        raise UserError(f"{what} cannot be read: it is empty; expected JSON")
    if _levels(text) > _DEEPEST:
        raise UserError(f"{what} cannot be read: it nests more than {_DEEPEST} levels deep; no file of tfq does")

    def constant(name: str) -> None:
        raise UserError(f"{what} holds {name}, which is no number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{what} names {shown(twice)} twice in one object")
        return found

    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} cannot be read: it is no JSON ({error})") from error


def built(kind: type[Kind], data: Any, *, what: str, unknown: str = "") -> Kind:
    """The dataclass `kind` of what `parse_json` gave; messages call the file `what`.

    Raises UserError for data of another shape or type, for what `__post_init__` raises as ValueError, and for a field
    that `kind` has not, with `unknown` added to the message.
    """
    found: Kind = _value(kind, data, what, "", unknown)
    return found


def check_read(kind: type, data: Any, *, what: str, read: Mapping[type, str]) -> None:
    """Check what is read of a dataclass `kind` that was written with more, and perhaps with what is not known.

    `read` names, by dataclass, the fields that have to be there; others are not looked at. Raises UserError as `built`.
    """
    _value(kind, data, what, "", read)


def checked_types(found: Any, name: Any) -> None:
    """Check the fields of a dataclass that was made in Python; `name` gives what messages call a field.

    Raises UserError for a field whose value is of another type; a list counts as a tuple nowhere.
    """
    own: Any = type(found)
    for field, kind in _hints(own).items():
        value = getattr(found, field)
        if isinstance(value, list):
            raise UserError(f"{name(field)} is a list; expected a tuple")
        _value(kind, value, name(field), "", "")


def shown(value: Any) -> str:
    """A value as messages show it: short, on one line, as JSON where it can be."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _levels(text: str) -> int:
    """How deep brackets nest, outside of strings."""
    brackets = re.finditer(r"[\[\]{}]", _STRING.sub("", text))
    return max(itertools.accumulate(1 if found[0] in "[{" else -1 for found in brackets), default=0)


@functools.cache
def _hints(kind: Hashable, only: str | None = None) -> Mapping[str, Any]:
    """Field -> type; of `only` these fields, others may have types that are not loaded."""
    own = typing.cast(type, kind)
    if only is not None:
        return {name: eval(own.__annotations__[name], vars(sys.modules[own.__module__])) for name in only.split()}
    found = typing.get_type_hints(own)
    return {field.name: found[field.name] for field in dataclasses.fields(own)}


def _value(kind: Any, data: Any, what: str, where: str, rule: _Rule) -> Any:
    """`data` as `kind`. `where` is the field's path, "" for the whole."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _of_union(kind, data, what, where, rule)
    if origin is Literal and data in arguments and isinstance(data, str):
        return data
    if origin is tuple and isinstance(data, (list, tuple)):
        if arguments[-1] is not Ellipsis and len(arguments) != len(data):
            raise _wrong(kind, data, what, where)
        kinds = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        items = enumerate(zip(kinds, data, strict=True))
        return tuple(_value(k, item, what, f"{where}[{i}]", rule) for i, (k, item) in items)
    if origin in (Mapping, dict) and isinstance(data, Mapping):
        return {name: _value(arguments[1], x, what, _joined(where, name), rule) for name, x in data.items()}
    if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
        return _of_dataclass(typing.cast(type, kind), data, what, where, rule)
    if isinstance(data, int) and abs(data) >= _LARGEST:
        raise _wrong(kind, data, what, where)
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data):
        return float(data)
    if kind in (bool, int, str) and type(data) is kind:
        return data
    raise _wrong(kind, data, what, where)


def _of_union(kind: Any, data: Any, what: str, where: str, rule: _Rule) -> Any:
    choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
    if data is None and len(choices) < len(typing.get_args(kind)):
        return None
    for choice in choices:
        try:
            return _value(choice, data, what, where, rule)
        except UserError:
            whole = typing.get_origin(choice) is None and not dataclasses.is_dataclass(choice)
            if len(choices) == 1 and data is not None and not whole:  # it tells which part is wrong
                raise
    raise _wrong(kind, data, what, where)


def _of_dataclass(kind: type, data: Mapping[str, Any], what: str, where: str, rule: _Rule) -> Any:
    if isinstance(rule, str):
        hints = _hints(kind)
        strange = [name for name in data if name not in hints]
        if strange:
            raise UserError(f"{what} has the unknown field {_place(_joined(where, strange[0]))}{rule}")
        fields = dataclasses.fields(kind)
        needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    else:
        hints = _hints(kind, rule.get(kind, ""))
        needed = list(hints)
    missing = [name for name in needed if name not in data]
    if missing:
        raise UserError(f"{what} has no {_place(_joined(where, missing[0]))}; expected {_expected(hints[missing[0]])}")
    values = {n: _value(hints[n], data[n], what, _joined(where, n), rule) for n in hints if n in data}
    try:
        return kind(**values) if isinstance(rule, str) else data
    except (UserError, ValueError, OverflowError) as error:
        raise UserError(f"{what}: {f'{_place(where)}: ' if where else ''}{error}") from error


def _wrong(kind: Any, data: Any, what: str, where: str) -> UserError:
    subject = f"{what}: {_place(where)}" if where else what
    return UserError(f"{subject} is {shown(data)}; expected {_expected(kind)}")


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _place(where: str) -> str:
    text = where if where.isprintable() else ascii(where)
    return text if len(text) <= 2 * _SHOWN else text[: 2 * _SHOWN - 3] + "..."


def _expected(kind: Any) -> str:
    """What a field holds, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _NAMES:
        return _NAMES[kind]
    if kind is type(None):
        return "null"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_expected, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return "an array" if arguments[-1] is Ellipsis else f"an array of {len(arguments)}"
    return "anything" if kind is Any else "an object"
