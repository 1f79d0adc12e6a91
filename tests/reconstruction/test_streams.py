"""Which tensors share a factor, and what keeps a set of them from being a stream."""

import numpy as np
import pytest

from tfq.models.graph import Graph, Node
from tfq.reconstruction.streams import streams

SHAPE = (4, 4, 6)


def conv(name, source, *, activation=None, group="", outputs=6):
    weights = {"kernel": np.ones((1, 1, 6, outputs), np.float32), "bias": np.zeros(outputs, np.float32)}
    config = {"filters": outputs, "kernel_size": 1}
    return Node(name, "Conv2D", config, (source,), weights, activation=activation, group=group)


def graph(*nodes, outputs=("last",)):
    return Graph((Node("x", "Input", {"shape": SHAPE, "dtype": "float32"}), *nodes), ("x",), outputs)


def found(*nodes, **options):
    return [(s.tensors, s.writers, s.readers) for s in streams(graph(*nodes, **options))]


def test_a_layer_and_its_only_reader_are_the_smallest():
    ((tensors, writers, readers),) = found(conv("a", "x"), conv("last", "a"))
    assert (tensors, writers, readers) == (("a",), ("a",), ("last",))


def test_a_sum_joins_what_it_adds_and_a_layer_may_write_and_read():
    nodes = conv("a", "x"), conv("b", "a"), Node("sum", "Add", {}, ("a", "b")), conv("last", "sum")
    assert found(*nodes) == [(("a", "b", "sum"), ("a", "b"), ("b", "last"))]


def test_a_clamp_is_a_limit():
    nodes = conv("a", "x", activation="relu6"), Node("r", "ReLU", {"max_value": 3.0}, ("a",)), conv("last", "r")
    (stream,) = streams(graph(*nodes))
    assert stream.limits == {"a": 6.0, "r": 3.0}


def test_a_factor_passes_a_gate_beside_it():
    nodes = (
        conv("a", "x"),
        Node("mean", "GlobalAveragePooling2D", {"keepdims": True}, ("a",)),
        conv("narrow", "mean"),
        Node("gate", "Sigmoid", {}, ("narrow",)),
        Node("product", "Multiply", {}, ("gate", "a")),
        conv("last", "product"),
    )
    assert found(*nodes) == [(("a", "mean", "product"), ("a",), ("narrow", "last"))]


def test_what_is_flattened_holds_runs_of_the_channels():
    dense = Node("last", "Dense", {"units": 2}, ("flat",), {"kernel": np.ones((96, 2), np.float32)})
    (stream,) = streams(graph(conv("a", "x"), Node("flat", "Flatten", {}, ("a",)), dense))
    assert stream.channels == 6


@pytest.mark.parametrize(
    "reader",
    [
        Node("other", "HardSwish", {}, ("a",)),
        Node("other", "Softmax", {}, ("a",)),
        Node("other", "Multiply", {}, ("a", "a")),
        Node("other", "Add", {}, ("a", "x")),
        Node("other", "Concatenate", {"axis": -1}, ("a", "x")),
        Node("other", "ReLU", {"threshold": 1.0}, ("a",)),
        Node("other", "Mean", {"axes": (3,), "keepdims": True}, ("a",)),
    ],
    ids=lambda node: node.kind,
)
def test_any_other_reader_leaves_all_alone(reader):
    nodes = conv("a", "x"), conv("b", "x"), Node("sum", "Add", {}, ("a", "b")), conv("last", "sum"), reader
    assert found(*nodes, outputs=("last", "other")) == []


def test_an_output_of_the_model_and_a_layer_called_twice_are_left_alone():
    chain = conv("a", "x"), conv("last", "a")
    assert found(*chain, outputs=("a", "last")) == []
    twice = conv("a", "x", group="one"), conv("again", "x", group="one"), Node("sum", "Add", {}, ("a", "again"))
    assert found(*twice, conv("last", "sum")) == []
