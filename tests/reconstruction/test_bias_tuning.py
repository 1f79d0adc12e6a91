"""Bias tuning against gradients worked out in NumPy, and against what it promises to leave alone."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list
from operator_graphs import calibration_of

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.data.roles import Roles
from tfq.models.graph import Graph, Node, build_model
from tfq.precision import INT8, Precision
from tfq.reconstruction.bias_tuning import _mixtures, tune_biases
from tfq.simulate.judge import Judge
from tfq.simulate.weights import snap, weight_integers
from tfq.simulate.wrap import build_simulation
from tfq.spec import Specification

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


def spoiled(model, amount=0.4, seed=5):
    """The model with random errors in all its biases."""
    rng = np.random.default_rng(seed)
    errors = {n.group: amount * rng.normal(size=n.weights["bias"].shape) for n in model.nodes if "bias" in n.weights}

    def changed(node):
        if node.group not in errors or "bias" not in node.weights:
            return node
        return node.replace(
            weights={**node.weights, "bias": (node.weights["bias"] + errors[node.group]).astype(np.float32)}
        )

    return model.with_nodes(*map(changed, model.nodes))


def quantized(graph, samples, precisions=INT8):
    total = len(samples[graph.inputs[0]])
    ranges = calibrate(graph, [samples], method="minmax", total=total).ranges
    return specify(graph, ranges, precisions)


def judged(graph, tuned, bad, samples):
    """(the better of two models, the verdict)."""
    return Judge(graph, samples).keep_better(("bias tuning", tuned), ("spoiled", bad))


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_the_first_step_goes_against_the_gradient_by_the_rate_in_output_steps(head):
    """One step of Adam moves every bias by the rate, times the output's step, against the sign of its gradient."""
    graph, samples = dense_graph(head), draw(MANY)
    model = spoiled(quantized(graph, samples))
    rate = 0.5
    tuned = tune_biases(graph, model, calibration_of(samples), steps=1, rate=rate, batch_size=MANY * 6 // 8)
    fitted = Roles.of(MANY).fit
    x = samples["x"][fitted].astype(np.float64)
    y = x @ graph["dense"].weights["kernel"] + graph["dense"].weights["bias"]
    (q,) = predict_list(_simulation(model), [samples["x"][fitted]])
    gradient = (softmax(q) - softmax(y)).mean(0) if head else (q - y).mean(0)
    start = snap(model)["dense"].weights["bias"]
    moved = tuned["dense"].weights["bias"] - start
    step = model.grids["dense"].scale[0]
    np.testing.assert_allclose(moved, -np.sign(gradient) * rate * step, rtol=1e-2)


def _simulation(model):
    return build_simulation(model, outputs=["dense"])


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_spoiled_biases_are_found_again(head):
    graph, samples = dense_graph(head), draw(64)
    model = quantized(graph, {"x": np.concatenate([samples["x"], draw(64, seed=3)["x"]])})  # nothing is clipped
    bad = spoiled(model)
    tuned = tune_biases(graph, bad, calibration_of(samples), steps=100, rate=1.0)
    kept, verdict = judged(graph, tuned, bad, draw(64, seed=3))
    assert kept is tuned
    assert verdict.divergences["bias tuning"] < 0.2 * verdict.divergences["spoiled"]
    if not head:  # the optimum is known: the mean error of each output vanishes
        x = samples["x"]
        y = predict_list(build_model(graph, outputs=["dense"]), [x])[0]
        error = predict_list(_simulation(tuned), [x])[0] - y
        assert np.abs(error.mean(0)).max() < 2 * model.grids["dense"].scale[0]


@pytest.mark.parametrize("name", ["convolutions", "shared", "islands", "transformer"])
def test_weights_scales_and_ranges_stay(name):
    graph = operator_graphs.ALL[name]()
    samples = operator_graphs.draw(graph, count=MANY)
    model = spoiled(quantized(graph, samples, Precision(weight_bits=4)))
    tuned = tune_biases(graph, model, calibration_of(samples), steps=STEPS, rate=1.0)
    assert Specification.of(tuned) == Specification.of(model)
    moved = 0
    for node in model.nodes:
        before, after = weight_integers(node), weight_integers(tuned[node.name])
        for weight, codes in before.items():
            if weight == "bias":
                moved += int((after[weight] != codes).sum())
            else:
                np.testing.assert_array_equal(after[weight], codes)
        assert tuned[node.name].weights.keys() == node.weights.keys()
        if not node.precision.is_int8:
            for weight, values in node.weights.items():
                np.testing.assert_array_equal(tuned[node.name].weights[weight], values)
    assert moved > 0
    held = {key: values[7::8] for key, values in samples.items()}
    kept, verdict = judged(graph, tuned, model, held)
    assert kept is tuned
    assert verdict.divergences["bias tuning"] < verdict.divergences["spoiled"]


def test_calls_of_one_layer_keep_one_bias():
    graph = operator_graphs.shared()
    samples = operator_graphs.draw(graph, count=MANY)
    tuned = tune_biases(graph, spoiled(quantized(graph, samples)), calibration_of(samples), steps=STEPS, rate=1.0)
    for layer in ("conv", "dense"):
        first, second = (tuned[f"{layer}_{side}"].weights["bias"] for side in ("right", "left"))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, graph[f"{layer}_right"].weights["bias"])


def test_what_cannot_be_improved_comes_back_unchanged():
    graph, samples = dense_graph(), draw(64)
    model = quantized(graph, samples)
    # steps so large that every state but the first is worse
    assert tune_biases(graph, model, calibration_of(samples), steps=4, rate=500.0) is model
    assert tune_biases(graph, model, calibration_of(draw(1)), steps=4) is model
    no_bias = graph["dense"].replace(
        config={"units": 4, "use_bias": False}, weights={"kernel": np.ones((5, 4), np.float32)}
    )
    bare = graph.replace_nodes([graph["x"], no_bias])
    unbiased = quantized(bare, draw(MANY))
    assert tune_biases(bare, unbiased, calibration_of(samples), steps=4) is unbiased


def test_the_same_seed_gives_the_same_biases_and_another_seed_others():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph, count=MANY)
    model = spoiled(quantized(graph, samples, Precision(weight_bits=4)))

    def biases(seed):
        tuned = tune_biases(graph, model, calibration_of(samples), steps=10, rate=1.0, batch_size=4, seed=seed)
        return np.concatenate([n.weights["bias"] for n in tuned.nodes if "bias" in n.weights])

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
    here = tune_biases(graph, spoiled(quantized(graph, samples)), calibration_of(samples), steps=STEPS, rate=1.0)
    there = tune_biases(other, spoiled(quantized(other, large)), calibration_of(large), steps=STEPS, rate=1.0)
    step = quantized(graph, samples).grids["dense"].scale[0]
    np.testing.assert_allclose(there["dense"].weights["bias"], here["dense"].weights["bias"], atol=2 * step)


def test_a_bias_too_large_for_int32_widens_its_scale():
    graph, samples = dense_graph(), draw(64)
    node = graph["dense"]
    far = node.replace(weights={**node.weights, "bias": node.weights["bias"] + np.float32(6)})
    graph = graph.replace_nodes([graph["x"], far])
    model = quantized(graph, samples)
    grids = model["dense"].weight_grids
    tiny = {n: dataclasses.replace(g, scale=tuple(s * 2.0**-20 for s in g.scale)) for n, g in grids.items()}
    narrow = model.with_nodes(model["dense"].replace(weight_grids=tiny))
    tuned = tune_biases(graph, narrow, calibration_of(samples), steps=STEPS, rate=4.0)
    assert tuned is not narrow
    bias = tuned["dense"].weights["bias"]
    scale = np.array(tuned["dense"].weight_grids["bias"].scale)
    assert (np.abs(bias / scale) < 2**30 * 1.001).all()
    np.testing.assert_allclose(snap(tuned)["dense"].weights["bias"], bias, rtol=1e-6)


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
