"""Reshapes that cancel, hard-swish, fused clamps, absorbed padding, split groups and separated grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.models.decompose import decompose, split_activations
from tfq.models.equality import relative_error, run_graph
from tfq.models.fuse import absorb_padding, fuse_activations, merge_duplicates, recognise_hard_swish, split_groups
from tfq.models.graph import Graph, Node
from tfq.models.grids import grid_groups, separate_grids
from tfq.models.reshapes import cancel_reshapes

IMAGE = (6, 8, 4)


def graph_of(*nodes, shape=IMAGE, outputs=None, dtype="float32"):
    """Input "x" -> nodes one after the other; a node that names its inputs keeps them."""
    made = [Node("x", "Input", {"shape": shape, "dtype": dtype})]
    for node in nodes:
        made.append(node if node.inputs else node.replace(inputs=(made[-1].name,)))
    return Graph(tuple(made), ("x",), tuple(outputs or (made[-1].name,)))


def convolution(name, *, filters=4, kernel=1, channels=4, **config):
    weights = {"kernel": np.random.default_rng(len(name)).normal(size=(kernel, kernel, channels, filters))}
    weights["bias"] = np.linspace(-1, 1, filters)
    config = {"filters": filters, "kernel_size": (kernel, kernel), "use_bias": True, **config}
    return Node(name, "Conv2D", config, weights={n: w.astype(np.float32) for n, w in weights.items()})


def affine(name, scale, offset, channels=4, inputs=()):
    values = {"scale": scale, "offset": offset}
    return Node(name, "Affine", {}, inputs, {n: np.full(channels, v, np.float32) for n, v in values.items()})


RELU6 = Node("relu6", "ReLU", {"max_value": 6.0})
RELU = Node("relu", "ReLU")


def check(before, after, *, bound=2e-6):
    x = np.random.default_rng(5).normal(0, 3, (3, *before["x"].config["shape"])).astype(np.float32)
    assert relative_error(run_graph(before, {"x": x}), run_graph(after, {"x": x})) < bound
    assert after.output_names == before.output_names
    return after


def kinds(graph):
    return [n.kind for n in graph.nodes[1:]]


# --- reshapes ---


def test_a_one_dimensional_network_becomes_a_two_dimensional_one_between_two_reshapes():
    kernels = [np.random.default_rng(i).normal(size=(3, 4, 4)).astype(np.float32) for i in range(2)]
    config = {"filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False, "activation": "swish"}
    graph = graph_of(
        Node("first", "Conv1D", config, weights={"kernel": kernels[0]}),
        Node("pool", "MaxPooling1D", {"pool_size": 2}),
        Node("second", "Conv1D", config, weights={"kernel": kernels[1]}),
        Node("sum", "Add", inputs=("second", "pool")),
        Node("mean", "GlobalAveragePooling1D"),
        shape=(8, 4),
    )
    made = check(graph, cancel_reshapes(decompose(split_activations(graph))))
    assert kinds(made) == [
        *("Reshape", "Conv2D", "Sigmoid", "Multiply", "MaxPooling2D"),
        *("Conv2D", "Sigmoid", "Multiply", "Add", "GlobalAveragePooling2D"),
    ]


def test_a_reshape_that_does_nothing_goes_and_a_chain_becomes_one():
    nodes = [Node(f"r{i}", "Reshape", {"target_shape": s}) for i, s in enumerate([(192,), (2, -1), (4, 48), (6, 8, 4)])]
    assert kinds(check(graph_of(*nodes, RELU), cancel_reshapes(graph_of(*nodes, RELU)))) == ["ReLU"]
    made = check(graph_of(*nodes[:3]), cancel_reshapes(graph_of(*nodes[:3])))
    assert [(n.kind, n.config.get("target_shape")) for n in made.nodes[1:]] == [("Reshape", (4, 48))]


@pytest.mark.parametrize(
    "node",
    [
        Node("n", "Unary", {"function": "log_softmax"}),
        Node("n", "Softmax"),
        Node("n", "LayerNormalization", {"axis": [-1], "center": False, "scale": False}),
    ],
)
def test_what_works_on_the_last_axis_moves_only_across_reshapes_that_keep_it(node):
    graph = graph_of(Node("r", "Reshape", {"target_shape": (12, 16)}), node)
    assert cancel_reshapes(graph) is graph
    graph = graph_of(
        Node("r", "Reshape", {"target_shape": (48, 4)}), node, Node("s", "Reshape", {"target_shape": IMAGE})
    )
    assert kinds(check(graph, cancel_reshapes(graph))) == [node.kind]


@pytest.mark.parametrize("also_read", [False, True])
def test_global_pooling_keeps_the_image_if_every_reader_wants_one(also_read):
    nodes = [Node("pool", "GlobalAveragePooling2D"), Node("image", "Reshape", {"target_shape": (1, 1, 4)})]
    nodes.append(Node("product", "Multiply", inputs=("x", "image")))
    graph = graph_of(*nodes, outputs=("product", "pool") if also_read else None)
    made = check(graph, cancel_reshapes(graph))
    assert ("Reshape" in kinds(made)) == also_read


# --- patterns ---

HARD_SWISHES = {
    "factor behind the gate": [affine("add", 1, 3), RELU6, affine("six", 1 / 6, 0), "gate:six"],
    "factor behind the product": [affine("add", 1, 3), RELU6, "gate:relu6", affine("six", 1 / 6, 0)],
    "factor before the product": [affine("six", 1 / 6, 0), affine("add", 1, 3, inputs=("x",)), RELU6, "six:relu6"],
}


def product_graph(parts, offset=3.0):
    nodes = []
    for part in parts:
        if isinstance(part, str):
            a, b = part.split(":")
            nodes.append(Node("product", "Multiply", inputs=("x" if a == "gate" else a, b)))
        else:
            nodes.append(part if part.name != "add" else affine("add", 1, offset, inputs=part.inputs))
    return graph_of(*nodes)


@pytest.mark.parametrize("form", HARD_SWISHES)
def test_hard_swish_is_recognised_wherever_its_factor_stands(form):
    graph = product_graph(HARD_SWISHES[form])
    made = check(graph, recognise_hard_swish(graph))
    assert kinds(made) == ["HardSwish"]
    assert set(made.nodes[1].origin) >= {"add", "relu6", "product"}


def test_what_only_resembles_hard_swish_is_left_alone():
    graph = product_graph(HARD_SWISHES["factor behind the gate"], offset=2.5)
    assert recognise_hard_swish(graph) is graph


def test_repeated_nodes_become_one_that_names_them_all():
    other = Node("again", "ReLU", {}, ("x",))
    sigmoid = Node("sigmoid", "Sigmoid", {}, ("x",))
    graph = graph_of(RELU, other, sigmoid, Node("sum", "Add", {}, ("relu", "again")), outputs=("sum", "sigmoid"))
    made = check(graph, merge_duplicates(graph))
    assert kinds(made) == ["ReLU", "Sigmoid", "Add"]
    assert made["relu"].origin == ("relu", "again")
    assert made["sum"].inputs == ("relu", "relu")


def test_two_equal_outputs_of_the_model_become_one():
    graph = graph_of(RELU, Node("again", "ReLU", {}, ("x",)), outputs=("relu", "again"))
    merged = merge_duplicates(graph)
    assert merged.outputs == ("relu", "relu")
    assert merged.output_names == graph.output_names


# --- clamps ---


@pytest.mark.parametrize(("relu", "activation"), [(RELU, "relu"), (RELU6, "relu6")])
def test_a_relu_becomes_the_activation_of_the_layer_before_it(relu, activation):
    graph = graph_of(convolution("conv"), relu)
    made = check(graph, fuse_activations(graph))
    assert [(n.name, n.activation, n.origin) for n in made.nodes[1:]] == [("conv", activation, ("conv", relu.name))]
    assert made.outputs == ("conv",)


@pytest.mark.parametrize(
    "between",
    [
        Node("b", "MaxPooling2D", {"pool_size": 2}),
        Node("b", "ZeroPadding2D", {"padding": 1}),
        Node("b", "Flatten"),
        Node("b", "UpSampling2D", {"size": 2}),
    ],
)
def test_a_relu_moves_in_front_of_what_only_moves_or_compares_values(between):
    graph = graph_of(convolution("conv"), between, RELU)
    assert kinds(check(graph, fuse_activations(graph))) == ["Conv2D", between.kind]


def test_a_relu_behind_a_concatenation_is_fused_into_every_branch_or_none():
    branches = [convolution("a").replace(inputs=("x",)), convolution("bb").replace(inputs=("x",))]
    joined = Node("joined", "Concatenate", {}, ("a", "bb"))
    graph = graph_of(*branches, joined, RELU)
    made = check(graph, fuse_activations(graph))
    assert [made[n].activation for n in ("a", "bb")] == ["relu", "relu"]
    graph = graph_of(*branches, joined.replace(inputs=("a", "x")), RELU)
    assert fuse_activations(graph) is graph


@pytest.mark.parametrize(
    "graph",
    [
        graph_of(convolution("conv"), RELU, Node("sum", "Add", inputs=("conv", "relu"))),
        graph_of(convolution("conv"), RELU, outputs=("conv", "relu")),
        graph_of(convolution("conv").replace(activation="relu6"), RELU),
        graph_of(convolution("conv"), Node("tanh", "Tanh"), RELU),
        graph_of(convolution("conv"), Node("mean", "AveragePooling2D"), RELU),
        graph_of(convolution("conv"), Node("up", "UpSampling2D", {"interpolation": "bilinear"}), RELU),
        graph_of(convolution("conv"), Node("relu", "ReLU", {"max_value": 2.0})),
    ],
    ids=["read twice", "model output", "clamped already", "cannot clamp", "mean", "bilinear", "other limit"],
)
def test_a_relu_stays_where_fusing_it_would_not_be_exact(graph):
    assert fuse_activations(graph) is graph


# --- padding and groups ---


@settings(max_examples=40, deadline=None)
@given(
    st.integers(5, 9),
    st.integers(1, 5),
    st.integers(1, 3),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
)
def test_padding_is_absorbed_only_where_it_equals_same(size, kernel, stride, padding):
    graph = graph_of(
        Node("pad", "ZeroPadding2D", {"padding": padding}),
        convolution("conv", kernel=kernel, strides=(stride, stride)),
        shape=(size, size, 4),
    )
    made = check(graph, absorb_padding(graph))
    if made is not graph:
        assert kinds(made) == ["Conv2D"]
        assert made["conv"].origin == ("pad", "conv")


def test_the_padding_of_mobile_nets_is_absorbed():
    pad = Node("pad", "ZeroPadding2D", {"padding": ((0, 1), (0, 1))})
    graph = graph_of(pad, convolution("conv", kernel=3, strides=2))
    assert kinds(check(graph, absorb_padding(graph))) == ["Conv2D"]


def test_a_grouped_convolution_is_split_into_one_for_each_group():
    layer = convolution("conv", kernel=3, channels=2, filters=6, groups=2).replace(activation="relu")
    graph = graph_of(layer)
    made = check(graph, split_groups(graph))
    assert kinds(made) == ["Slice", "Slice", "Conv2D", "Conv2D", "Concatenate"]
    assert {n.origin for n in made.nodes[1:]} == {("conv",)}


# --- grids ---


def test_tensors_that_must_share_a_grid_are_grouped():
    graph = graph_of(
        convolution("a"),
        Node("pool", "MaxPooling2D", {"pool_size": 1}),
        convolution("b").replace(inputs=("x",)),
        Node("joined", "Concatenate", inputs=("pool", "b")),
        convolution("c", channels=8),
    )
    groups = grid_groups(graph)
    assert {groups[n] for n in ("a", "pool", "b", "joined")} == {"a"}
    assert (groups["x"], groups["c"]) == ("x", "c")


def test_a_fixed_grid_is_requantised_before_it_is_joined_with_another():
    graph = graph_of(
        Node("gate", "Sigmoid"),
        Node("pool", "MaxPooling2D", {"pool_size": 1}),
        Node("joined", "Concatenate", inputs=("x", "pool")),
        Node("again", "Maximum", inputs=("pool", "x")),
    )
    made = check(graph, separate_grids(graph.replace_nodes(graph.nodes)))
    assert [n.name for n in made.nodes if n.kind == "Requantize"] == ["pool.requantize"]
    groups = grid_groups(made)
    assert groups["gate"] == groups["pool"] != groups["x"]


def test_a_product_that_is_joined_with_its_factor_has_a_grid_of_its_own():
    graph = graph_of(
        Node("other", "Sigmoid"),
        Node("product", "Multiply", inputs=("x", "other")),
        Node("joined", "Concatenate", inputs=("x", "product")),
    )
    made = check(graph, separate_grids(graph))
    assert made["joined"].inputs == ("x", "product.requantize")
    assert grid_groups(made)["product"] != grid_groups(made)["x"]


def test_equal_fixed_grids_are_joined_as_they_are_and_unequal_ones_are_not():
    def joined(second):
        return graph_of(
            Node("a", "Sigmoid"), Node("b", second, inputs=("x",)), Node("joined", "Concatenate", inputs=("a", "b"))
        )

    same = joined("Softmax")
    assert separate_grids(same) is same
    assert len({grid_groups(same)[n] for n in ("a", "b", "joined")}) == 1
    made = check(joined("Tanh"), separate_grids(joined("Tanh")))
    assert kinds(made).count("Requantize") == 2
    with pytest.raises(ValueError, match="share a grid"):
        grid_groups(joined("Tanh"))


def test_float_nodes_are_read_by_int8_nodes_through_a_requantisation_and_integers_have_no_grid():
    graph = graph_of(
        Node("root", "Unary", {"function": "softplus"}),
        Node("log", "Unary", {"function": "log1p"}),
        convolution("conv"),
        Node("sum", "Add", inputs=("conv", "log")),
    )
    made = check(graph, separate_grids(graph))
    assert [n.name for n in made.nodes if n.kind == "Requantize"] == ["log.requantize"]
    assert made["log"].inputs == ("root",)
    assert set(grid_groups(made)) == {"x", "log.requantize", "conv", "sum"}

    ids = Node("ids", "Reshape", {"target_shape": (2, 2)})
    words = Node("words", "Embedding", {"input_dim": 3, "output_dim": 2}, weights={"embeddings": np.eye(3, 2)})
    tokens = graph_of(ids, words, Node("flat", "Flatten"), shape=(4,), dtype="int32")
    assert grid_groups(tokens) == {"words": "words", "flat": "words"}
