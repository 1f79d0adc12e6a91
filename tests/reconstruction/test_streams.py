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
    return [(tuple(s.tensors), s.writers, s.readers) for s in streams(graph(*nodes, **options))]


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
    assert len(stream.free) == 6
    np.testing.assert_array_equal(stream.tensors["flat"].factors, np.tile(stream.tensors["a"].factors, 16))


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


def shuffled(source, *, parts=2):
    """Channels of `parts` joined tensors that take turns, as in a ShuffleNet, and the first half of them."""
    return (
        Node("apart", "Reshape", {"target_shape": (16, parts, 6)}, (source,)),
        Node("turned", "Permute", {"dims": (1, 3, 2)}, ("apart",)),
        Node("beside", "Reshape", {"target_shape": (4, 4, 6 * parts)}, ("turned",)),
        Node("half", "Slice", {"begin": (None, None, 0), "end": (None, None, 6), "strides": (None,) * 3}, ("beside",)),
    )


def test_channels_are_followed_through_a_shuffle():
    joined = Node("joined", "Concatenate", {"axis": -1}, ("a", "b"))
    nodes = conv("a", "x"), conv("b", "x"), joined, *shuffled("joined"), conv("last", "half")
    (stream,) = streams(graph(*nodes))
    assert tuple(stream.tensors) == ("a", "b", "joined", "beside", "half")  # the others hold no whole channels
    assert (stream.writers, stream.readers) == (("a", "b"), ("last",))
    assert stream.free.all()
    of = {name: channels.factors for name, channels in stream.tensors.items()}
    assert len(set(of["a"]) | set(of["b"])) == len(stream.free) == 12
    np.testing.assert_array_equal(of["joined"], np.concatenate([of["a"], of["b"]]))
    np.testing.assert_array_equal(of["beside"], np.stack([of["a"], of["b"]], axis=1).ravel())
    np.testing.assert_array_equal(of["half"], of["beside"][:6])
    places = {name: channels.places for name, channels in stream.tensors.items()}
    (parents,) = stream.tensors["half"].parents
    np.testing.assert_array_equal(parents, np.stack([places["a"], places["b"]], axis=1).ravel()[:6])


def test_what_stands_beside_a_channel_that_keeps_its_factor_has_one():
    nodes = conv("a", "x"), Node("joined", "Concatenate", {"axis": -1}, ("x", "a")), wide("last", "joined")
    (stream,) = streams(graph(*nodes))
    assert stream.writers == ("a",)
    np.testing.assert_array_equal(stream.free[stream.tensors["joined"].factors], [False] * 6 + [True] * 6)
    (parents,) = stream.tensors["joined"].parents
    np.testing.assert_array_equal(parents, [-1] * 6 + stream.tensors["a"].places.tolist())


def test_channels_that_are_written_side_by_side_are_the_same_ones():
    """As where nearest neighbours are written as concatenations."""
    nodes = (
        conv("a", "x"),
        Node("columns", "Concatenate", {"axis": -1}, ("a", "a")),
        Node("larger", "Reshape", {"target_shape": (4, 8, 6)}, ("columns",)),
        conv("last", "larger"),
    )
    (stream,) = streams(graph(*nodes))
    assert tuple(stream.tensors) == ("a", "columns", "larger")
    np.testing.assert_array_equal(stream.tensors["larger"].factors, stream.tensors["a"].factors)


def test_what_reads_channels_in_the_middle_of_a_shuffle_leaves_them_alone():
    joined = Node("joined", "Concatenate", {"axis": -1}, ("a", "b"))
    other = Node("other", "ReLU", {}, ("turned",))
    nodes = conv("a", "x"), conv("b", "x"), joined, *shuffled("joined"), conv("last", "half"), other
    assert found(*nodes, outputs=("last", "other")) == []


def wide(name, source):
    node = conv(name, source)
    return node.replace(weights={**node.weights, "kernel": np.ones((1, 1, 12, 6), np.float32)})
