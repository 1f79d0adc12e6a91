import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.data.loading import load_samples
from tfq.data.samples import InputSignature, Samples, SampleWriter
from tfq.execution.resources import Resources


def samples(count=10, **changes):
    arrays = {"a": np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3), "b": np.arange(count, dtype=np.int32)}
    return Samples(**{"arrays": arrays, "indices": np.arange(count), "labels": np.arange(count) % 3, **changes})


def test_batches_cover_all_samples_in_order_and_the_last_is_smaller():
    batches = list(samples().batches(4))
    assert [len(b["b"]) for b in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b["a"] for b in batches]), samples().arrays["a"])


def test_batches_may_be_written_to_without_touching_the_samples():
    data = samples()
    for batch in data.batches(3):
        batch["a"][:] = -1
    np.testing.assert_array_equal(data.arrays["a"], samples().arrays["a"])


def test_take_keeps_every_field_aligned():
    taken = samples(names=tuple("abcdefghij")).take([7, 2])
    assert len(taken) == 2
    assert taken.names == ("h", "c")
    np.testing.assert_array_equal(taken.indices, [7, 2])
    np.testing.assert_array_equal(taken.labels, [1, 2])
    np.testing.assert_array_equal(taken.arrays["a"], samples().arrays["a"][[7, 2]])
    assert len(samples().take([])) == 0


def test_spread_samples_lie_at_even_distances():
    samples = Samples.of({"x": np.arange(10)})
    for count, positions in ((4, [0, 2, 5, 7]), (1, [0]), (10, range(10)), (99, range(10)), (0, [])):
        assert samples.spread(count).arrays["x"][:].tolist() == list(positions)


def test_what_is_taken_is_a_view_until_it_is_read():
    data = samples()
    taken = data.take([7, 2, 9]).take([2, 0])
    view = taken.arrays["a"]
    assert (view.shape, view.dtype, view.nbytes, len(view)) == ((2, 2, 3), np.float32, 48, 2)
    data.arrays["a"][9] = 5
    np.testing.assert_array_equal(view[0], np.full((2, 3), 5))
    np.testing.assert_array_equal(view[np.array([1, 0])], data.arrays["a"][[7, 9]])
    np.testing.assert_array_equal(list(view), data.arrays["a"][[9, 7]])
    view[:][:] = -1
    assert view[0].min() == 5
    assert [len(batch["b"]) for batch in data.take(range(5)).batches(2)] == [2, 2, 1]
    np.testing.assert_array_equal(taken.read()["b"], [9, 7])


@pytest.mark.parametrize(("limit", "kind"), [(0, np.memmap), (1000, np.ndarray)])
def test_what_is_stored_are_arrays_of_their_own(limit, kind):
    stored = samples(names=tuple("abcdefghij")).take([7, 2]).stored(limit)
    assert type(stored.arrays["a"]) is kind
    np.testing.assert_array_equal(stored.arrays["a"], samples().arrays["a"][[7, 2]])
    np.testing.assert_array_equal(stored.labels, [1, 2])
    assert stored.names == ("h", "c")


def test_extremes_are_those_of_all_samples():
    assert samples(100).extremes("b") == (0, 99)
    assert samples(100).take([40, 3]).extremes("a") == (18, 245)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(0, 400))
def test_writer_equals_an_array_whatever_the_memory_limit(slots, limit):
    # Slots are made contiguous: the first time each is seen it gets the next number.
    seen = {}
    order = [seen.setdefault(s, len(seen)) for s in slots]
    writer = SampleWriter(limit)
    expected = np.zeros((len(seen), 3), np.float32)
    for value, slot in enumerate(order):
        expected[slot] = value
        writer.write(slot, {"x": np.full(3, value, np.float32)}, np.int64(value))
    arrays, labels = writer.finish()
    np.testing.assert_array_equal(arrays["x"], expected)
    np.testing.assert_array_equal(labels, expected[:, 0])
    assert isinstance(arrays["x"], np.memmap) == (len(seen) * 20 > limit)
    with pytest.raises(ValueError, match="read-only"):
        arrays["x"][0] = 0


def test_representative_dataset_starts_anew_each_time_and_yields_one_sample_a_step():
    generate = samples(3).representative_dataset()
    for _ in range(2):
        items = list(generate())
        assert [{k: (v.shape, v.dtype) for k, v in i.items()} for i in items] == [
            {"a": ((1, 2, 3), np.float32), "b": ((1,), np.int32)}
        ] * 3
    np.testing.assert_array_equal(items[2]["a"][0], samples(3).arrays["a"][2])


def test_converter_matches_the_representative_dataset_by_input_name():
    import tensorflow as tf
    import tf_keras

    # Neither alphabetical nor the order in which the converter keeps them.
    inputs = [tf_keras.Input((n,), name=name) for name, n in (("zeta", 3), ("alpha", 5), ("mid", 2))]
    model = tf_keras.Model(inputs, [tf_keras.layers.Dense(1, name=f"d_{i.name}")(i) for i in inputs])
    tops = {"zeta": 1.0, "alpha": 10.0, "mid": 100.0}
    arrays = {i.name: np.full((4, i.shape[1]), tops[i.name], np.float32) for i in inputs}
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.representative_dataset = Samples(arrays, np.arange(4)).representative_dataset()
    content = converter.convert()
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=content).get_input_details()
    scales = {d["name"].removeprefix("serving_default_").removesuffix(":0"): d["quantization"][0] for d in found}
    assert scales == {name: pytest.approx(top / 255) for name, top in tops.items()}


def resident_file_pages():
    """Bytes of files that are mapped and resident."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * resource.getpagesize()


def test_memory_stays_bounded_whatever_the_size_of_the_npz(tmp_path):
    path = tmp_path / "large.npz"
    x = np.zeros((4000, 64, 64, 3), np.float32)  # 197 MB, deflated to almost nothing
    x[:, 0, 0, 0] = np.arange(4000)
    np.savez_compressed(path, x=x, y=np.arange(4000))
    total = x.nbytes
    del x
    signatures = [InputSignature("i", (64, 64, 3), "float32")]
    tracemalloc.start()
    try:
        loaded = load_samples(str(path), signatures, resources=Resources(memory_limit=8 << 20))
        before, mapped, seen = resident_file_pages(), 0, 0.0
        for batch in loaded.batches(64):
            seen += float(batch["i"][:, 0, 0, 0].sum())
            mapped = max(mapped, resident_file_pages() - before)
        few = loaded.take(range(0, 4000, 2))
        for batch in few.batches(64):
            seen += float(batch["i"][:, 0, 0, 0].sum())
            mapped = max(mapped, resident_file_pages() - before)
        stored = few.stored(8 << 20)
        mapped = max(mapped, resident_file_pages() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 190e6
    assert seen == 4000 * 3999 / 2 + 2 * 2000 * 1999 / 2
    assert isinstance(loaded.arrays["i"], np.memmap)
    assert isinstance(stored.arrays["i"], np.memmap)
    np.testing.assert_array_equal(stored.arrays["i"][:, 0, 0, 0], stored.indices)
    assert peak < 48 << 20
    assert mapped < 48 << 20
