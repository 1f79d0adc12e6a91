"""The order in which a network is computed, and what of it is kept."""

import contextlib

import numpy as np
import operator_graphs
import pytest

from tfq.models.equality import schedule
from tfq.simulate.eager import tensors
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.walk import Walk


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_every_tensor_is_there_when_it_is_read_and_goes_after_its_last_reader(name):
    graph = operator_graphs.ALL[name]()
    for names in (None, graph.outputs, [graph.nodes[len(graph.nodes) // 2].name]):
        present, gone = set(), set()
        for node, done in schedule(graph, names):
            assert set(graph[node].inputs) <= present
            present.add(node)
            present -= set(done)
            gone |= set(done)
        if names is None:
            assert present == {node.name for node in graph.nodes if not graph.readers[node.name]}
            assert present | gone == set(graph.by_name)
        else:
            assert present == set(names)


def test_what_is_not_needed_is_not_computed():
    graph = operator_graphs.convolutions()
    assert [node for node, _ in schedule(graph, ["stem"])] == ["image", "stem"]


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_walk_stops_before_a_node_and_goes_on_with_another_model(limit):
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    model = operator_graphs.specified(graph, samples)
    with contextlib.closing(TensorStore(limit)) as store:
        walk = Walk(graph, samples, store, names=["stem", "logits"])
        walk.advance(model, until="depthwise")
        assert "stem" in store
        assert "depthwise" not in store
        raw = walk.read("stem", slice(3, 9), on_grid=False)
        (stem,) = tensors(model, samples, ["stem"])
        np.testing.assert_array_equal(walk.read("stem"), stem)
        assert not np.array_equal(raw, stem[3:9])
        empty = [n.replace(weights={k: 0 * v for k, v in n.weights.items()}) for n in model.nodes]
        walk.advance(model.with_nodes(*empty))
        assert len(np.unique(walk.read("logits"))) == 1
