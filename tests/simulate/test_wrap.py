"""The simulation of small graphs: against NumPy in exact arithmetic, and what snapping does."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list

from tfq.grid import Grid
from tfq.models.graph import Node, build_model
from tfq.precision import INT8, Precision
from tfq.quantized_model import QuantizedModel
from tfq.simulate.eager import simulate
from tfq.simulate.weights import integers, reals, snap, weight_integers
from tfq.simulate.wrap import build_simulation


def activation(exponent, zero_point, bits=8):
    return Grid((2.0**exponent,), zero_point, bits, "int8", symmetric=False)


def on_grid(values, grid):
    """Reference in float64; all scales of these tests are powers of two, so nothing is lost anywhere."""
    codes = np.floor(values / grid.scale[0] + 0.5) + grid.zero_point
    return (np.clip(codes, -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1) - grid.zero_point) * grid.scale[0]


@pytest.fixture(scope="module")
def tiny():
    """x -> 1x1 Conv2D with ReLU6 -> Dense behind a Flatten -> float softplus, and its specification by hand."""
    rng = np.random.default_rng(0)
    kernel, matrix = rng.normal(size=(1, 1, 3, 4)), rng.normal(size=(16, 2))
    per_channel = Grid((2.0**-6, 2.0**-5, 2.0**-6, 2.0**-5), 0, 8, "int8", symmetric=True, axis=3)
    bias_scales = tuple(2.0**-5 * s for s in per_channel.scale)
    bias = Grid(bias_scales, 0, 32, "int32", symmetric=True, axis=0)
    four_bits = Grid((0.5, 0.25), 0, 4, "int8", symmetric=True, axis=1)
    after_relu = {"grid": activation(-5, -128), "precision": INT8}
    nodes = (
        Node("x", "Input", {"shape": (2, 2, 3), "dtype": "float32"}, grid=activation(-5, 7)),
        Node(
            "conv",
            "Conv2D",
            {"filters": 4, "kernel_size": 1},
            ("x",),
            {"kernel": kernel.astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)},
            "relu6",
            weight_grids={"kernel": per_channel, "bias": bias},
            **after_relu,
        ),
        Node("flat", "Flatten", {}, ("conv",), **after_relu),
        Node(
            "dense",
            "Dense",
            {"units": 2, "use_bias": False},
            ("flat",),
            {"kernel": matrix.astype(np.float32)},
            weight_grids={"kernel": four_bits},
            precision=Precision(weight_bits=4),
            grid=activation(-4, 3),
        ),
        Node("soft", "Unary", {"function": "softplus"}, ("dense",), reason="float"),
    )
    return QuantizedModel(nodes, ("x",), ("dense", "soft"))


def test_simulation_is_what_the_grids_say(tiny):
    quantized = tiny
    x = np.random.default_rng(1).normal(size=(50, 2, 2, 3)).astype(np.float32) * 2
    grids = quantized.grids
    kernel_scale = np.array(quantized["conv"].weight_grids["kernel"].scale)
    kernel = np.clip(np.floor(quantized["conv"].weights["kernel"] / kernel_scale + 0.5), -127, 127) * kernel_scale
    bias_scale = np.array(quantized["conv"].weight_grids["bias"].scale)
    bias = np.rint(quantized["conv"].weights["bias"] / bias_scale) * bias_scale
    conv = on_grid(np.clip(on_grid(x, grids["x"]) @ kernel[0, 0] + bias, 0, 6), grids["conv"])
    matrix_scale = np.array(quantized["dense"].weight_grids["kernel"].scale)
    matrix = np.clip(np.floor(quantized["dense"].weights["kernel"] / matrix_scale + 0.5), -7, 7) * matrix_scale
    dense = on_grid(conv.reshape(50, 16) @ matrix, grids["dense"])
    found = predict_list(build_simulation(quantized, outputs=quantized.outputs), [x])
    assert len(np.unique(dense)) > 30
    np.testing.assert_array_equal(found[0], dense)
    np.testing.assert_allclose(found[1], np.log1p(np.exp(dense)), rtol=1e-5)


def test_any_tensor_can_be_watched_the_input_on_its_grid(tiny):
    quantized = tiny
    x = np.random.default_rng(2).normal(size=(9, 2, 2, 3)).astype(np.float32)
    watched = predict_list(build_simulation(quantized, outputs=["x", "conv", "dense"]), [x])
    np.testing.assert_array_equal(watched[0], on_grid(x, quantized.grids["x"]))
    expected = predict_list(build_simulation(quantized, outputs=["dense"]), [x])
    np.testing.assert_array_equal(watched[2], expected[0])


def test_four_bit_activations_are_what_the_grids_say(tiny):
    quantized = tiny
    grids = {"x": activation(-1, 1, 4), "conv": activation(-1, -8, 4), "flat": activation(-1, -8, 4)}
    few = quantized.with_nodes(*(quantized[name].replace(grid=grid) for name, grid in grids.items()))
    x = np.random.default_rng(3).normal(size=(20, 2, 2, 3)).astype(np.float32) * 2
    conv_node, dense_node = snap(few)["conv"], snap(few)["dense"]
    conv = on_grid(x, grids["x"]) @ conv_node.weights["kernel"][0, 0].astype(np.float64) + conv_node.weights["bias"]
    conv = on_grid(np.clip(conv, 0, 6), grids["conv"])
    dense = on_grid(conv.reshape(20, 16) @ dense_node.weights["kernel"].astype(np.float64), few.grids["dense"])
    found = predict_list(build_simulation(few, outputs=["conv", "dense"]), [x])
    assert len(np.unique(conv)) == 13  # 0 to 6 in halves
    np.testing.assert_array_equal(found[0], conv)
    np.testing.assert_array_equal(found[1], dense)


def test_outputs_by_name_whatever_the_number_of_samples(tiny):
    quantized = tiny
    quantized = dataclasses.replace(quantized, output_names=("scores", "positive"))
    x = np.random.default_rng(4).normal(size=(35, 2, 2, 3)).astype(np.float32)
    expected = predict_list(build_simulation(quantized, outputs=quantized.outputs), [x])
    found = simulate(quantized, {"x": x})
    assert list(found) == ["scores", "positive"]
    for name, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_snapping_twice_changes_nothing_and_the_integers_stay(name):
    graph = operator_graphs.ALL[name]()
    for bits in (8, 3):
        quantized = operator_graphs.specified(graph, operator_graphs.draw(graph), Precision(weight_bits=bits))
        once = snap(quantized)
        twice = snap(once)
        changed = 0
        for layer in quantized.layers:
            codes = weight_integers(layer)
            for weight, value in once[layer.name].weights.items():
                np.testing.assert_array_equal(twice[layer.name].weights[weight], value)
                if weight in codes:
                    np.testing.assert_array_equal(weight_integers(once[layer.name])[weight], codes[weight])
                    changed += not np.array_equal(value, graph[layer.name].weights[weight])
        assert changed


def test_integers_of_weights_round_to_nearest_and_clip():
    grid = Grid((0.5, 0.25), 0, 3, "int8", symmetric=True, axis=1)
    values = np.array([[0.74, 0.38], [-9.0, 9.0], [0.76, 0.0]], np.float32)
    codes = integers(values, grid)
    assert codes.tolist() == [[1, 2], [-4, 3], [2, 0]]
    assert reals(codes, grid).tolist() == [[0.5, 0.5], [-2.0, 0.75], [1.0, 0.0]]


def test_integers_of_biases_round_half_away_from_zero():
    grid = Grid((0.5,), 0, 32, "int32", symmetric=True)
    assert integers(np.array([0.75, -0.75, 0.25, 1e9], np.float32), grid).tolist() == [2, -2, 1, 2000000000]


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_simulation_stays_near_the_float_model(name):
    graph = operator_graphs.ALL[name]()
    samples = operator_graphs.draw(graph)
    quantized = operator_graphs.specified(graph, samples)
    feeds = [samples[n] for n in graph.inputs]
    exact = predict_list(build_model(graph, outputs=graph.outputs), feeds)
    simulated = predict_list(build_simulation(quantized, outputs=graph.outputs), feeds)
    for y, q in zip(exact, simulated, strict=True):
        noise = np.square(y - q).sum() / np.square(y - y.mean()).sum()
        assert 0 < noise < 0.02
