"""The tensor container against an independent writer, and hostile files."""

from __future__ import annotations

import math
import pathlib
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp
from tfq_bench.tensors import Column, read_tensors, write_tensors

from tfq.errors import UserError

CODES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10}


def expected_bytes(arrays: list[tuple[str, np.ndarray]]) -> bytes:
    """FORMAT.md, written down once more."""
    header = 20 + sum(4 + len(n.encode()) + 16 + 4 * (a.ndim - 1) for n, a in arrays)
    parts, data, end = [b"TFQT" + struct.pack("<IQI", 1, len(arrays[0][1]), len(arrays))], b"", header
    for name, array in arrays:
        offset = math.ceil(end / 64) * 64
        data += b"\0" * (offset - end) + array.tobytes()
        end = offset + array.nbytes
        dims = array.shape[1:]
        parts.append(struct.pack("<I", len(name.encode())) + name.encode())
        parts.append(struct.pack("<iI", CODES[array.dtype.name], len(dims)))
        parts.append(b"".join(struct.pack("<i", d) for d in dims) + struct.pack("<Q", offset))
    return b"".join(parts) + data


@st.composite
def containers(draw: st.DrawFn) -> list[tuple[str, np.ndarray]]:
    samples = draw(st.integers(1, 5))
    arrays = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
        array = draw(hnp.arrays(draw(st.sampled_from(sorted(CODES))), (samples, *shape)))
        arrays.append((draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), array))
    return arrays


def write(path: pathlib.Path, arrays: list[tuple[str, np.ndarray]], block: int = 2) -> bytes:
    def blocks(array: np.ndarray) -> list[np.ndarray]:
        return [array[i : i + block] for i in range(0, len(array), block)]

    columns = [Column(n, a.dtype, a.shape[1:], lambda a=a: blocks(a)) for n, a in arrays]  # type: ignore[misc]
    write_tensors(path, len(arrays[0][1]), columns)
    return path.read_bytes()


@hypothesis.given(containers())
def test_what_is_written_is_the_format_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[tuple[str, np.ndarray]]
) -> None:
    path = tmp_path_factory.mktemp("c") / "t"
    assert write(path, arrays) == expected_bytes(arrays)
    found = read_tensors(path)
    assert [(n, a.dtype, a.shape, a.tobytes()) for n, a in found] == [
        (n, a.dtype, a.shape, a.tobytes()) for n, a in arrays
    ]


@hypothesis.given(containers(), st.data())
def test_a_file_cut_off_or_with_bytes_added_is_refused(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[tuple[str, np.ndarray]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("c") / "t"
    content = write(path, arrays)
    length = data.draw(st.integers(0, len(content) - 1))
    for broken in (content[:length], content + b"x"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="container"):
            read_tensors(path)


@hypothesis.given(containers(), st.integers(0, 150), st.integers(0, 255))
def test_a_broken_byte_never_leads_outside_the_file(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[tuple[str, np.ndarray]], place: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("c") / "t"
    content = bytearray(write(path, arrays))
    content[place % len(content)] = value
    path.write_bytes(content)
    try:
        found = read_tensors(path)
    except UserError:
        return
    assert sum(a.nbytes for _, a in found) <= len(content)


def test_what_the_runner_cannot_take(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"'s'.*which tfq-bench cannot feed"):
        write_tensors(tmp_path / "t", 1, [Column("s", np.dtype("S4"), (1,), list)])
    with pytest.raises(ValueError, match="got 0 samples, expected 2"):
        write_tensors(tmp_path / "t", 2, [Column("x", np.dtype("int8"), (1,), list)])
    with pytest.raises(UserError, match="no tensors can be read"):
        read_tensors(tmp_path / "none")
