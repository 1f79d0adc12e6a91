"""JSON from outside: what is refused, and that it becomes the dataclass that is its schema."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.execution.inputs import check_room, read_regular, read_text
from tfq.execution.json_files import built, check_read, parse_json, read_json


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class Whole:
    flag: bool
    count: int
    kind: Literal["a", "b"] = "a"
    share: float | None = None
    pair: tuple[int, int] = (0, 0)
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = dataclasses.field(default_factory=dict)
    rest: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is below 0")


GOOD = {"flag": True, "count": 3, "share": 1, "parts": [{"name": "x"}], "by_name": {"y": {"name": "z", "size": 2}}}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_it_becomes_the_dataclass():
    found = built(Whole, GOOD, what="f")
    assert found == Whole(True, 3, "a", 1.0, (0, 0), (Part("x"),), {"y": Part("z", 2.0)})
    assert isinstance(found.share, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "f is an array of 0; expected an object"),
        (None, "f is null; expected an object"),
        (GOOD | {"flag": "false"}, "f: flag is 'false'; expected true or false"),
        (GOOD | {"flag": 0}, "f: flag is 0; expected true or false"),
        (GOOD | {"count": 1.0}, "f: count is 1.0; expected a whole number"),
        (GOOD | {"count": True}, "f: count is true; expected a whole number"),
        (GOOD | {"count": -1}, "f: count is below 0"),
        (GOOD | {"kind": "c"}, "f: kind is 'c'; expected one of a, b"),
        (GOOD | {"kind": []}, "f: kind is an array of 0; expected one of a, b"),
        (GOOD | {"share": float("inf")}, "f: share is inf; expected a number or null"),
        (GOOD | {"pair": [1]}, "f: pair is an array of 1; expected an array of 2"),
        (GOOD | {"pair": "ab"}, "f: pair is 'ab'; expected an array of 2"),
        (GOOD | {"parts": [{"name": "x"}, {"name": 1}]}, "f: parts[1].name is 1; expected a text"),
        (GOOD | {"parts": [{}]}, "f has no parts[0].name; expected a text"),
        (GOOD | {"parts": {}}, "f: parts is an object of 0 fields; expected an array"),
        (GOOD | {"by_name": {"y": 1}}, "f: by_name.y is 1; expected an object"),
        (GOOD | {"more": 1}, "f has the unknown field more"),
        ({"flag": True}, "f has no count; expected a whole number"),
    ],
)
def test_wrong_data_is_named(data, message):
    with pytest.raises(UserError) as caught:
        built(Whole, data, what="f")
    assert str(caught.value) == message


def test_only_what_is_read_has_to_be_there_and_fit():
    read = {Whole: "flag parts", Part: "size"}
    check_read(Whole, {"flag": True, "parts": [{"size": 1, "name": 1}], "more": 1}, what="f", read=read)
    with pytest.raises(UserError, match=r"f has no parts\[0\].size; expected a number"):
        check_read(Whole, {"flag": True, "parts": [{"name": "x"}]}, what="f", read=read)


@given(ANYTHING)
def test_anything_is_built_or_an_error_of_one_line(data):
    try:
        assert isinstance(built(Whole, data, what="f"), Whole)
    except UserError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_json_or_an_error(content):
    try:
        json.dumps(parse_json(content, "f"))
    except UserError as error:
        assert str(error).startswith("f ")  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "it is no JSON"),
        (b"[" * 200_000, "nests more than 100 levels"),
        (b'{"a":' * 200_000, "nests more than 100 levels"),
        (b"[NaN]", "NaN, which is no number of JSON"),
        (b"-Infinity", "-Infinity, which is no number of JSON"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b"1" * 10_000, "it is no JSON"),
        ("{}".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\xff{}", "is no UTF-8 text (byte 0 is 0xff)"),
        (b"{}\0", "holds null bytes"),
    ],
)
def test_what_is_no_plain_json(content, message):
    with pytest.raises(UserError) as caught:
        parse_json(content, "f")
    assert message in str(caught.value)


def test_brackets_in_strings_do_not_nest_and_a_byte_order_mark_is_fine():
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(["[" * 1000, '\\"{']).encode(), "f") == ["[" * 1000, '\\"{']


@pytest.fixture
def strange(tmp_path):
    """Paths that are no regular file, by what messages call them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        yield {
            "a pipe": tmp_path / "pipe",
            "a socket": tmp_path / "socket",
            "a device": Path("/dev/zero"),
            "a directory": tmp_path,
            "no such file": tmp_path / "none",
            "symbolic links": tmp_path / "loop",
            "null byte": Path("a\0b"),
            "File name too long": tmp_path / ("x" * 300),
        }


def test_what_is_no_regular_file_is_refused_at_once(strange):
    for message, path in strange.items():
        with pytest.raises(UserError, match=message):
            read_json(path, what="f")


def test_a_larger_file_is_refused(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="f is larger than the 1 MiB that are read of such a file"):
        read_regular(tmp_path / "large", what="f", most=1 << 20)
    (tmp_path / "fits").write_bytes(struct.pack("<I", 5))
    assert read_regular(tmp_path / "fits", what="f", most=4) == struct.pack("<I", 5)
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa")
    assert read_text(tmp_path / "text", what="f", most=4) == "a"


def test_room_for_temporary_files():
    check_room(1, "f")
    with pytest.raises(UserError, match=r"f needs .* GiB of temporary files, and .* GiB free"):
        check_room(1 << 60, "f")
