"""Bias tuning against gradients worked out in NumPy, and against what it promises to leave alone."""

import dataclasses

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.data.roles import Roles
from tfq.models.graph import Graph, Node, build_model
from tfq.reconstruction.bias_tuning import _mixtures, tune_biases
from tfq.simulate.judge import Version, keep_better
from tfq.simulate.run import predict_list
from tfq.simulate.weights import snap, weight_integers
from tfq.simulate.wrap import build_simulation

STEPS = 40
MANY = 96  # samples: with a handful held back no gain is beyond chance


def dense_graph(head=""):
    """x [5] -> dense [4], perhaps a softmax."""
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(5, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
    nodes = [
        Node("x", "Input", {"shape": (5,), "dtype": "float32"}),
        Node("dense", "Dense", {"units": 4}, ("x",), weights),
    ]
    nodes += [Node("head", head, {}, ("dense",))] if head else []
    return Graph(tuple(nodes), ("x",), (nodes[-1].name,))


def draw(count, seed=0):
    return {"x": np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)}


def spoiled(version, amount=0.4, seed=5):
    """The version with random errors in all its biases."""
    rng = np.random.default_rng(seed)
    errors = {
        n.group: amount * rng.normal(size=n.weights["bias"].shape) for n in version.graph.nodes if "bias" in n.weights
    }

    def changed(node):
        if node.group not in errors or "bias" not in node.weights:
            return node
        return node.replace(
            weights={**node.weights, "bias": (node.weights["bias"] + errors[node.group]).astype(np.float32)}
        )

    return Version("spoiled", version.graph.replace_nodes([changed(n) for n in version.graph.nodes]), version.spec)


def quantized(graph, samples, **options):
    total = len(samples[graph.inputs[0]])
    ranges = calibrate(graph, [samples], method="minmax", percentile=99.9, total=total).ranges
    return Version("nearest", graph, specify(graph, ranges, **options))


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_the_first_step_goes_against_the_gradient_by_the_rate_in_output_steps(head):
    """One step of Adam moves every bias by the rate, times the output's step, against the sign of its gradient."""
    graph, samples = dense_graph(head), draw(MANY)
    version = spoiled(quantized(graph, samples))
    rate = 0.5
    tuned = tune_biases(graph, version, samples, steps=1, rate=rate, batch_size=MANY * 6 // 8)
    fitted = Roles.of(MANY).fit
    x = samples["x"][fitted].astype(np.float64)
    y = x @ graph["dense"].weights["kernel"] + graph["dense"].weights["bias"]
    (q,) = predict_list(_simulation(version), [samples["x"][fitted]])
    gradient = (softmax(q) - softmax(y)).mean(0) if head else (q - y).mean(0)
    start = snap(version.graph, version.spec)["dense"].weights["bias"]
    moved = tuned.graph["dense"].weights["bias"] - start
    step = version.spec.activations["dense"].scale[0]
    np.testing.assert_allclose(moved, -np.sign(gradient) * rate * step, rtol=1e-2)


def _simulation(version):
    return build_simulation(version.graph, version.spec, outputs=["dense"])


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_spoiled_biases_are_found_again(head):
    graph, samples = dense_graph(head), draw(64)
    version = quantized(graph, {"x": np.concatenate([samples["x"], draw(64, seed=3)["x"]])})  # nothing is clipped
    bad = spoiled(version)
    tuned = tune_biases(graph, bad, samples, steps=100, rate=1.0)
    assert tuned.name == "bias tuning"
    kept, guarded = keep_better(graph, tuned, bad, draw(64, seed=3))
    assert kept is tuned
    assert guarded.divergences["bias tuning"] < 0.2 * guarded.divergences["spoiled"]
    if not head:  # the optimum is known: the mean error of each output vanishes
        x = samples["x"]
        y = predict_list(build_model(graph, outputs=["dense"]), [x])[0]
        error = predict_list(_simulation(tuned), [x])[0] - y
        assert np.abs(error.mean(0)).max() < 2 * version.spec.activations["dense"].scale[0]


@pytest.mark.parametrize("name", ["convolutions", "shared", "islands", "transformer"])
def test_weights_scales_and_ranges_stay(name):
    graph = operator_graphs.ALL[name]()
    samples = operator_graphs.draw(graph, count=MANY)
    version = spoiled(quantized(graph, samples, weight_bits=4))
    tuned = tune_biases(graph, version, samples, steps=STEPS, rate=1.0)
    assert tuned.spec == version.spec
    moved = 0
    for node in version.graph.nodes:
        before = weight_integers(node, version.spec[node.name]) if node.kind != "Input" else {}
        after = weight_integers(tuned.graph[node.name], tuned.spec[node.name]) if before else {}
        for weight, codes in before.items():
            if weight == "bias":
                moved += int((after[weight] != codes).sum())
            else:
                np.testing.assert_array_equal(after[weight], codes)
        assert tuned.graph[node.name].weights.keys() == node.weights.keys()
        if node.kind != "Input" and version.spec[node.name].precision != "int8":
            for weight, values in node.weights.items():
                np.testing.assert_array_equal(tuned.graph[node.name].weights[weight], values)
    assert moved > 0
    held = {key: values[7::8] for key, values in samples.items()}
    kept, guarded = keep_better(graph, tuned, version, held)
    assert kept is tuned
    assert guarded.divergences["bias tuning"] < guarded.divergences["spoiled"]


def test_calls_of_one_layer_keep_one_bias():
    graph = operator_graphs.shared()
    samples = operator_graphs.draw(graph, count=MANY)
    tuned = tune_biases(graph, spoiled(quantized(graph, samples)), samples, steps=STEPS, rate=1.0)
    for layer in ("conv", "dense"):
        first, second = (tuned.graph[f"{layer}_{side}"].weights["bias"] for side in ("right", "left"))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, graph[f"{layer}_right"].weights["bias"])


def test_what_cannot_be_improved_comes_back_unchanged():
    graph, samples = dense_graph(), draw(64)
    version = quantized(graph, samples)
    # steps so large that every state but the first is worse
    assert tune_biases(graph, version, samples, steps=4, rate=500.0) is version
    assert tune_biases(graph, version, draw(1), steps=4) is version
    no_bias = graph["dense"].replace(
        config={"units": 4, "use_bias": False}, weights={"kernel": np.ones((5, 4), np.float32)}
    )
    bare = graph.replace_nodes([graph["x"], no_bias])
    assert tune_biases(bare, quantized(bare, draw(MANY)), samples, steps=4).graph is bare


def test_the_same_seed_gives_the_same_biases_and_another_seed_others():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph, count=MANY)
    version = spoiled(quantized(graph, samples, weight_bits=4))

    def biases(seed):
        tuned = tune_biases(graph, version, samples, steps=10, rate=1.0, batch_size=4, seed=seed)
        return np.concatenate([n.weights["bias"] for n in tuned.graph.nodes if "bias" in n.weights])

    first = biases(0)
    np.testing.assert_array_equal(biases(0), first)
    assert not np.array_equal(biases(1), first)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_units_of_the_network_do_not_matter(factor):
    """A network whose inputs are 1000 times as large, its first weights as much smaller, its biases like before."""
    graph, samples = dense_graph("Softmax"), draw(MANY)
    layer = graph["dense"]
    scaled = layer.replace(weights={**layer.weights, "kernel": layer.weights["kernel"] / np.float32(factor)})
    other = graph.replace_nodes([scaled if n.name == "dense" else n for n in graph.nodes])
    large = {"x": samples["x"] * np.float32(factor)}
    here = tune_biases(graph, spoiled(quantized(graph, samples)), samples, steps=STEPS, rate=1.0)
    there = tune_biases(other, spoiled(quantized(other, large)), large, steps=STEPS, rate=1.0)
    step = quantized(graph, samples).spec.activations["dense"].scale[0]
    np.testing.assert_allclose(there.graph["dense"].weights["bias"], here.graph["dense"].weights["bias"], atol=2 * step)


def test_a_bias_too_large_for_int32_widens_its_scale():
    graph, samples = dense_graph(), draw(64)
    node = graph["dense"]
    far = node.replace(weights={**node.weights, "bias": node.weights["bias"] + np.float32(6)})
    graph = graph.replace_nodes([graph["x"], far])
    version = quantized(graph, samples)
    layer = version.spec["dense"]
    tiny = {n: dataclasses.replace(g, scale=tuple(s * 2.0**-20 for s in g.scale)) for n, g in layer.weights.items()}
    narrow = dataclasses.replace(version, spec=version.spec.replace_layers(dataclasses.replace(layer, weights=tiny)))
    tuned = tune_biases(graph, narrow, samples, steps=STEPS, rate=4.0)
    assert tuned is not narrow
    bias = tuned.graph["dense"].weights["bias"]
    scale = np.array(tuned.spec["dense"].weights["bias"].scale)
    assert (np.abs(bias / scale) < 2**30 * 1.001).all()
    np.testing.assert_allclose(snap(tuned.graph, tuned.spec)["dense"].weights["bias"], bias, rtol=1e-6)


def test_inputs_are_mixed_in_pairs_with_one_share_for_all_inputs_of_a_sample():
    first = np.arange(10.0, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    feeds = [first, 100 * first[:, :, None]]
    fitted = np.array([1, 2, 4, 5, 7, 8])
    batches = _mixtures([feed[fitted] for feed in feeds], 3, np.random.default_rng(0))
    seen = []
    for _ in range(200):
        x, y = next(batches)
        assert x.dtype == y.dtype == np.float32
        assert (x.shape, y.shape) == ((3, 3), (3, 3, 1))
        np.testing.assert_array_equal(x, x[:, :1] * np.ones((1, 3)))
        np.testing.assert_allclose(y[:, :, 0], 100 * x, rtol=1e-6)
        seen += list(x[:, 0])
    assert min(seen) >= 1
    assert max(seen) <= 8
    # more of the first sample than of the second, which are drawn alike: the mean stays
    assert np.mean(seen) == pytest.approx(fitted.mean(), abs=0.3)
    assert len(set(np.round(seen, 4))) > 500


def test_whole_numbers_are_not_mixed():
    tokens, masses = np.arange(8, dtype=np.int32)[:, None], np.arange(8, dtype=np.float32)[:, None]
    for found, weights in (next(_mixtures([tokens, masses], 4, np.random.default_rng(0))) for _ in "ab"):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, weights)
