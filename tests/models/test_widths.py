"""Which tensors get few bits: on random residual networks and on small graphs with an answer known by hand."""

import numpy as np
import operator_graphs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.models.equality import relative_error, run_graph
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.rewrite import without_unused
from tfq.models.widths import activation_bits, assign_precisions, first_and_last, is_weighted
from tfq.operations.table import OPERATORS
from tfq.precision import INT8, SIMULATED, Precision

CHANNELS = 4
NARROW = Precision(weight_bits=3, activation_bits=4)


def conv(name, source, *, size=3, group="", seed=0):
    weights = {"kernel": np.random.default_rng(seed).normal(size=(size, size, CHANNELS, CHANNELS)) / (3 * size)}
    config = {"filters": CHANNELS, "kernel_size": size, "padding": "same", "use_bias": False}
    return Node(name, "Conv2D", config, (source,), {"kernel": weights["kernel"].astype(np.float32)}, group=group)


def image(name="image"):
    return Node(name, INPUT, {"shape": (6, 6, CHANNELS), "dtype": "float32"})


@st.composite
def networks(draw):
    """Convolutions, sums, pooling and concatenations of whatever came before, several inputs and outputs."""
    inputs = [image(f"in{k}") for k in range(draw(st.integers(1, 2)))]
    nodes, names = list(inputs), [node.name for node in inputs]
    for index in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["Conv2D", "Conv2D", "Add", "ReLU", "MaxPooling2D", "Concatenate", "Sigmoid"]))
        source, other, name = draw(st.sampled_from(names)), draw(st.sampled_from(names)), f"n{index}"
        if kind == "Conv2D":
            nodes.append(conv(name, source, seed=index, group=draw(st.sampled_from(["", "", "shared"]))))
        elif kind == "Add":
            nodes.append(Node(name, kind, {}, (source, other)))
        elif kind == "Concatenate":  # along the rows, and halved again: the shape stays
            nodes.append(Node(f"{name}.join", kind, {"axis": 1}, (source, other)))
            nodes.append(Node(name, "MaxPooling2D", {"pool_size": (2, 1)}, (f"{name}.join",)))
        elif kind == "MaxPooling2D":
            nodes.append(Node(name, kind, {"pool_size": 3, "strides": 1, "padding": "same"}, (source,)))
        else:
            nodes.append(Node(name, kind, {}, (source,)))
        names.append(name)
    shared = [node.weights for node in nodes if node.group == "shared"]
    nodes = [node.replace(weights=shared[0]) if node.group == "shared" else node for node in nodes]
    outputs = draw(st.lists(st.sampled_from(names[len(inputs) :]), min_size=1, max_size=2, unique=True))
    ends = tuple(dict.fromkeys([*outputs, names[-1]]))
    graph = without_unused(Graph(tuple(nodes), tuple(node.name for node in inputs), ends))
    try:
        grid_groups(graph)
    except ValueError:  # a sigmoid joined with something else: `separate_grids` would have come before
        return draw(networks())
    return graph


def paths(graph, start, end):
    """Every path between two nodes, as lists of names."""
    if start == end:
        return [[end]]
    return [[start, *rest] for reader in sorted(set(graph.readers[start])) for rest in paths(graph, reader, end)]


def first_and_last_by_paths(graph):
    """The definition itself, by listing all paths."""
    found = set()
    for node in filter(is_weighted, graph.nodes):
        into = [p[:-1] for start in graph.inputs for p in paths(graph, start, node.name)]
        out = [p[1:] for end in graph.outputs for p in paths(graph, node.name, end)]
        if any(not any(is_weighted(graph[n]) for n in path) for path in into + out):
            found.add(node.group)
    return {node.name for node in graph.nodes if is_weighted(node) and node.group in found}


@settings(max_examples=60)
@given(networks())
def test_first_and_last_are_those_of_the_definition(graph):
    assert first_and_last(graph) == first_and_last_by_paths(graph)


@settings(max_examples=25)
@given(networks(), st.sampled_from([0, 8]))
def test_every_few_bit_tensor_has_a_grid_and_readers_of_its_own(graph, first_last_bits):
    separated, precisions = assign_precisions(graph, NARROW, first_last_bits=first_last_bits)
    apart = first_and_last(graph) if first_last_bits else set()
    layers = {node.name for node in graph.nodes if is_weighted(node)}
    assert precisions == {name: INT8 if name in apart else NARROW for name in layers}
    groups, readers = grid_groups(separated), separated.readers
    few = {separated[name].inputs[0] for name in layers - apart}
    assert activation_bits(separated, precisions) == dict.fromkeys(few, 4)
    for name in few:
        assert [tensor for tensor, group in groups.items() if group == groups[name]] == [name] == [groups[name]]
        assert set(readers[name]) <= layers - apart
        assert name not in separated.outputs
        assert separated[name].kind == INPUT or OPERATORS[separated[name].kind].output == "own"
    # nothing else is touched: the same nodes in the same order, but for the copies, each of which is read
    copies = [node for node in separated.nodes if node.name not in graph.by_name]
    assert all(node.kind == "Requantize" and readers[node.name] for node in copies)
    assert [n.name for n in separated.nodes if n.name in graph.by_name] == [n.name for n in graph.nodes]
    assert separated.outputs == graph.outputs
    # the function stays
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 6, 6, CHANNELS)).astype(np.float32) for name in graph.inputs}
    assert relative_error(run_graph(graph, inputs), run_graph(separated, inputs)) < 1e-5


def residual_network():
    """As in a ResNet: conv - (conv - conv) + - (conv - conv) + conv(1x1) - pool - dense."""
    dense = Node("dense", "Dense", {"units": 2, "use_bias": False}, ("pool",), {"kernel": np.ones((4, 2), np.float32)})
    nodes = (
        image(),
        conv("stem", "image"),
        conv("a1", "stem"),
        conv("a2", "a1"),
        Node("a", "Add", {}, ("stem", "a2"), activation="relu"),
        conv("b1", "a"),
        conv("b2", "b1"),
        conv("short", "a", size=1),
        Node("b", "Add", {}, ("short", "b2"), activation="relu"),
        Node("pool", "GlobalAveragePooling2D", {}, ("b",)),
        dense,
    )
    return Graph(nodes, ("image",), ("dense",))


def test_the_residual_path_keeps_8_bits():
    graph = residual_network()
    assert first_and_last(graph) == {"stem", "dense"}
    separated, precisions = assign_precisions(graph, SIMULATED, first_last_bits=8)
    # "stem" is also added; "a" is read by two convolutions and nothing else
    assert [n.name for n in separated.nodes if n.name not in graph.by_name] == ["stem.narrow"]
    assert separated["a1"].inputs == ("stem.narrow",)
    assert separated["a"].inputs == ("stem", "a2")
    assert activation_bits(separated, precisions) == dict.fromkeys(["stem.narrow", "a1", "a", "b1"], 4)
    assert {name for name, precision in precisions.items() if precision == INT8} == {"stem", "dense"}
    assert {precision for name, precision in precisions.items() if name not in ("stem", "dense")} == {SIMULATED}
    assert separated["stem.narrow"].origin == graph["stem"].origin


def test_without_an_exception_input_and_last_layer_have_few_bits_too():
    w4a5 = Precision(weight_bits=4, activation_bits=5)
    separated, precisions = assign_precisions(residual_network(), w4a5)
    bits = activation_bits(separated, precisions)
    assert bits == dict.fromkeys(["image", "stem.narrow", "a1", "a", "b1", "pool"], 5)
    assert set(precisions.values()) == {w4a5}


def test_8_bits_change_nothing():
    graph = residual_network()
    same, precisions = assign_precisions(graph, Precision(weight_bits=4), first_last_bits=8)
    assert same is graph
    assert activation_bits(same, precisions) == {}
    assert (precisions["stem"], precisions["a1"]) == (INT8, Precision(weight_bits=4))


def test_a_normalisation_of_the_input_is_not_the_first_layer_alone():
    kernel = {"depthwise_kernel": np.ones((1, 1, CHANNELS, 1), np.float32)}
    normalised = Node("normal", "DepthwiseConv2D", {"kernel_size": 1, "use_bias": False}, ("image",), kernel)
    nodes = (image(), normalised, conv("stem", "normal"), conv("middle", "stem"), conv("end", "middle"))
    assert first_and_last(Graph(nodes, ("image",), ("end",))) == {"normal", "stem", "end"}


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_every_operation_can_stand_beside_few_bits(name):
    graph = operator_graphs.ALL[name]()
    separated, precisions = assign_precisions(graph, SIMULATED)
    bits = activation_bits(separated, precisions)
    assert bits
    groups = grid_groups(separated)
    assert all(groups[tensor] == tensor for tensor in bits)
    samples = operator_graphs.draw(graph)
    assert relative_error(run_graph(graph, samples), run_graph(separated, samples)) < 1e-5
