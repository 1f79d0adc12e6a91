"""Which nodes are float and which tensors have a grid, against every set that the rule allows."""

import itertools

import operator_graphs
import pytest

from tfq.models.borders import find_borders
from tfq.models.grids import grid_groups
from tfq.models.widths import is_weighted

LAYERS = ("stem", "depthwise", "branch", "last", "dense")
FREE = ("image", "add", "pool", "slopes", "mean", "probabilities")


@pytest.fixture(scope="module")
def graph():
    return operator_graphs.residual()


def without_grid(graph, floats, float_outputs):
    """Tensors that only float nodes know; an input is a float node when the file takes float32."""
    readers = graph.readers
    return {n for n in floats if set(readers[n]) <= floats and (float_outputs or n not in graph.outputs)}


def allowed(graph, chosen, following, float_inputs, float_outputs):
    if "image" in following and not float_inputs:
        return False
    tensors = without_grid(graph, chosen | following, float_outputs)
    copied = {source for name in chosen for source in graph[name].inputs}
    read = {name: set(graph[name].inputs) for name in following & tensors}
    return following <= tensors and all(
        name == "image" or (r & tensors and r <= tensors | copied) for name, r in read.items()
    )


def test_the_graph_has_these_nodes(graph):
    assert {n.name for n in graph.nodes if is_weighted(n)} == set(LAYERS)
    assert {n.name for n in graph.nodes} == {*LAYERS, *FREE}


@pytest.mark.parametrize("edges", itertools.product([False, True], repeat=2))
def test_the_largest_set_is_found_for_every_choice(graph, edges):
    subsets = [set(s) for k in range(len(FREE) + 1) for s in itertools.combinations(FREE, k)]
    sizes = set()
    for k in range(len(LAYERS) + 1):
        for chosen in map(set, itertools.combinations(LAYERS, k)):
            valid = [s for s in subsets if allowed(graph, chosen, s, *edges)]
            largest = max(valid, key=len)
            assert all(s <= largest for s in valid)
            tensors = without_grid(graph, chosen | largest, edges[1])
            found = find_borders(graph, chosen, float_inputs=edges[0], float_outputs=edges[1])
            assert found.nodes == (chosen | largest) - {"image"}
            assert found.tensors == tensors
            assert found.quantized == {n for n in found.nodes if n not in tensors}
            read = {source for name in found.nodes for source in graph[name].inputs}
            assert found.dequantized == read - tensors
            sizes.add(len(largest))
    assert len(sizes) > 3


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_without_a_choice_float_are_the_nodes_without_an_int8_form(name):
    graph = operator_graphs.ALL[name]()
    groups, found = grid_groups(graph), find_borders(graph)
    # the sum lies in front of a float GELU, and a float ELU reads what else it adds
    following = {"ratio.grid", "sum"} if name == "islands" else set()
    assert found.nodes == {n.name for n in graph.nodes if n.name not in groups and n.kind != "Input"} | following
    assert found.tensors == {n.name for n in graph.nodes if n.name not in groups} | following
    assert not found.quantized


def test_a_requantize_node_reads_a_float_layer_without_a_grid_between():
    graph = operator_graphs.islands()
    found = find_borders(graph, ["second"])
    assert {"second", "elu"} <= found.tensors
    # a float exponential and softmax read the scores, a float concatenation both
    assert found.dequantized == {"first", "scores", "pooled"}
    assert not found.quantized
    assert "elu.grid" in found.nodes  # lies between the float ELU and the float layer
    assert "smooth.grid" not in found.nodes


def test_an_embedding_never_becomes_float():
    graph = operator_graphs.transformer()
    found = find_borders(graph, [n.name for n in graph.nodes if is_weighted(n)], float_outputs=True)
    assert "embedding" not in found.nodes
    assert "attention" in found.nodes
