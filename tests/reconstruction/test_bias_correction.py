"""Bias correction of a whole network: mean errors go, and what so few samples cannot tell from chance stays."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
from operator_graphs import draw, specified

from tfq.data.samples import Samples
from tfq.models.graph import Graph, Node
from tfq.precision import Precision
from tfq.reconstruction.bias_correction import correct_biases
from tfq.simulate.eager import tensors

X = {"x": np.random.default_rng(0).uniform(0, 1, (64, 6, 6, 3)).astype(np.float32)}


def network(activation):
    """Two convolutions; biases at which some channels are active everywhere, and others hardly anywhere."""
    rng, nodes = np.random.default_rng(1), [Node("x", "Input", {"shape": (6, 6, 3), "dtype": "float32"})]
    for name, channels in (("first", 3), ("last", 8)):
        kernel = rng.normal(size=(3, 3, channels, 8)).astype(np.float32)
        weights = {"kernel": kernel, "bias": np.linspace(-6, 6, 8, dtype=np.float32)}
        config = {"filters": 8, "kernel_size": 3, "padding": "same"}
        nodes.append(Node(name, "Conv2D", config, (nodes[-1].name,), weights, activation=activation))
    return Graph(tuple(nodes), ("x",), ("last",))


def mean_errors(graph, model, name):
    """Of a layer's output in every channel, before it is put on its grid."""
    bare = model.with_nodes(model[name].replace(grid=None))
    return [np.mean(q - y, (0, 1, 2)) for y, q in zip(tensors(graph, X, [name]), tensors(bare, X, [name]), strict=True)]


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_the_mean_error_behind_the_activation_goes(activation):
    graph = network(activation)
    model = specified(graph, X, Precision(weight_bits=4))
    corrected = correct_biases(graph, model, Samples.of(X))
    for name in ("first", "last"):
        (before,), (after,) = (mean_errors(graph, m, name) for m in (model, corrected))
        assert np.abs(after).mean() < 0.2 * np.abs(before).mean()
    for node, other in zip(model.nodes, corrected.nodes, strict=True):
        bias = {"weights": other.weights}
        assert dataclasses.replace(node, **bias) == dataclasses.replace(other, **bias)
        for variable in set(node.weights) - {"bias"}:
            np.testing.assert_array_equal(node.weights[variable], other.weights[variable])


def test_a_channel_at_rest_is_left_at_rest():
    graph = network("relu")
    graph["first"].weights["bias"][0] = -1000.0
    model = specified(graph, X, Precision(weight_bits=4))
    assert correct_biases(graph, model, Samples.of(X))["first"].weights["bias"][0] == -1000.0


def test_an_error_that_is_chance_stays():
    """Each sample has its own error, of either sign: their mean says nothing about others."""
    signs = np.tile([1.0, -1.0], 32).reshape(-1, 1, 1, 1)
    x = {"x": (signs * np.random.default_rng(0).uniform(0.5, 1, (64, 1, 1, 3))).astype(np.float32)}
    kernel = np.array([[[[1.0], [0.3], [0.1]]]], np.float32)
    weights = {"kernel": kernel, "bias": np.zeros(1, np.float32)}
    nodes = (
        Node("x", "Input", {"shape": (1, 1, 3), "dtype": "float32"}),
        Node("last", "Conv2D", {"filters": 1, "kernel_size": 1}, ("x",), weights),
    )
    graph = Graph(nodes, ("x",), ("last",))
    model = specified(graph, x, Precision(weight_bits=3))
    (y,), (q,) = tensors(graph, x), tensors(model, x)
    corrected = correct_biases(graph, model, Samples.of(x))
    assert np.abs(q - y).mean() > 0.03
    assert np.abs(corrected["last"].weights["bias"]).max() <= np.abs((y - q).mean())
    assert np.abs(corrected["last"].weights["bias"]).max() < 0.1 * np.abs(q - y).mean()


@pytest.mark.parametrize("name", ["shared", "transformer", "arithmetic"])
def test_calls_of_one_layer_share_a_bias_and_layers_without_one_keep_none(name):
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    model = specified(graph, samples, Precision(weight_bits=4))
    corrected, biases = correct_biases(graph, model, Samples.of(samples)), {}
    for node, other in zip(model.nodes, corrected.nodes, strict=True):
        assert set(node.weights) == set(other.weights)
        if "bias" in node.weights:
            shared = biases.setdefault(node.group, other.weights["bias"])
            np.testing.assert_array_equal(other.weights["bias"], shared)
