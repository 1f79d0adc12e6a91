"""What is computed node by node is what the wrapped Keras model computes."""

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list

from tfq.models.graph import INPUT, build_model
from tfq.models.widths import is_weighted
from tfq.precision import FLOAT16, FLOAT32, Precision
from tfq.simulate.eager import tensor_parts, tensors
from tfq.simulate.wrap import build_simulation


def mixed(graph):
    """Every layer in one of these precisions, calls of one layer in the same."""
    choices = (Precision(weight_bits=4), FLOAT16, Precision(weight_bits=8), FLOAT32)
    groups = list(dict.fromkeys(node.group for node in graph.nodes if is_weighted(node)))
    chosen = {group: choices[i % len(choices)] for i, group in enumerate(groups)}
    return {node.name: chosen[node.group] for node in graph.nodes if is_weighted(node)}


def near(found, expected, grid):
    """The same but for the order of sums, which may turn a rounding on the grid."""
    if grid is None:
        return np.allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1e-6, float(np.abs(expected).max())))
    steps = np.rint(np.abs(found - expected) / grid.scale[0])
    return steps.max() <= 1 and (steps > 0).mean() < 0.02


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_every_tensor_is_that_of_the_wrapped_model(name):
    graph = operator_graphs.ALL[name]()
    samples = operator_graphs.draw(graph)
    for precisions in (Precision(), mixed(graph)):
        model = operator_graphs.specified(graph, samples, precisions)
        names = [node.name for node in model.nodes if node.kind != INPUT or node.grid is not None]
        wrapped = predict_list(build_simulation(model, outputs=names), [samples[n] for n in model.inputs])
        found = tensors(model, samples, names)
        for node, one, other in zip(names, found, wrapped, strict=True):
            assert one.shape == other.shape
            assert near(one, other, model[node].grid), (node, precisions)


def test_a_float_graph_and_parts_of_it():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    feeds = [samples[n] for n in graph.inputs]
    expected = predict_list(build_model(graph, outputs=graph.outputs), feeds)
    for one, other in zip(tensors(graph, samples), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    few = list(tensor_parts(graph, samples, ["stem"]))
    assert [part.start for part, _ in few] == list(range(0, len(feeds[0]), 2))
    (whole,) = tensors(graph, samples, ["stem"])
    np.testing.assert_allclose(np.concatenate([values[0] for _, values in few]), whole, rtol=1e-5, atol=1e-6)
