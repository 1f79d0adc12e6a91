"""Batch-norm tuning against the same computation written out in NumPy, and what it must leave alone."""

import dataclasses
import pathlib

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list
from operator_graphs import specified

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.data.samples import Samples
from tfq.execution.resources import Resources
from tfq.models.graph import Graph, Node, build_model
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.numerics import reference as numerics
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16, Precision
from tfq.reconstruction.batch_norm import tunable_layers, tune_batch_norm
from tfq.simulate.judge import Judge
from tfq.simulate.weights import integers, snap, weight_integers
from tfq.spec import Specification

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
ROUNDED = 2.0**-7  # of a scale at 3 bits, at most


def draw(count, *, seed, shift=0.0, shape=(8, 8, 3)):
    return {"x": np.random.default_rng(seed).normal(shift, 1, (count, *shape)).astype(np.float32)}


def statistics(graph, samples, name):
    """Mean and deviation of a node's output before its activation."""
    bare = graph.replace_nodes([n.replace(activation=None) if n.name == name else n for n in graph.nodes])
    (y,) = predict_list(build_model(bare, outputs=[name]), [samples[i] for i in graph.inputs])
    y = y.reshape(-1, y.shape[-1]).astype(np.float64)
    return y.mean(0), y.std(0)


def network(seed=0, head="Softmax"):
    """Convolutions of three kinds, ReLUs fused, and a dense layer before `head`."""
    rng = np.random.default_rng(seed)

    def weights(kernel, shape, fan_in, channels):
        drawn = {kernel: rng.normal(0, np.sqrt(2 / fan_in), shape), "bias": rng.normal(0, 0.3, channels)}
        return {name: w.astype(np.float32) for name, w in drawn.items()}

    conv = {"filters": 16, "kernel_size": 3, "padding": "same"}
    pointwise = {"filters": 12, "kernel_size": 1}
    depthwise = {"kernel_size": 3, "padding": "same"}
    nodes = [
        Node("x", "Input", {"shape": (8, 8, 3), "dtype": "float32"}),
        Node("conv", "Conv2D", conv, ("x",), weights("kernel", (3, 3, 3, 16), 27, 16), "relu"),
        Node(
            "depthwise",
            "DepthwiseConv2D",
            depthwise,
            ("conv",),
            weights("depthwise_kernel", (3, 3, 16, 1), 9, 16),
            "relu6",
        ),
        Node("pointwise", "Conv2D", pointwise, ("depthwise",), weights("kernel", (1, 1, 16, 12), 16, 12)),
        Node("pool", "GlobalAveragePooling2D", {}, ("pointwise",)),
        Node("dense", "Dense", {"units": 6}, ("pool",), weights("kernel", (12, 6), 1, 6)),
    ]
    nodes += [Node("head", head, {}, ("dense",))] if head else []
    return Graph(tuple(nodes), ("x",), (nodes[-1].name,))


def judged(graph, tuned, model, *, names=("batch-norm tuning", "nearest")):
    """(the better of two models, the verdict) by samples that neither was made with."""
    return Judge(graph, draw(64, seed=9)).keep_better(*zip(names, (tuned, model), strict=True))


def decided(model):
    """What was decided for every layer, by name."""
    return {layer.name: layer for layer in Specification.of(model).layers}


def recalibrated(samples):
    total = len(samples["x"])
    return lambda graph: calibrate(graph, [samples], method="minmax", total=total).ranges


@pytest.fixture(scope="module")
def setting():
    """(float graph, calibration samples, its model on 3 bits)."""
    samples = draw(24, seed=1)
    graph = network()
    return graph, samples, specified(graph, samples, Precision(weight_bits=3))


def test_one_layer_against_numpy():
    samples = draw(24, seed=1)
    graph = Graph(network(head="").nodes[:2], ("x",), ("conv",))
    model = specified(graph, samples, Precision(weight_bits=3))
    tuned = tune_batch_norm(graph, model, Samples.of(samples))

    # the quantised layer's output on quantised inputs, without its ReLU and output grid
    grid = model.grids["x"]
    x = numerics.fake_quantize(samples["x"], grid.scale[0], grid.zero_point, -128, 127)
    raw_mean, raw_deviation = statistics(snap(model), {"x": x}, "conv")
    mean, deviation = statistics(graph, samples, "conv")
    eps = 1e-5 * np.mean(deviation**2)
    factor = np.sqrt((deviation**2 + eps) / (raw_deviation**2 + eps))
    before, after = model["conv"].weight_grids["kernel"], tuned["conv"].weight_grids["kernel"]
    np.testing.assert_allclose(after.scale, before.scale * factor, rtol=ROUNDED + 2e-4)
    factor = np.array(after.scale) / np.array(before.scale)
    rounded = snap(model)["conv"].weights["bias"]
    bias = (rounded - raw_mean) * factor + mean
    np.testing.assert_allclose(tuned["conv"].weights["bias"], bias, atol=1e-3 * np.abs(bias).max())
    found = statistics(snap(tuned), {"x": x}, "conv")
    np.testing.assert_allclose(found[1], deviation, rtol=ROUNDED + 1e-3)
    half_a_step = np.array(tuned["conv"].weight_grids["bias"].scale) / 2
    assert (np.abs(found[0] - mean) < half_a_step + 1e-4).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_integers_of_the_weights_do_not_change_and_the_kernels_lie_on_their_grids(bits):
    samples = draw(24, seed=1)
    graph = network()
    model = specified(graph, samples, Precision(weight_bits=bits))
    tuned = tune_batch_norm(graph, model, Samples.of(samples), recalibrate=recalibrated(samples))
    changed = 0
    for name in ("conv", "depthwise", "pointwise", "dense"):
        kernel = OPERATORS[graph[name].kind].kernel
        old, new = model[name].weight_grids[kernel], tuned[name].weight_grids[kernel]
        codes = weight_integers(model[name])[kernel]
        values = tuned[name].weights[kernel]
        np.testing.assert_array_equal(integers(values, new), codes)
        np.testing.assert_array_equal(snap(tuned)[name].weights[kernel], values)
        assert (new.bits, new.storage, new.axis) == (old.bits, old.storage, old.axis)
        ratio = np.array(new.scale) / np.array(old.scale)
        assert (ratio > 0.249).all()
        assert (ratio < 4.01).all()
        changed += int((ratio != 1).sum())
    assert changed > 20


def test_tuning_brings_the_outputs_of_new_samples_nearer_to_float(setting):
    graph, samples, model = setting
    tuned = tune_batch_norm(graph, model, Samples.of(samples), recalibrate=recalibrated(samples))
    kept, verdict = judged(graph, tuned, model)
    assert kept is tuned
    assert verdict.divergences["batch-norm tuning"] < 0.8 * verdict.divergences["nearest"]


def test_ranges_are_those_of_the_new_weights(setting):
    reference, samples, model = setting
    seen = []

    def recalibrate(graph):
        seen.append((graph, recalibrated(samples)(graph)))
        return seen[0][1]

    tuned = tune_batch_norm(reference, model, Samples.of(samples), recalibrate=recalibrate)
    ((graph, ranges),) = seen
    assert tuned.grids == specify(tuned, ranges, Precision(weight_bits=3)).grids
    assert tuned.grids != model.grids
    assert tune_batch_norm(reference, model, Samples.of(samples)).grids == model.grids
    for node in tuned.nodes:
        for name, values in node.weights.items():
            step = np.max(model[node.name].weight_grids[name].scale) if name == "bias" else 0
            np.testing.assert_allclose(graph[node.name].weights[name], values, rtol=0, atol=2 * step)
    for layer in tuned.layers:
        if "bias" in layer.weight_grids:
            expected = numerics.bias_scale(
                tuned.grids[layer.inputs[0]].scale[0],
                np.array(layer.weight_grids[OPERATORS[layer.kind].kernel].scale),
            )
            np.testing.assert_array_equal(layer.weight_grids["bias"].scale, expected)


def test_batches_are_pooled_into_the_statistics_over_all_samples():
    """With one layer no layer before it is normalised by batch: any split into batches must give the same."""
    samples = draw(40, seed=3)
    graph = Graph(network(head="").nodes[:2], ("x",), ("conv",))
    model = specified(graph, draw(24, seed=1), Precision(weight_bits=3))
    whole = tune_batch_norm(graph, model, Samples.of(samples))
    seven = Resources(memory_limit=6 * 4 * 8 * 8 * 16 * 7)
    parts = tune_batch_norm(graph, model, Samples.of(samples), resources=seven)
    np.testing.assert_allclose(
        parts["conv"].weight_grids["kernel"].scale, whole["conv"].weight_grids["kernel"].scale, rtol=2 * ROUNDED
    )
    np.testing.assert_allclose(parts["conv"].weights["bias"], whole["conv"].weights["bias"], rtol=1e-2, atol=1e-2)


def test_a_channel_without_variance_keeps_its_scale():
    samples = draw(24, seed=1)
    graph = network()
    conv = graph["conv"]
    kernel = conv.weights["kernel"].copy()
    kernel[..., 3] = 0
    dead = conv.replace(weights={**conv.weights, "kernel": kernel})
    graph = graph.replace_nodes([dead if n.name == "conv" else n for n in graph.nodes])
    model = specified(graph, samples, Precision(weight_bits=3))
    tuned = tune_batch_norm(graph, model, Samples.of(samples))
    scales = [v["conv"].weight_grids["kernel"].scale for v in (model, tuned)]
    assert scales[0][3] == scales[1][3]
    assert scales[0] != scales[1]
    assert tuned["conv"].weights["bias"][3] == pytest.approx(conv.weights["bias"][3], rel=1e-4)


def test_a_channel_whose_weights_are_all_rounded_to_zero_gets_its_mean_and_is_not_blown_up():
    samples = draw(24, seed=1)
    graph = network()
    model = specified(graph, samples, Precision(weight_bits=4))
    grid = model["conv"].weight_grids["kernel"]
    wide = dataclasses.replace(grid, scale=(*grid.scale[:5], 100.0, *grid.scale[6:]))
    bias = model["conv"].weight_grids["bias"]
    bias = dataclasses.replace(bias, scale=(*bias.scale[:5], 100 * model.grids["x"].scale[0], *bias.scale[6:]))
    model = model.with_nodes(model["conv"].replace(weight_grids={"kernel": wide, "bias": bias}))
    assert not weight_integers(model["conv"])["kernel"][..., 5].any()
    tuned = tune_batch_norm(graph, model, Samples.of(samples))
    assert tuned["conv"].weight_grids["kernel"].scale[5] == pytest.approx(400, rel=1e-3)
    mean, _ = statistics(graph, samples, "conv")
    assert tuned["conv"].weights["bias"][5] == pytest.approx(mean[5], rel=1e-3)


def test_layers_that_cannot_take_a_factor_per_channel_are_left_alone():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    model = specified(graph, samples, Precision(weight_bits=3))
    expected = [
        "stem",
        "depthwise",
        "zero_bias",
        "transposed",
        "hidden",
    ]  # no bias: no_bias, logits; two a scale: doubled
    assert tunable_layers(model) == expected
    tuned = tune_batch_norm(graph, model, Samples.of(samples))
    for name in ("doubled", "no_bias", "logits"):
        assert decided(tuned)[name] == decided(model)[name]
        assert tuned[name].weights.keys() == graph[name].weights.keys()
    mixed = specified(graph, samples, {expected[0]: FLOAT16, expected[1]: Precision(entropy_bits=3)})
    assert tunable_layers(mixed) == expected[2:]
    per_tensor = specified(graph, samples, per_channel=False)
    assert tune_batch_norm(graph, per_tensor, Samples.of(samples)) is per_tensor


def test_calls_of_one_layer_are_left_alone():
    graph = operator_graphs.shared()
    samples = operator_graphs.draw(graph)
    model = specified(graph, samples, Precision(weight_bits=3))
    assert tune_batch_norm(graph, model, Samples.of(samples)) is model


def test_float_layers_are_left_alone():
    graph = operator_graphs.islands()
    samples = operator_graphs.draw(graph)
    model = specified(graph, samples, Precision(weight_bits=3))
    tuned = tune_batch_norm(graph, model, Samples.of(samples))
    assert {x.name: x.precision for x in tuned.layers} == {x.name: x.precision for x in model.layers}


def test_one_sample_is_enough_to_run(setting):
    graph, samples, model = setting
    tuned = tune_batch_norm(graph, model, Samples.of({"x": samples["x"][:1]}))
    assert all(np.isfinite(w).all() for n in tuned.nodes for w in n.weights.values())


def test_keyword_spotting_gains_although_trained_on_other_samples():
    """Its batch normalisations were trained on augmented recordings."""
    if not (DATA / "models" / "kws_dscnn.h5").exists():
        pytest.skip("kws_dscnn.h5 is not there: the real models of shared/data are no part of the project")
    graph = load_model(DATA / "models" / "kws_dscnn.h5").graph
    (name,) = graph.inputs
    with np.load(DATA / "kws_mlperf_tiny.npz") as file:
        values = file["x"].astype(np.float32)
    samples, held = {name: values[:100]}, {name: values[100:164]}
    graph = prepare(graph, {name: values[:8]}).graph
    ranges = calibrate(graph, [samples], method="minmax", total=100).ranges
    model = specify(graph, ranges, Precision(weight_bits=4))
    assert len(tunable_layers(model)) == 10
    tuned = tune_batch_norm(graph, model, Samples.of(samples))
    judge = Judge(graph, held)
    kept, verdict = judge.keep_better(("tuned", tuned), ("nearest", model))
    assert kept is tuned
    assert verdict.divergences["tuned"] < 0.5 * verdict.divergences["nearest"]
