"""What a layer alone cannot show is named, and what is drawn is drawn alike each time."""

import numpy as np
import operator_graphs

from tfq.execution.interpreter import parse_tflite
from tfq.models.graph import Graph, Node
from tfq.models.widths import dynamic_precisions
from tfq.verify import definitions
from tfq.verify.structure import verify_structure


def test_a_layer_whose_output_does_not_move_is_named():
    rng = np.random.default_rng(0)
    kernels = {"alive": rng.normal(size=(3, 3, 4, 4)), "dead": np.zeros((3, 3, 4, 4))}
    config = {"filters": 4, "kernel_size": 3, "padding": "same"}
    nodes = [Node("image", "Input", {"shape": (6, 6, 4), "dtype": "float32"})]
    for name, kernel in kernels.items():
        weights = {"kernel": kernel.astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
        nodes.append(Node(name, "Conv2D", config, ("image",), weights))
    nodes.append(Node("sum", "Add", {}, tuple(kernels)))
    case = operator_graphs.exported(Graph(tuple(nodes), ("image",), ("sum",)))
    found = verify_structure(case.content, case.model)
    assert found.unseen == ("dead",)
    assert found.layers_alone == 3


def test_a_layer_without_a_definition_is_named(monkeypatch):
    monkeypatch.delitem(definitions._UNARY, "softplus")
    case = operator_graphs.case("islands")
    assert verify_structure(case.content, case.model).unseen == ("positive",)


def test_the_same_file_is_compared_alike_each_time():
    case = operator_graphs.case("shared")
    first, second = (verify_structure(case.content, case.model) for _ in range(2))
    assert first == second
    assert first.elements_alone > 0


def test_the_places_of_a_resize_by_a_fraction_are_rounded():
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(1, 1, 3, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    nodes = (
        Node("image", "Input", {"shape": (7, 9, 3), "dtype": "float32"}),
        Node("mixed", "Conv2D", {"filters": 4, "kernel_size": 1}, ("image",), weights),
        Node("resized", "Resizing", {"height": 45, "width": 61}, ("mixed",)),
    )
    case = operator_graphs.exported(Graph(nodes, ("image",), ("resized",)))
    assert verify_structure(case.content, case.model).elements_alone > 0


def test_what_a_layer_gives_before_a_reshape_of_its_own_may_be_read_by_others():
    """The converter turns a dense layer between reshapes into one of rows, and joins the reshapes behind it."""
    rng = np.random.default_rng(0)

    def dense(name, source, inputs):
        weights = {"kernel": rng.normal(size=(inputs, 8)).astype(np.float32), "bias": rng.normal(size=8).astype("f")}
        return Node(name, "Dense", {"units": 8}, (source,), weights)

    nodes = (
        Node("x", "Input", {"shape": (6, 3), "dtype": "float32"}),
        Node("square", "MatMul", {"transpose_a": False, "transpose_b": True}, ("x", "x")),
        Node("image", "Reshape", {"target_shape": (1, 6, 6)}, ("square",)),
        dense("first", "image", 6).replace(activation="relu"),
        Node("back", "Reshape", {"target_shape": (6, 8)}, ("first",)),
        dense("second", "first", 8),
        Node("product", "MatMul", {"transpose_a": False, "transpose_b": True}, ("back", "back")),
    )
    graph = Graph(nodes, ("x",), ("second", "product"))
    edges = {"input_type": "float32", "output_type": "float32"}
    case = operator_graphs.exported(graph, dynamic_precisions(graph, 8), **edges)
    labels = [tensor.name.decode() for tensor in parse_tflite(case.content).subgraphs[0].tensors]
    assert "first/1" in labels
    assert not verify_structure(case.content, case.model).unseen
