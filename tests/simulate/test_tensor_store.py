"""Arrays in memory and in files behave alike, and the memory they take has a limit."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.simulate.tensor_store import TensorStore


def filled(limit, arrays):
    store = TensorStore(limit)
    for name, values in arrays.items():
        store.create(name, values.shape, str(values.dtype))
        half = len(values) // 2
        store.write(name, half, values[half:])  # in any order
        store.write(name, 0, values[:half])
    return store


ARRAYS = {
    "floats": np.random.default_rng(0).normal(size=(10, 3, 2)).astype(np.float32),
    "tokens": np.arange(50, dtype=np.int32).reshape(10, 5),
    "bytes": np.arange(10, dtype=np.uint8).reshape(10, 1),
}


@given(
    limit=st.integers(0, 600),
    start=st.integers(0, 12),
    length=st.one_of(st.none(), st.integers(0, 15)),
)
def test_a_part_reads_the_same_from_memory_and_from_a_file(limit, start, length):
    stop = None if length is None else start + length
    with contextlib.closing(filled(limit, ARRAYS)) as store:
        for name, values in ARRAYS.items():
            found = store.read(name, start, stop)
            assert found.dtype == values.dtype
            assert store.shape(name) == values.shape
            np.testing.assert_array_equal(found, values[start:stop])


@pytest.mark.parametrize("limit", [0, 10**6])
def test_reads_past_the_end_stop_there(limit):
    with contextlib.closing(filled(limit, ARRAYS)) as store:
        np.testing.assert_array_equal(store.read("floats", 8, 100), ARRAYS["floats"][8:])
        assert store.read("floats", 10).shape == (0, 3, 2)
        assert store.read("floats", 25, 30).shape == (0, 3, 2)


@pytest.mark.parametrize("limit", [0, 10**6])
def test_what_is_not_contiguous_is_written_as_it_reads(limit):
    values = np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2]
    with contextlib.closing(TensorStore(limit)) as store:
        store.create("x", (4, 3))
        store.write("x", 0, values)
        np.testing.assert_array_equal(store.read("x"), values.astype(np.float32))


@pytest.mark.parametrize("limit", [0, 10**6])
def test_a_part_read_is_not_for_writing(limit):
    with contextlib.closing(filled(limit, ARRAYS)) as store, pytest.raises(ValueError, match="read-only"):
        store.read("floats")[0] = 0


def in_files(store):
    return {name for name, found in store._stored.items() if found.file is not None}


def test_the_limit_holds_for_all_together_and_release_frees_room():
    store = TensorStore(1000)
    sizes = {"a": 100, "b": 100, "c": 100}
    with contextlib.closing(store):
        for name, count in sizes.items():
            store.create(name, (count,))
        assert in_files(store) == {"c"}  # 400 + 400 bytes leave 200
        assert "a" in store
        store.release("a")
        assert "a" not in store
        store.create("d", (150,))
        assert in_files(store) == {"c"}
        store.release("c")  # a file gives back no memory
        store.create("e", (1,))
        assert in_files(store) == {"e"}
        store.release("d")
        store.create("f", (151,))
        assert in_files(store) == {"e", "f"}


def test_a_chain_of_tensors_never_holds_more_than_the_limit():
    """As the walk does: one tensor made from the last, which is then released."""
    limit, size, resident = 4096, 256, []
    with contextlib.closing(TensorStore(limit)) as store:
        store.create("0", (4, size // 4))
        store.write("0", 0, np.ones((4, size // 4)))
        for index in range(1, 40):
            width = size // 4 * (1 + index % 9)
            store.create(str(index), (4, width))
            store.write(str(index), 0, np.full((4, width), store.read(str(index - 1)).mean() + 1))
            resident.append(sum(s.memory.nbytes for s in store._stored.values() if s.memory is not None))
            store.release(str(index - 1))
        assert store.read("39").mean() == 40
        assert 0 < max(resident) <= limit
        assert len({*resident}) > 3
    assert "39" not in store


def test_closing_closes_every_file():
    store = filled(0, ARRAYS)
    files = [found.file for found in store._stored.values()]
    store.close()
    assert all(file.closed for file in files)
    assert len(files) == 3
    store.close()
