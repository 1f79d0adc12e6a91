"""Range tuning: the estimate against the error that ranges really make at the end, and what it leaves alone."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
from operator_graphs import draw

from tfq.calibration.statistics import Range
from tfq.data.samples import Samples
from tfq.models.graph import Graph, Node
from tfq.numerics.reference import asymmetric_grids
from tfq.pipeline.quantized import _is_tame
from tfq.reconstruction.range_tuning import Candidates, _Clipped, tune_ranges

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype(np.float32)
X[::9, 0] = 40.0  # a rare large value


def linear(first_weight):
    """x -> Dense "last", which reads the channel of the large values with this weight; a tensor "copy" between."""
    kernel = RNG.normal(size=(8, 5)).astype(np.float32)
    kernel[0] = first_weight
    copy = {"kernel": np.eye(8, dtype=np.float32), "bias": np.zeros(8, np.float32)}
    nodes = (
        Node("x", "Input", {"shape": (8,), "dtype": "float32"}),
        Node("copy", "Dense", {"units": 8}, ("x",), copy),
        Node("last", "Dense", {"units": 5}, ("copy",), {"kernel": kernel, "bias": np.zeros(5, np.float32)}),
    )
    return Graph(nodes, ("x",), ("last",))


def tuned(graph, tensor, values, **changes):
    widest = Range(float(values.min()), float(values.max()))
    candidates = dataclasses.replace(Candidates((tensor,), widest, widest, 8), **changes)
    return tune_ranges(graph, Samples.of({"x": X}), {tensor: candidates}).get(tensor, candidates.present)


def real_error(graph, found, bits=8):
    """|y - q|^2 of the last layer with the values of "copy" on the grid of a range."""
    scale, zero = (float(v[0]) for v in asymmetric_grids(np.array([found.low]), np.array([found.high]), bits))
    top = 2 ** (bits - 1)
    q = (np.clip(np.rint(X / scale) + zero, -top, top - 1) - zero) * scale
    return float(np.square((q - X) @ graph["last"].weights["kernel"]).sum())


def test_large_values_that_nobody_reads_are_clipped_and_those_that_count_are_kept():
    unread, read = (tuned(linear(weight), "copy", X) for weight in (0.0, 1.0))
    assert unread.high < 5.0
    assert read.high == pytest.approx(40.0)


def test_every_end_counts_for_as_much_however_many_numbers_it_has():
    graph = linear(0.0)
    kernel, bias = np.tile(graph["last"].weights["kernel"], 100), np.zeros(500, np.float32)
    wide = graph["last"].replace(weights={"kernel": kernel, "bias": bias})
    weights = {"kernel": 0.2 * np.ones((8, 1), np.float32), "bias": np.zeros(1, np.float32)}
    small = Node("small", "Dense", {"units": 1}, ("copy",), weights)
    both = Graph((*graph.nodes[:2], wide.replace(config={"units": 500}), small), ("x",), ("last", "small"))
    assert tuned(both, "copy", X).high == pytest.approx(40.0)


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_range_is_the_best_of_all_that_are_tried(weight, bits):
    """Of a linear end the estimate is exact, but for the rounding, which it takes for independent."""
    graph = linear(weight)
    found = tuned(graph, "copy", X, bits=bits)
    lattice = np.geomspace(0.05, 1.0, 24)
    low, high = float(X.min()), float(X.max())
    errors = [real_error(graph, Range(low * a, high * b), bits) for a in lattice for b in lattice]
    assert real_error(graph, found, bits) <= 1.5 * min(errors)


def test_of_small_tensors_every_sample_is_looked_at():
    x = RNG.normal(size=(256, 8)).astype(np.float32)
    x[1, 0] = 40.0  # not among 64 samples at even distances
    widest = Range(float(x.min()), float(x.max()))
    found = tune_ranges(linear(1.0), Samples.of({"x": x}), {"copy": Candidates(("copy",), widest, widest, 8)})
    assert "copy" not in found or found["copy"].high > 35


def test_the_present_range_is_kept_where_none_is_better():
    graph = linear(1.0)
    best = tuned(graph, "copy", X)
    assert tuned(graph, "copy", X, present=best) == best


def test_a_centred_grid_stays_centred():
    found = tuned(linear(0.0), "copy", X, widest=Range(-40, 40), present=Range(-40, 40), centred=True)
    assert found.low == -found.high > -10.0


def test_clipping_errors_of_one_sample_add_up_and_cancel():
    """Two large values whose gradients differ in sign move the end by nothing when both are clipped."""
    values = np.tile(np.array([10.0, 10.0, 0.5], np.float32), (4, 1))
    for sign, cut in ((-1.0, True), (1.0, False)):
        slopes = np.tile(np.array([1.0, sign, 0.1], np.float32), (4, 1))
        clipped = _Clipped(Candidates(("t",), Range(0.0, 10.0), Range(0.0, 10.0), 8), draws=1)
        clipped.add([values], [slopes])
        assert (clipped.best()[0].high < 5.0) == cut


def test_what_one_sample_shows_has_to_be_worth_more_to_be_clipped_than_what_many_show():
    """Values of 0 to 1 but for one of 1.2: in one sample of 40, or in all with as large an error in the mean."""
    values = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (40, 1))
    slopes = np.full(values.shape, 0.1, np.float32)
    found = {}
    for name, rows, slope in (("one", slice(1), 0.04), ("many", slice(None), 0.04 / np.sqrt(40))):
        v, g = values.copy(), slopes.copy()
        v[rows, -1], g[:, -1] = 1.2, slope
        clipped = _Clipped(Candidates(("t",), Range(0.0, 1.2), Range(0.0, 1.2), 8), draws=1)
        clipped.add([v], [g])
        found[name] = clipped.best()[0].high
    assert found["many"] < found["one"]


def test_a_tensor_that_no_gradient_reaches_is_left():
    graph = Graph(
        (
            Node("x", "Input", {"shape": (8,), "dtype": "float32"}),
            Node("side", "ReLU", {}, ("x",)),
            Node("out", "ReLU", {}, ("x",)),
        ),
        ("x",),
        ("out", "side"),
    )
    blind = dataclasses.replace(graph, outputs=("out",), output_names=("out",))
    candidates = {"side": Candidates(("side",), Range(0, 40), Range(0, 40), 8)}
    assert tune_ranges(blind, Samples.of({"x": X}), candidates) == {}


@pytest.mark.parametrize("name", sorted(operator_graphs.ALL))
def test_every_operation_has_a_gradient(name):
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    floats = [n.name for n in graph.nodes if n.kind != "Input"]
    candidates = {n: Candidates((n,), Range(-1, 1), Range(-1, 1), 8) for n in floats}
    for found in tune_ranges(graph, Samples.of(samples), candidates).values():
        assert found.low <= 0 <= found.high


@pytest.mark.parametrize(
    ("end", "tame"),
    [("last", True), ("moved", True), ("bounded", True), ("exponential", False), ("bounded exponential", False)],
)
def test_by_default_ends_count_that_layers_with_weights_make(end, tame):
    """A sigmoid bounds what such a layer makes; an exponential has rare large values."""
    plain = linear(0.0)
    more = (
        Node("moved", "Reshape", {"target_shape": (5, 1)}, ("last",)),
        Node("bounded", "Sigmoid", {}, ("moved",)),
        Node("exponential", "Unary", {"function": "exp"}, ("last",)),
        Node("bounded exponential", "Sigmoid", {}, ("exponential",)),
    )
    assert _is_tame(Graph((*plain.nodes, *more), ("x",), (end,)), end) == tame
