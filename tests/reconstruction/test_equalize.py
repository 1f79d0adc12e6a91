"""Equalisation keeps the function, and what it claims about ranges and errors holds."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.data.samples import Samples
from tfq.models.equality import relative_error, run_graph
from tfq.models.graph import Graph, Node, build_model
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.precision import Precision
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.equalize import equalize, equalize_published, expected_error, measured_tensors
from tfq.reconstruction.streams import streams
from tfq.simulate.eager import tensors
from tfq.simulate.wrap import build_simulation

METHODS = {
    "published": equalize_published,
    "expected error": equalize,
    "expected error, per tensor": lambda graph, found: equalize(graph, found, weight_bits=4, per_channel=False),
}
SHAPE = (7, 6, 3)
X = np.random.default_rng(0).normal(size=(16, *SHAPE)).astype(np.float32)


def layer(kind, name, channels, rng, *, activation=None, group="", outputs=4):
    """A layer on `channels` channels whose output channels differ by factors up to 100."""
    normal = rng.normal
    if kind == "Conv2D":
        weights, config = {"kernel": normal(size=(3, 3, channels, outputs))}, {"filters": outputs, "kernel_size": 3}
    elif kind == "DepthwiseConv2D":
        weights, config = {"depthwise_kernel": normal(size=(3, 3, channels, 2))}, {"kernel_size": 3}
        config["depth_multiplier"], outputs = 2, 2 * channels
    elif kind == "Conv2DTranspose":
        weights = {"kernel": normal(size=(3, 3, outputs, channels))}
        config = {"filters": outputs, "kernel_size": 3, "strides": 2}
    else:
        weights, config = {"kernel": normal(size=(channels, outputs))}, {"units": outputs}
    if kind not in ("Dense",):
        config["padding"] = "same"
    spread = np.exp(rng.uniform(-2.3, 2.3, outputs))
    ((variable, kernel),) = weights.items()
    if kind == "DepthwiseConv2D":
        kernel = kernel * spread.reshape(channels, 2)
    else:
        kernel = kernel * (spread[:, None] if kind == "Conv2DTranspose" else spread)
    weights = {variable: kernel.astype(np.float32), "bias": (spread * normal(size=outputs)).astype(np.float32)}
    return Node(name, kind, config, weights=weights, activation=activation, group=group), outputs


def between(kind, channels, rng):
    """(nodes that lie between two layers, channels behind them)."""
    slopes = {"alpha": rng.normal(size=(1, 1, channels)).astype(np.float32)}  # negative ones among them
    made = {
        "nothing": [],
        "leaky": [Node("leaky", "LeakyReLU", {"alpha": 0.3})],
        "prelu": [Node("prelu", "PReLU", {"shared_axes": [1, 2]}, weights=slopes)],
        "relu": [Node("rectified", "ReLU")],
        "relu3": [Node("rectified", "ReLU", {"max_value": 3.0})],
        "pool": [Node("pool", "MaxPooling2D", {"pool_size": 2}), Node("mean", "AveragePooling2D", {"pool_size": 2})],
        "pad": [Node("pad", "ZeroPadding2D", {"padding": 1})],
        "squeeze": [Node("squeeze", "GlobalAveragePooling2D", {"keepdims": True})],
        "swish": [Node("swish", "HardSwish")],
        "sigmoid": [Node("sigmoid", "Sigmoid")],
    }[kind]
    return made, channels


def chain(*nodes, outputs=None):
    made = [Node("x", "Input", {"shape": SHAPE, "dtype": "float32"})]
    for node in nodes:
        made.append(node if node.inputs else node.replace(inputs=(made[-1].name,)))
    return Graph(tuple(made), ("x",), tuple(outputs or (made[-1].name,)))


def statistics(graph):
    return channel_statistics(graph, Samples.of({"x": X}), measured_tensors(graph))


def changed(graph, other):
    """Names of the nodes with other weights."""
    return [
        a.name
        for a, b in zip(graph.nodes, other.nodes, strict=True)
        if any(not np.array_equal(a.weights[n], b.weights[n]) for n in a.weights)
    ]


KINDS = ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense")
BETWEEN = ("nothing", "leaky", "prelu", "relu", "relu3", "pool", "pad", "squeeze", "swish", "sigmoid")


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=4),
    st.lists(st.sampled_from(BETWEEN), min_size=3, max_size=3),
    st.lists(st.sampled_from([None, "relu", "relu6"]), min_size=4, max_size=4),
    st.sampled_from(list(METHODS)),
    st.integers(0, 2**31),
)
def test_the_function_stays_the_same(kinds, gaps, activations, method, seed):
    rng = np.random.default_rng(seed)
    nodes, channels = [], 3
    for k, kind in enumerate(kinds):
        last = k + 1 == len(kinds)
        activation = None if last or kind == "Conv2DTranspose" else activations[k]
        node, channels = layer(kind, f"layer{k}", channels, rng, activation=activation)
        nodes.append(node)
        if not last:
            more, channels = between(gaps[k], channels, rng)
            nodes += [n.replace(name=f"{n.name}{k}") for n in more]
            if gaps[k] in ("pool", "squeeze"):  # room for the next one
                nodes.append(Node(f"larger{k}", "UpSampling2D", {"size": 4}))
    graph = chain(*nodes)
    equal = METHODS[method](graph, statistics(graph))
    assert [n.name for n in equal.nodes] == [n.name for n in graph.nodes]
    assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-4


def residual(blocks, rng):
    """A network of one stream per stage: (graph, names of the layers that write to its sums)."""
    made = [Node("x", "Input", {"shape": SHAPE, "dtype": "float32"})]

    def add(node, *inputs):
        made.append(node.replace(inputs=inputs or (made[-1].name,)))
        return made[-1].name

    stem, channels = layer("Conv2D", "stem", 3, rng)
    stream, written = add(stem), ["stem"]
    for k, (expansion, middle, end) in enumerate(blocks):
        node, inner = layer("Conv2D", f"expand{k}", channels, rng, activation=expansion, outputs=6)
        add(node, stream)
        if middle == "depthwise":
            node, inner = layer("DepthwiseConv2D", f"middle{k}", inner, rng, activation="relu6")
            add(node)
        elif middle == "gate":
            whole = add(Node(f"idle{k}", "LeakyReLU", {"alpha": 0.5}))
            add(Node(f"squeeze{k}", "GlobalAveragePooling2D", {"keepdims": True}))
            add(layer("Conv2D", f"narrow{k}", inner, rng, activation="relu")[0])
            add(layer("Conv2D", f"wide{k}", 4, rng, outputs=inner)[0])
            add(Node(f"sigmoid{k}", "Sigmoid"))
            add(Node(f"gate{k}", "Multiply"), *((whole, made[-1].name) if k % 2 else (made[-1].name, whole)))
        node, _ = layer("Conv2D", f"project{k}", inner, rng, outputs=channels)
        written.append(add(node))
        both = (stream, node.name) if k % 2 else (node.name, stream)
        stream = add(Node(f"sum{k}", end if end in ("Subtract", "Maximum") else "Add"), *both)
        if end == "relu":
            made[-1] = made[-1].replace(activation="relu")
        elif end == "pool":
            stream = add(Node(f"pool{k}", "MaxPooling2D", {"pool_size": 2, "strides": 1, "padding": "same"}))
        elif end == "apart":
            stream = add(Node(f"swish{k}", "HardSwish"))
    add(layer("Conv2D", "last", channels, rng)[0])
    return Graph(tuple(made), ("x",), ("last",)), written


BLOCK = st.tuples(
    st.sampled_from([None, "relu", "relu6"]),
    st.sampled_from(["", "depthwise", "gate"]),
    st.sampled_from(["", "relu", "pool", "apart", "Subtract", "Maximum"]),
)


@settings(max_examples=10)
@given(st.lists(BLOCK, min_size=1, max_size=2), st.sampled_from(list(METHODS)), st.integers(0, 2**31))
def test_a_residual_network_computes_the_same(blocks, method, seed):
    graph, written = residual(blocks, np.random.default_rng(seed))
    equal = METHODS[method](graph, statistics(graph))
    assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-3  # sums cancel
    if not any(end == "apart" for *_, end in blocks):
        (stream,) = (s for s in streams(graph) if "stem" in s.writers)
        assert set(stream.writers) == set(written)
        assert "last" in stream.readers


def shuffled_halves(units, rng):
    """The stage of a ShuffleNetV2: of channels that take turns, one half is computed anew and joined with the other."""
    channels, made = 4, [Node("x", "Input", {"shape": SHAPE, "dtype": "float32"})]

    def add(node, *inputs):
        made.append(node.replace(inputs=inputs or (made[-1].name,)))
        return made[-1].name

    halves = [add(layer("Conv2D", f"stem{k}", 3, rng, activation="relu", outputs=channels)[0], "x") for k in (0, 1)]
    for k in range(units):
        positions = SHAPE[0] * SHAPE[1]
        joined = add(Node(f"join{k}", "Concatenate", {"axis": -1}), *halves)
        add(Node(f"apart{k}", "Reshape", {"target_shape": (positions, 2, channels)}), joined)
        add(Node(f"turned{k}", "Permute", {"dims": (1, 3, 2)}))
        beside = add(Node(f"beside{k}", "Reshape", {"target_shape": (*SHAPE[:2], 2 * channels)}))
        free = (None, None)
        for half in (0, 1):
            ends = {"begin": (*free, half * channels), "end": (*free, (half + 1) * channels), "strides": (None,) * 3}
            halves[half] = add(Node(f"half{half}{k}", "Slice", ends), beside)
        halves[1] = add(layer("Conv2D", f"branch{k}", channels, rng, activation="relu", outputs=channels)[0], halves[1])
    joined = add(Node("end", "Concatenate", {"axis": -1}), *halves)
    add(layer("Conv2D", "last", 2 * channels, rng)[0], joined)
    return Graph(tuple(made), ("x",), ("last",))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("units", [1, 3])
def test_a_shuffled_network_computes_the_same(units, method):
    graph = shuffled_halves(units, np.random.default_rng(units))
    equal = METHODS[method](graph, statistics(graph))
    written = [f"branch{k}" for k in range(units)]
    assert set(changed(graph, equal)) == {"stem0", "stem1", *written, "last"}
    assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-4


def test_joined_tensors_of_unlike_ranges_come_to_fill_the_grid_that_they_share():
    graph = shuffled_halves(2, np.random.default_rng(0))
    for array in graph["stem1"].weights.values():
        array *= 0.01  # in place: one half of the grid's channels would have a hundredth of its steps
    errors = []
    for floats in (graph, equalize(graph, statistics(graph))):
        (y,) = run_graph(graph, {"x": X})
        model = operator_graphs.specified(floats, {"x": X}, Precision())
        errors.append(
            np.square(build_simulation(model).predict(X, verbose=0) - y).mean((0, 1, 2)) / np.square(y).mean((0, 1, 2))
        )
    assert np.log(errors[1] / errors[0]).mean() < -0.3


def two(gap, *, kind="Conv2D", activation="relu", seed=0):
    rng = np.random.default_rng(seed)
    first, channels = layer("Conv2D", "first", 3, rng, activation=activation)
    nodes, channels = between(gap, channels, rng)
    return chain(first, *nodes, layer(kind, "last", channels, rng)[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gap", BETWEEN)
def test_what_commutes_with_a_positive_factor_is_passed_and_nothing_else(gap, method):
    graph = two(gap)
    graph["first"].weights["kernel"][...] *= 0.01  # relu3 stays idle
    graph["first"].weights["bias"][...] *= 0.01
    equal = METHODS[method](graph, statistics(graph))
    assert changed(graph, equal) == ([] if gap in ("swish", "sigmoid") else ["first", "last"])


def test_a_flattened_image_is_scaled_run_by_run():
    rng = np.random.default_rng(0)
    first, channels = layer("Conv2D", "first", 3, rng, activation="relu")
    last, _ = layer("Dense", "last", 42 * channels, rng)
    graph = chain(first, Node("flat", "Flatten"), last)
    for method in METHODS.values():
        equal = method(graph, statistics(graph))
        assert changed(graph, equal) == ["first", "last"]
        ratio = (equal["last"].weights["kernel"] / graph["last"].weights["kernel"]).reshape(42, channels, -1)
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1, :, :1], ratio.shape), rtol=1e-5)
        assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("why", ["read twice", "output of the model", "called twice"])
def test_layers_whose_output_is_needed_otherwise_are_left_alone(why, method):
    graph = two("nothing")
    nodes, outputs = list(graph.nodes), ["last"]
    if why == "read twice":
        nodes.append(Node("sum", "Add", inputs=("first", "last")))
        outputs = ["sum"]
    elif why == "output of the model":
        outputs = ["first", "last"]
    else:
        nodes[1] = nodes[1].replace(group="shared")
        nodes += [nodes[1].replace(name="again"), Node("sum", "Add", inputs=("again", "last"))]
        outputs = ["sum"]
    graph = Graph(tuple(nodes), ("x",), tuple(outputs))
    assert measured_tensors(graph) == ()
    assert changed(graph, METHODS[method](graph, {})) == []


@pytest.mark.parametrize("second", ["Conv2D", "DepthwiseConv2D"])
def test_published_factors_make_the_ranges_of_both_kernels_equal(second):
    """Nagel et al. 2019, equation 11; a chain of three layers has its fixed point too."""
    rng = np.random.default_rng(0)
    first, channels = layer("Conv2D", "first", 3, rng, activation="relu")
    middle, channels = layer(second, "middle", channels, rng, activation="relu")
    graph = chain(first, middle, layer("Conv2D", "last", channels, rng)[0])
    equal = equalize_published(graph, statistics(graph))
    kernels = [np.abs(next(iter(equal[n].weights.values()))) for n in ("first", "middle", "last")]
    outputs = kernels[0].max(axis=(0, 1, 2))
    inputs = kernels[1].max(axis=(0, 1, 3))
    np.testing.assert_allclose(outputs, inputs, rtol=0.03)
    outputs = kernels[1].max(axis=(0, 1)).ravel() if second == "DepthwiseConv2D" else kernels[1].max(axis=(0, 1, 2))
    np.testing.assert_allclose(outputs, kernels[2].max(axis=(0, 1, 3)), rtol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_through_a_relu6_only_channels_well_below_it_are_scaled(method):
    graph = two("nothing", activation="relu6", kind="DepthwiseConv2D", seed=1)
    first = graph["first"]
    first.weights["kernel"][...] *= 3
    peaks = run_graph(Graph(graph.nodes, ("x",), ("first",)), {"x": X})[0].max(axis=(0, 1, 2))
    assert (peaks == 6).any()
    # one channel just below the limit, one far below
    for channel, wanted in ((0, 5.5), (1, 0.5)):
        first.weights["bias"][channel] = 0
        first.weights["kernel"][..., channel] *= 1e-3
        peak = run_graph(Graph(graph.nodes, ("x",), ("first",)), {"x": X})[0].max(axis=(0, 1, 2))[channel]
        first.weights["kernel"][..., channel] *= wanted / peak
    before = run_graph(Graph(graph.nodes, ("x",), ("first",)), {"x": X})[0].max(axis=(0, 1, 2))
    equal = METHODS[method](graph, statistics(graph))
    after = run_graph(Graph(equal.nodes, ("x",), ("first",)), {"x": X})[0].max(axis=(0, 1, 2))
    still = before > 4.5
    assert still[0]
    assert not still[1]
    np.testing.assert_array_equal(after[still], before[still])
    assert (after[~still] <= 4.5 * (1 + 1e-5)).all()
    assert after[1] != pytest.approx(before[1], rel=1e-3)
    assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-5


def test_in_front_of_a_depthwise_layer_channels_come_to_share_the_activation_grid():
    graph = two("nothing", kind="DepthwiseConv2D")
    equal = equalize(graph, statistics(graph))
    graphs = (Graph(g.nodes, ("x",), ("first",)) for g in (graph, equal))
    before, after = (run_graph(g, {"x": X})[0].max(axis=(0, 1, 2)) for g in graphs)
    assert before.max() > 5 * before.min()
    assert after.max() / after.min() < before.max() / before.min() / 2


@pytest.mark.parametrize(("bits", "per_channel"), [(8, False), (8, True), (4, True), (3, True)])
def test_the_quantised_network_comes_closer_to_the_float_one(bits, per_channel):
    """Samples that the statistics did not see; nearest rounding."""
    rng = np.random.default_rng(3)
    fresh = rng.normal(size=(64, *SHAPE)).astype(np.float32)
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first, channels = layer("Conv2D", "first", 3, rng, activation="relu", outputs=12)
        middle, channels = layer("DepthwiseConv2D", "middle", channels, rng, activation="relu")
        graph = chain(first, middle, layer("Conv2D", "last", channels, rng)[0])
        equal = equalize(graph, statistics(graph), weight_bits=bits, per_channel=per_channel)
        (y,) = run_graph(graph, {"x": fresh})
        signal, errors = np.square(y).mean(axis=(0, 1, 2)), []
        for floats in (graph, equal):
            model = operator_graphs.specified(floats, {"x": X}, Precision(weight_bits=bits), per_channel=per_channel)
            found = build_simulation(model).predict(fresh, verbose=0)
            errors.append((np.square(found - y).mean(axis=(0, 1, 2)) / signal).mean())
        gains.append(np.log(errors[1] / errors[0]))
    assert np.mean(gains) < -0.05


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_the_expected_error_is_the_error_of_the_simulated_network(kind, per_channel):
    """On the samples of the ranges, whose inputs lie on their grid; the grid of what the last layer gives left out."""
    rng = np.random.default_rng(0)
    x = {"x": rng.integers(-128, 128, size=(16, *SHAPE)).astype(np.float32) / 64}
    x["x"].ravel()[:2] = -2, 127 / 64
    made = [Node("x", "Input", {"shape": SHAPE, "dtype": "float32"})]
    for name in ("first", "second"):
        made.append(layer("Conv2D", name, 3, rng, outputs=12)[0].replace(inputs=("x",)))
    made.append(Node("sum", "Add", inputs=("first", "second")))
    made.append(layer("Conv2D", "third", 3, rng, outputs=12)[0].replace(inputs=("x",)))
    made.append(Node("whole", "Add", inputs=("sum", "third")))
    last, _ = layer(kind, "last", 12, rng, outputs=32)
    ((variable, kernel),) = ((name, w) for name, w in last.weights.items() if name != "bias")
    weights = {**last.weights, variable: kernel[1:2, 1:2]}  # neighbours resemble each other, which the estimate ignores
    made.append(last.replace(inputs=("whole",), weights=weights, config={**last.config, "kernel_size": 1}))
    graph = Graph(tuple(made), ("x",), ("last",))
    found = channel_statistics(graph, Samples.of(x), measured_tensors(graph))
    equal = equalize(graph, found, weight_bits=6, per_channel=per_channel)
    for floats in (graph, equal):
        found = channel_statistics(floats, Samples.of(x), measured_tensors(floats))
        # nothing overshoots the ranges of the samples that they are of
        found = {name: dataclasses.replace(of, count=of.count * 10**9) for name, of in found.items()}
        expected = expected_error(floats, found, weight_bits=6, per_channel=per_channel)
        model = operator_graphs.specified(floats, x, Precision(weight_bits=6), per_channel=per_channel)
        (y,), (q,) = run_graph(floats, x), tensors(model.with_nodes(model["last"].replace(grid=None)), x)
        noise, signal = (np.square(e).mean((0, 1, 2)) for e in (q - y, y - floats["last"].weights["bias"]))
        assert expected == pytest.approx(np.mean(noise / np.maximum(signal, 1e-3 * signal.mean())), rel=0.3)


def test_statistics_are_those_of_all_samples():
    graph = two("leaky", activation=None)
    found = statistics(graph)
    assert set(found) == {"x", "first", "leaky"}
    (y,) = run_graph(Graph(graph.nodes, ("x",), ("leaky",)), {"x": X})
    np.testing.assert_allclose(found["leaky"].low, y.min(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["leaky"].high, y.max(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["leaky"].power, np.square(y.astype("f8")).mean(axis=(0, 1, 2)), rtol=1e-5)
    equal = equalize(graph, found)
    again = statistics(equal)
    for name in ("first", "leaky"):
        scaled = found[name].scaled(again[name].high / found[name].high)
        np.testing.assert_allclose(again[name].power, scaled.power, rtol=1e-4)


def test_dead_channels_stay_as_they_are():
    graph = two("nothing")
    graph["first"].weights["kernel"][..., 0] = graph["first"].weights["bias"][0] = 0
    graph["last"].weights["kernel"][:, :, 1] = 0
    for method in METHODS.values():
        equal = method(graph, statistics(graph))
        for node in equal.nodes:
            assert all(np.isfinite(w).all() for w in node.weights.values())
        np.testing.assert_array_equal(
            equal["last"].weights["kernel"][:, :, 0], graph["last"].weights["kernel"][:, :, 0]
        )
        assert relative_error(run_graph(graph, {"x": X}), run_graph(equal, {"x": X})) < 1e-5


@pytest.fixture(scope="module")
def mobilenet():
    """MobileNetV2 at 96 pixels whose channels differ wildly, as prepared; its samples."""
    tf_keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = tf_keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)
    for node in model.layers:
        if isinstance(node, tf_keras.layers.BatchNormalization):
            size = node.gamma.shape[0]
            spread = np.exp(rng.uniform(-2, 2, size))
            offset, mean = 0.5 * rng.normal(size=size), 0.1 * rng.normal(size=size)
            node.set_weights([rng.uniform(0.1, 2, size), offset, mean, spread])
    graph = load_model(model).graph
    x = {graph.inputs[0]: rng.uniform(-1, 1, (4, 96, 96, 3)).astype(np.float32)}
    return prepare(graph, x).graph, x


@pytest.mark.parametrize("method", METHODS)
def test_mobilenet_computes_the_same(mobilenet, method):
    graph, x = mobilenet
    found = channel_statistics(graph, Samples.of(x), measured_tensors(graph))
    equal = METHODS[method](graph, found)
    assert len(changed(graph, equal)) > 10
    assert set(changed(graph, equal)) >= {writer for s in streams(graph) for writer in s.writers if len(s.writers) > 1}
    expected, actual = (build_model(g).predict(x, verbose=0) for g in (graph, equal))
    assert relative_error([expected], [actual]) < 1e-3
