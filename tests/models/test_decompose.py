"""Every decomposition against the Keras layer it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.models.decompose import decompose, split_activations
from tfq.models.equality import relative_error, run_graph
from tfq.models.graph import Graph, Node, call_layer, make_layers, variable_names
from tfq.models.inputs import typed_inputs
from tfq.operations.table import OPERATORS

IMAGE, SEQUENCE, VECTOR = (6, 5, 4), (7, 4), (4,)


def source(name, shape, dtype="float32"):
    return Node(name, "Input", {"shape": shape, "dtype": dtype})


def with_random_weights(node, shapes, seed=0):
    """The node with random values for every variable its Keras layer has; variances above 0."""
    rng = np.random.default_rng(seed)
    layer = make_layers(node)[0]
    call_layer(layer, [np.zeros((1, *shape), np.float32) for shape in shapes])
    names = variable_names(layer)
    found = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in zip(names, layer.weights, strict=True)}
    return node.replace(weights={n: abs(w) + 0.1 if "variance" in n else w for n, w in found.items()})


def one_layer(kind, config, *shapes, reads=None):
    names = [f"x{i}" for i in range(len(shapes))]
    node = Node("layer", kind, config, tuple(reads or names))
    by_name = dict(zip(names, shapes, strict=True))
    node = with_random_weights(node, [by_name[i] for i in node.inputs])
    return Graph((*map(source, names, shapes), node), tuple(names), ("layer",))


def inputs_of(graph, seed=1):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(0, 2, (3, *graph[n].config["shape"])).astype(np.float32) for n in graph.inputs}


def check(graph, *, bound=2e-6):
    """Decompose; the function stays, only known kinds remain, everything traces back to the user's layer."""
    made = decompose(split_activations(graph))
    x = inputs_of(graph)
    assert relative_error(run_graph(graph, x), run_graph(made, x)) < bound
    assert made.output_names == graph.output_names
    for node in made.nodes:
        assert node.kind in {"Input", "Affine", *OPERATORS}
        assert node.kind == "Input" or set(node.origin) <= {n.name for n in graph.nodes}
        assert node.config.get("activation", "linear") == "linear"
    return made


CASES = {
    "GroupNormalization": ({"groups": 2, "epsilon": 0.01}, IMAGE),
    "GroupNormalization of all channels": ({"groups": 1}, SEQUENCE),
    "GroupNormalization of each": ({"groups": -1, "center": False}, IMAGE),
    "GroupNormalization of a vector": ({"groups": 2, "scale": False}, VECTOR),
    "UnitNormalization": ({}, IMAGE),
    "UnitNormalization of a vector": ({"axis": [1]}, VECTOR),
    "SeparableConv2D": ({"filters": 5, "kernel_size": 3, "depth_multiplier": 2, "strides": 2}, IMAGE),
    "SeparableConv2D without bias": ({"filters": 5, "kernel_size": 3, "use_bias": False, "padding": "same"}, IMAGE),
    "Conv1D": ({"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"}, SEQUENCE),
    "Conv1D causal": ({"filters": 5, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"}, SEQUENCE),
    "Conv1D of groups": ({"filters": 6, "kernel_size": 2, "groups": 2}, SEQUENCE),
    "Conv1DTranspose": ({"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"}, SEQUENCE),
    "DepthwiseConv1D": ({"kernel_size": 3, "depth_multiplier": 2, "strides": 2}, SEQUENCE),
    "SeparableConv1D": ({"filters": 5, "kernel_size": 3, "padding": "same"}, SEQUENCE),
    "SeparableConv1D causal": ({"filters": 5, "kernel_size": 3, "padding": "causal"}, SEQUENCE),
    "Conv2D as depthwise": ({"filters": 8, "kernel_size": 3, "groups": 4}, IMAGE),
    "Conv2DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2}, IMAGE),
    "Dense on sequences": ({"units": 6}, SEQUENCE),
    "Dense on images": ({"units": 6, "use_bias": False}, IMAGE),
    "Dense on volumes": ({"units": 6}, (2, 3, 2, 4)),
    "EinsumDense of heads": ({"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"}, SEQUENCE),
    "EinsumDense from heads": ({"equation": "abcd,cde->abe", "output_shape": (None, 3), "bias_axes": "e"}, IMAGE),
    "EinsumDense of anything": ({"equation": "...x,xy->...y", "output_shape": 3, "bias_axes": "y"}, IMAGE),
    "EinsumDense of vectors": ({"equation": "ab,cb->ac", "output_shape": 3}, VECTOR),
    "MaxPooling1D": ({"pool_size": 3, "strides": 2, "padding": "same"}, SEQUENCE),
    "AveragePooling1D": ({"pool_size": 2}, SEQUENCE),
    "GlobalAveragePooling1D": ({}, SEQUENCE),
    "GlobalMaxPooling1D": ({"keepdims": True}, SEQUENCE),
    "ZeroPadding1D": ({"padding": (1, 2)}, SEQUENCE),
    "Cropping1D": ({"cropping": 2}, SEQUENCE),
    "UpSampling1D": ({"size": 3}, SEQUENCE),
    "RepeatVector": ({"n": 3}, VECTOR),
    "BatchNormalization": ({}, IMAGE),
    "BatchNormalization without a scale": ({"scale": False}, IMAGE),
    "Rescaling": ({"scale": 1 / 127.5, "offset": -1.0}, IMAGE),
    "Rescaling per channel": ({"scale": [1.0, 2.0, 3.0, 4.0], "offset": [0.0, 1.0, 2.0, 3.0]}, IMAGE),
    "ReLU": ({"max_value": 6.0}, IMAGE),
    "ReLU with a limit": ({"max_value": 2.0}, IMAGE),
    "ReLU with a slope": ({"negative_slope": 0.1}, IMAGE),
    "Softmax": ({}, IMAGE),
    "Softmax of rows": ({"axis": 1}, IMAGE),
    "Softmax of columns": ({"axis": [-2]}, IMAGE),
}
ACTIVATIONS = (
    "linear relu elu sigmoid tanh softmax swish gelu selu softplus softsign exponential mish".split()  # noqa: SIM905
)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_decomposed_exactly(case):
    config, shape = CASES[case]
    check(one_layer(case.split()[0], config, shape))


@pytest.mark.parametrize(("kind", "config"), [("LeakyReLU", {"alpha": 0.0}), ("PReLU", {"shared_axes": [1, 2]})])
def test_without_a_slope_it_is_a_relu(kind, config):
    graph = one_layer(kind, config, IMAGE)
    zeros = {name: np.zeros_like(value) for name, value in graph["layer"].weights.items()}
    made = check(graph.replace_nodes([*graph.nodes[:-1], graph["layer"].replace(weights=zeros)]))
    assert (made["layer"].kind, made["layer"].weights) == ("ReLU", {})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_becomes_nodes_of_its_own(activation):
    alone = check(one_layer("Activation", {"activation": activation}, IMAGE))
    fused = check(one_layer("Dense", {"units": 3, "activation": activation}, VECTOR))
    assert "Activation" not in {n.kind for n in (*alone.nodes, *fused.nodes)}
    assert fused["layer"].kind == "Dense"
    if activation != "linear":
        assert fused.outputs[0] == f"layer.{activation}"


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["Conv1D", "DepthwiseConv1D", "SeparableConv1D"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["same", "valid", "causal"]),
    st.booleans(),
    st.integers(4, 9),
)
def test_one_dimensional_convolutions_of_any_geometry(kind, size, step, padding, dilated, length):
    config = {"kernel_size": size, "padding": padding, "dilation_rate" if dilated else "strides": step}
    if kind != "DepthwiseConv1D":
        config["filters"] = 3
    if (kind == "DepthwiseConv1D" and padding == "causal") or (padding == "valid" and (size - 1) * step + 1 > length):
        return
    check(one_layer(kind, config, (length, 2)))


@pytest.mark.parametrize("kind", ["Add", "Multiply", "Average", "Maximum", "Minimum"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_layers_of_many_inputs_become_chains_of_two(kind, count):
    made = check(one_layer(kind, {}, *[IMAGE] * count))
    assert max(len(n.inputs) for n in made.nodes) == 2


@pytest.mark.parametrize(
    ("shapes", "axes"), [(((4,), (4,)), 1), (((5, 4), (7, 4)), 2), (((4, 5), (4, 7)), 1), (((5, 4), (4, 7)), (2, 1))]
)
def test_a_dot_product_becomes_a_matrix_product(shapes, axes):
    check(one_layer("Dot", {"axes": axes}, *shapes))


@pytest.mark.parametrize("options", [{}, {"use_bias": False, "value_dim": 5}, {"output_shape": 3}])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_multi_head_attention_becomes_dense_layers_and_matrix_products(options, inputs):
    shapes = [(6, 4), (9, 5), (9, 3)][:inputs]
    reads = ["x0", "x0"] if inputs == 1 else None
    config = {"num_heads": 2, "key_dim": 3, **options}
    made = check(one_layer("MultiHeadAttention", config, *shapes, reads=reads), bound=1e-5)
    assert made["layer"].kind == "Conv2D"


def test_integer_inputs_of_arithmetic_become_float_and_those_of_embeddings_stay():
    def dtype(kind, config):
        first = Node("moved", "Reshape", {"target_shape": (2, 2)}, ("x",))
        graph = Graph((source("x", (4,), "int32"), first, Node("layer", kind, config, ("moved",))), ("x",), ("layer",))
        return typed_inputs(graph)["x"].config["dtype"]

    assert dtype("Rescaling", {"scale": 0.5}) == "float32"
    assert dtype("Embedding", {"input_dim": 3, "output_dim": 2}) == "int32"


@pytest.mark.parametrize(
    ("kind", "config", "shape"),
    [
        ("ThresholdedReLU", {}, IMAGE),
        ("ReLU", {"threshold": 1.0}, IMAGE),
        ("ReLU", {"negative_slope": 0.1, "max_value": 3.0}, IMAGE),
        ("UnitNormalization", {"axis": 1}, IMAGE),
        ("ELU", {"alpha": 0.5}, IMAGE),
        ("Softmax", {"axis": [1, 2]}, IMAGE),
        ("UpSampling2D", {"interpolation": "bicubic"}, IMAGE),
        ("Resizing", {"height": 3, "width": 3, "crop_to_aspect_ratio": True}, IMAGE),
        ("EinsumDense", {"equation": "abcd,bce->abce", "output_shape": (6, 5, 3)}, IMAGE),
        ("Conv2DTranspose", {"filters": 2, "kernel_size": 2, "dilation_rate": 2}, IMAGE),
    ],
)
def test_what_no_rule_can_be_applied_to_is_carried(kind, config, shape):
    assert check(one_layer(kind, config, shape))["layer"].kind == "Carried"
