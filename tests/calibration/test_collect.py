"""Collected statistics against the raw activations of the same model."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from tfq.calibration import collect
from tfq.calibration.collect import collect_statistics
from tfq.calibration.histogram import histogram
from tfq.errors import UserError
from tfq.execution.resources import Resources
from tfq.models.graph import Graph, Node, build_model


def small_graph():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
    dense = rng.normal(size=(9, 4)).astype(np.float32)
    nodes = (
        Node("image", "Input", {"shape": (12, 16, 3), "dtype": "float32"}),
        Node("extra", "Input", {"shape": (1,), "dtype": "float32"}),
        Node(
            "conv",
            "Conv2D",
            {"filters": 8, "kernel_size": (3, 3), "padding": "same"},
            ("image",),
            {"kernel": kernel, "bias": np.zeros(8, np.float32)},
            activation="relu6",
        ),
        Node("pool", "GlobalAveragePooling2D", {}, ("conv",)),
        Node("join", "Concatenate", {}, ("pool", "extra")),
        Node("scores", "Dense", {"units": 4}, ("join",), {"kernel": dense, "bias": np.zeros(4, np.float32)}),
    )
    return Graph(nodes, ("image", "extra"), ("scores",))


NAMES = ("image", "conv", "pool", "join", "scores")


def samples(count):
    rng = np.random.default_rng(1)
    scale = np.linspace(0.2, 2.0, count).reshape(-1, 1, 1, 1)
    return {
        "image": (rng.normal(size=(count, 12, 16, 3)) * scale).astype(np.float32),
        "extra": rng.normal(size=(count, 1)).astype(np.float32),
    }


def batches(data, size):
    count = len(data["image"])
    return [{name: x[i : i + size] for name, x in data.items()} for i in range(0, count, size)]


def raw_activations(graph, data):
    model = build_model(graph, outputs=NAMES)
    outputs = model([data["image"], data["extra"]], training=False)
    return {name: np.asarray(x) for name, x in zip(NAMES, outputs, strict=True)}


@pytest.fixture(scope="module")
def collected():
    data = samples(70)
    return data, collect_statistics(small_graph(), batches(data, 16), tensors=NAMES, total=70)


def test_extremes_are_those_of_all_elements_and_each_part_has_its_samples(collected):
    data, found = collected
    for name, x in raw_activations(small_graph(), data).items():
        for part, mine in ((found.everything.first, x[::2]), (found.everything.second, x[1::2])):
            assert part[name].samples == len(mine)
            low = 0.0 if name == "conv" else mine.min()
            np.testing.assert_allclose((part[name].minimum, part[name].maximum), (low, mine.max()), rtol=1e-5)


def test_averages_are_the_bias_corrected_ones_of_a_plain_loop(collected):
    data, found = collected
    for name, x in raw_activations(small_graph(), data).items():
        average = weight = 0.0
        for i, sample in enumerate(x):
            if i % 2 == 0:
                average = 0.99 * average + 0.01 * float(sample.max())
                weight = 0.99 * weight + 0.01
        assert found.everything.first[name].average_maximum == pytest.approx(average / weight, rel=1e-5)


def test_histograms_hold_a_subsample_of_every_sample(collected):
    data, found = collected
    raw = raw_activations(small_graph(), data)
    for name, elements in (("pool", 8), ("scores", 4)):  # small enough to be taken whole
        assert found.everything.first[name].histogram.total == raw[name][::2].size == elements * 35
    flat = data["image"][::2].reshape(35, -1)
    expected = histogram(flat[:, :: collect._stride((12, 16, 3))])
    np.testing.assert_array_equal(found.everything.first["image"].histogram.counts, expected.counts)
    taken = found.everything.first["conv"].histogram
    assert 35 * collect.FEWEST_ELEMENTS / 2 < taken.total <= 35 * 12 * 16 * 8 * collect.SHARE
    assert taken.zeros / taken.total == pytest.approx((raw["conv"][::2] == 0).mean(), abs=0.03)


def test_result_does_not_depend_on_the_batch_size_of_the_source(collected):
    data, found = collected
    again = collect_statistics(small_graph(), batches(data, 7), tensors=NAMES)
    for part, other in (
        (found.everything.first, again.everything.first),
        (found.everything.second, again.everything.second),
    ):
        for name in NAMES:
            a, b = part[name], other[name]
            assert (a.minimum, a.maximum, a.average_minimum) == (b.minimum, b.maximum, b.average_minimum)
            np.testing.assert_array_equal(a.histogram.counts, b.histogram.counts)


def test_memory_bound_shrinks_the_batch_and_changes_nothing(collected):
    data, found = collected
    tight = collect_statistics(
        small_graph(), batches(data, 70), tensors=NAMES, resources=Resources(memory_limit=3 * 4 * 12 * 16 * 11)
    )
    for name in NAMES:
        assert tight.everything.first[name].samples == found.everything.first[name].samples
        np.testing.assert_allclose(
            tight.everything.first[name].maximum, found.everything.first[name].maximum, rtol=1e-5
        )


def test_extremes_are_exact_wherever_a_grid_depends_on_them():
    nodes = (
        Node("x", "Input", {"shape": (40, 40, 4), "dtype": "float32"}),
        Node("pad", "ZeroPadding2D", {"padding": ((1, 1), (1, 1))}, ("x",)),
        Node("gate", "Sigmoid", {}, ("pad",)),
        Node("product", "Multiply", {}, ("pad", "gate")),
    )
    x = np.random.default_rng(0).normal(size=(6, 40, 40, 4)).astype(np.float32)
    found = collect_statistics(
        Graph(nodes, ("x",), ("product",)), [{"x": x}], tensors=["x", "pad", "gate", "product"]
    ).everything.first
    padded = np.pad(x[::2].astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    product = padded / (1 + np.exp(-padded))
    assert (found["x"].minimum, found["x"].maximum) == (x[::2].min(), x[::2].max())
    assert found["product"].maximum == pytest.approx(product.max(), rel=1e-5)
    assert found["product"].minimum == pytest.approx(product.min(), rel=1e-5)
    # the padded tensor shares the grid of x, the gate's is prescribed: a subsample has to do
    assert found["x"].minimum < found["pad"].minimum < 0 < found["pad"].maximum < found["x"].maximum
    assert 0 < found["gate"].minimum < found["gate"].maximum < 1


def test_progress_is_told_of_every_sample():
    told = []

    class Recorder:
        @contextlib.contextmanager
        def task(self, description, total):
            told.append((description, total))
            yield told.append

    collect_statistics(
        small_graph(), batches(samples(5), 2), tensors=["pool"], total=5, resources=Resources(progress=Recorder())
    )
    assert told[0] == ("calibrate", 5)
    assert sum(told[1:]) == 5


def test_a_single_sample_serves_as_both_halves():
    found = collect_statistics(small_graph(), batches(samples(1), 2), tensors=["pool"])
    assert found.everything.second == found.everything.first
    assert found.everything.first["pool"].samples == 1


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        *((bad, "holds NaN or Inf") for bad in (np.nan, np.inf, -np.inf)),
        *((bad, r"reaches 3e\+38") for bad in (-3e38, 3e38)),
    ],
)
def test_numbers_beyond_every_grid_name_the_layer_and_the_sample(bad, what):
    data = samples(6)
    data["extra"][4] = bad
    with pytest.raises(UserError, match=f"layer 'join' {what} for calibration sample 4"):
        collect_statistics(small_graph(), batches(data, 6), tensors=NAMES)


def test_no_samples_and_wrong_inputs_are_refused():
    with pytest.raises(UserError, match="holds no sample"):
        collect_statistics(small_graph(), [], tensors=NAMES)
    with pytest.raises(UserError, match=r"inputs \['picture'\]; the model expects \['extra', 'image'\]"):
        collect_statistics(small_graph(), [{"picture": np.zeros((1, 12, 16, 3))}], tensors=NAMES)


@pytest.mark.parametrize("shape", [(112, 112, 96), (7, 7, 1280), (1000,), (56, 56, 24), (33, 33, 3)])
def test_subsample_meets_every_channel(shape):
    step = collect._stride(shape)
    size = int(np.prod(shape))
    taken = np.arange(0, size, step)
    assert len(taken) <= max(collect.FEWEST_ELEMENTS, min(collect.MOST_ELEMENTS, 1 + size * collect.SHARE))
    met = len(set((taken % shape[-1]).tolist()))
    assert met == min(shape[-1], len(taken))


def test_those_that_judge_are_in_everything_and_not_in_the_rest():
    data = samples(24)
    judges = range(7, 24, 8)
    left = np.delete(np.arange(24), judges)
    found = collect_statistics(small_graph(), batches(data, 5), tensors=NAMES, judges=judges)
    alone = collect_statistics(small_graph(), batches(data, 24), tensors=NAMES)
    even, odd = ({name: values[[i for i in left if i % 2 == h]] for name, values in data.items()} for h in (0, 1))
    for half, given in (("first", even), ("second", odd), ("whole", {n: v[left] for n, v in data.items()})):
        expected = collect_statistics(small_graph(), batches(given, 7), tensors=NAMES).everything.whole
        for name in NAMES:
            a, b = getattr(found.unjudged, half)[name], expected[name]
            assert a.samples == b.samples
            for value in ("minimum", "maximum", "average_minimum", "average_maximum"):
                assert getattr(a, value) == pytest.approx(getattr(b, value), rel=1e-6)
            assert a.histogram.total == b.histogram.total
            c, d = getattr(found.everything, half)[name], getattr(alone.everything, half)[name]
            assert (c.minimum, c.average_maximum, c.samples) == (d.minimum, d.average_maximum, d.samples)
            np.testing.assert_array_equal(c.histogram.counts, d.histogram.counts)


def test_the_moving_average_is_that_of_all_samples_in_their_order():
    data = samples(9)
    found = collect_statistics(small_graph(), batches(data, 4), tensors=["image"]).everything.whole["image"]
    average = weight = 0.0
    for image in data["image"]:
        average, weight = 0.99 * average + 0.01 * float(image.max()), 0.99 * weight + 0.01
    assert found.average_maximum == pytest.approx(average / weight, rel=1e-6)
