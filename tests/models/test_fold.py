"""Folding of affine maps against convolutions and batch normalisation written out in NumPy."""

import numpy as np
import pytest

from tfq.models.decompose import decompose
from tfq.models.equality import relative_error, run_graph
from tfq.models.fold import affines_to_layers, fold_affines
from tfq.models.graph import Graph, Node

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)


def chain(*nodes, shape=(6, 5, 3), outputs=None):
    """Input -> nodes one after the other; a node that names its inputs keeps them."""
    made = [Node("x", "Input", {"shape": shape, "dtype": "float32"})]
    for node in nodes:
        made.append(node if node.inputs else node.replace(inputs=(made[-1].name,)))
    return Graph(tuple(made), ("x",), tuple(outputs or (made[-1].name,)))


def normalization(channels, *, name="bn", scale=True, center=True, seed=1, inputs=(), group=""):
    rng = np.random.default_rng(seed)
    weights = {
        "moving_mean": rng.normal(size=channels),
        "moving_variance": rng.uniform(0.2, 3, channels),
        **({"gamma": rng.normal(size=channels)} if scale else {}),
        **({"beta": rng.normal(size=channels)} if center else {}),
    }
    weights = {n: w.astype(np.float32) for n, w in weights.items()}
    config = {"axis": -1, "epsilon": 1e-2, "scale": scale, "center": center}
    return Node(name, "BatchNormalization", config, inputs, weights, group=group)


def normalized(y, node):
    """Batch normalisation on the last axis, float64."""
    w = {n: v.astype(np.float64) for n, v in node.weights.items()}
    y = (y - w["moving_mean"]) / np.sqrt(w["moving_variance"] + node.config["epsilon"])
    return y * w.get("gamma", 1) + w.get("beta", 0)


def convolved(x, kernel, stride=1):
    """Valid convolution, one output position at a time."""
    kh, kw = kernel.shape[:2]
    rows, columns = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw].astype(np.float64)
            y[:, i, j] = np.einsum("bhwi,hwio->bo", patch, kernel)
    return y


def depthwise(x, kernel):
    """Valid depthwise convolution: output channel i * multiplier + m is input channel i under kernel[..., i, m]."""
    channels, multiplier = kernel.shape[2:]
    parts = [convolved(x[..., i : i + 1], kernel[:, :, i : i + 1]) for i in range(channels)]
    return np.concatenate(parts, axis=-1).reshape(*parts[0].shape[:3], channels * multiplier)


def transposed(x, kernel, stride):
    """Valid transposed convolution: every input value spreads kernel[..., o, i] around its place."""
    kh, kw = kernel.shape[:2]
    y = np.zeros((len(x), (x.shape[1] - 1) * stride + kh, (x.shape[2] - 1) * stride + kw, kernel.shape[2]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            y[:, i * stride : i * stride + kh, j * stride : j * stride + kw] += np.einsum(
                "bi,hwoi->bhwo", x[:, i, j].astype(np.float64), kernel
            )
    return y


def weighted(kind, *, bias, name="layer"):
    """(node, its NumPy reference without bias, output channels) on inputs of 3 channels."""
    config, function, channels = {
        "Conv2D": ({"filters": 4, "kernel_size": (3, 2)}, lambda x, k: convolved(x, k), 4),
        "DepthwiseConv2D": ({"kernel_size": (2, 2), "depth_multiplier": 2}, depthwise, 6),
        "Conv2DTranspose": ({"filters": 4, "kernel_size": (3, 3), "strides": 2}, lambda x, k: transposed(x, k, 2), 4),
        "Dense": ({"units": 4}, lambda x, k: x.astype(np.float64) @ k, 4),
    }[kind]  # fmt: skip
    shape = {"Conv2D": (3, 2, 3, 4), "DepthwiseConv2D": (2, 2, 3, 2), "Conv2DTranspose": (3, 3, 4, 3), "Dense": (3, 4)}
    kernel = RNG.normal(size=shape[kind]).astype(np.float32)
    weights = {"depthwise_kernel" if kind == "DepthwiseConv2D" else "kernel": kernel}
    if bias:
        weights["bias"] = RNG.normal(size=channels).astype(np.float32)
    node = Node(name, kind, {**config, "use_bias": bias}, weights=weights)
    return node, lambda x: function(x, kernel) + weights.get("bias", 0), channels


def check(graph, x, expected, bound=3e-6):
    assert relative_error([expected], run_graph(graph, {"x": x})) < bound


KINDS = ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False), (False, False)])
def test_batch_normalization_folds_into_the_layer_before_it(kind, bias, scale, center):
    node, reference, channels = weighted(kind, bias=bias)
    bn = normalization(channels, scale=scale, center=center)
    x = X[:, 0, 0] if kind == "Dense" else X
    folded = fold_affines(decompose(chain(node, bn, shape=x.shape[1:])))
    assert [(n.name, n.kind) for n in folded.nodes] == [("x", "Input"), ("layer", kind)]
    assert folded["layer"].origin == ("layer", "bn")
    assert folded.outputs == ("layer",)
    assert folded.output_names == ("bn",)
    check(folded, x, normalized(reference(x), bn))


@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D", "Dense"])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_normalization_folds_forward_where_nothing_is_padded(kind, bias):
    node, reference, _ = weighted(kind, bias=bias)
    bn = normalization(3)
    x = X[:, 0, 0] if kind == "Dense" else X
    folded = fold_affines(decompose(chain(bn, node, shape=x.shape[1:])))
    assert [n.name for n in folded.nodes] == ["x", "layer"]
    assert folded["layer"].origin == ("bn", "layer")
    check(folded, x, reference(normalized(x, bn)))


def affine(scale, offset, *, name="affine", inputs=()):
    weights = {"scale": np.asarray(scale, np.float32), "offset": np.asarray(offset, np.float32)}
    return Node(name, "Affine", inputs=inputs, weights=weights)


def same_convolution(name="layer"):
    node, _, _ = weighted("Conv2D", bias=True, name=name)
    return node.replace(config={**node.config, "padding": "same"})


def kinds(graph):
    return [n.kind for n in graph.nodes[1:]]


def test_an_offset_is_not_folded_into_a_padded_convolution():
    graph = chain(affine([1, 2, 3], [1, 0, 0]), same_convolution())
    assert fold_affines(graph) is graph


def test_a_pure_scale_is_folded_through_padding_into_a_padded_convolution():
    graph = chain(affine([1, 2, 3], [0, 0, 0]), Node("pad", "ZeroPadding2D", {"padding": 1}), same_convolution())
    folded = fold_affines(graph)
    assert kinds(folded) == ["ZeroPadding2D", "Conv2D"]
    check(folded, X, run_graph(graph, {"x": X})[0])


@pytest.mark.parametrize("between", ["padding", "product"])
@pytest.mark.parametrize("side", ["before", "behind"])
def test_an_offset_passes_neither_padding_nor_a_product(between, side):
    node = {
        "padding": Node("between", "ZeroPadding2D", {"padding": 1}),
        "product": Node("between", "Multiply", inputs=("layer" if side == "behind" else "affine", "x")),
    }[between]
    layer = same_convolution()
    layer = layer.replace(config={**layer.config, "filters": 3})
    layer = layer.replace(weights={n: w[..., :3] for n, w in layer.weights.items()})
    steps = [affine([1, 2, 3], [1, 0, 0]), node, layer.replace(config={**layer.config, "padding": "valid"})]
    if side == "behind":
        steps = [layer, *steps[1::-1]]
    graph = chain(*steps)
    assert fold_affines(graph) is graph


def test_a_pure_scale_is_not_folded_into_a_grouped_convolution_in_front_of_which_it_stands():
    layer, _, _ = weighted("Conv2D", bias=False)
    grouped = layer.replace(
        config={**layer.config, "groups": 3, "filters": 6},
        weights={"kernel": RNG.normal(size=(3, 2, 1, 6)).astype(np.float32)},
    )
    graph = chain(affine([1, 2, 3], [0, 0, 0]), grouped)
    assert fold_affines(graph) is graph


def test_a_map_folds_through_flatten_into_a_dense_layer():
    kernel = RNG.normal(size=(90, 4)).astype(np.float32)
    dense = Node("dense", "Dense", {"units": 4, "use_bias": False}, weights={"kernel": kernel})
    folded = fold_affines(chain(affine([1, 2, 3], [4, 5, 6]), Node("flat", "Flatten"), dense))
    assert kinds(folded) == ["Flatten", "Dense"]
    check(folded, X, (X * [1, 2, 3] + [4, 5, 6]).reshape(2, 90) @ kernel.astype(np.float64))


@pytest.mark.parametrize(("scale", "left"), [(2.0, []), (-2.0, ["Affine"])])
def test_a_map_passes_a_maximum_only_if_it_keeps_the_order(scale, left):
    layer, reference, _ = weighted("Conv2D", bias=True)
    graph = chain(layer, Node("pool", "MaxPooling2D", {"pool_size": 2}), affine([scale, 1, 1, 1], [1, 2, 3, 4]))
    folded = fold_affines(graph)
    assert kinds(folded) == ["Conv2D", "MaxPooling2D", *left]
    y = reference(X)
    pooled = y.reshape(2, 2, 2, 2, 2, 4).max(axis=(2, 4))
    check(folded, X, pooled * [scale, 1, 1, 1] + [1, 2, 3, 4])


def test_a_map_passes_means_on_either_side():
    layer, _, _ = weighted("Conv2D", bias=True)
    pool = Node("pool", "AveragePooling2D", {"pool_size": 3, "strides": 1, "padding": "same"})
    graph = chain(layer, pool, affine([1, 2, 3, 4], [5, 6, 7, 8]))
    folded = fold_affines(graph)
    assert kinds(folded) == ["Conv2D", "AveragePooling2D"]
    check(folded, X, run_graph(graph, {"x": X})[0])


def test_a_chain_of_maps_becomes_one_and_then_none():
    first, second = affine([1, 2, 3], [4, 5, 6], name="first"), affine([7, 8, 9], [1, 1, 1], name="second")
    relu = Node("relu", "ReLU")
    folded = fold_affines(chain(first, second, relu))
    assert [n.name for n in folded.nodes] == ["x", "first", "relu"]
    check(folded, X, np.maximum((X * [1, 2, 3] + [4, 5, 6]) * [7, 8, 9] + 1.0, 0))
    layer, reference, _ = weighted("Conv2D", bias=True)
    third = affine([1, 2, 3, 4], [1, 2, 3, 4], name="third")
    folded = fold_affines(chain(first, second, layer, third))
    assert [n.name for n in folded.nodes] == ["x", "layer"]
    assert folded["layer"].origin == ("first", "second", "layer", "third")
    check(folded, X, reference((X * [1, 2, 3] + [4, 5, 6]) * [7, 8, 9] + 1.0) * [1, 2, 3, 4] + [1, 2, 3, 4])


@pytest.mark.parametrize("why", ["read twice", "output of the model"])
def test_a_layer_whose_own_output_is_needed_is_not_folded(why):
    layer, _, _ = weighted("Conv2D", bias=True)
    nodes = [layer, normalization(4)]
    if why == "read twice":
        nodes.append(Node("sum", "Add", inputs=("bn", "layer")))
        graph = chain(*nodes)
    else:
        graph = chain(*nodes, outputs=("layer", "bn"))
    graph = decompose(graph)
    assert fold_affines(graph) is graph
    left = affines_to_layers(graph)
    assert "DepthwiseConv2D" in kinds(left)
    assert relative_error(run_graph(graph, {"x": X}), run_graph(left, {"x": X})) < 1e-6


def shared(second_seed):
    """One convolution called on x and on -x, each call with a batch normalisation of its own."""
    layer, reference, _ = weighted("Conv2D", bias=True)
    nodes = (
        Node("x", "Input", {"shape": X.shape[1:], "dtype": "float32"}),
        Node("flip", "ReLU", {"max_value": 6.0}, ("x",)),
        layer.replace(name="call0", inputs=("x",), group="layer", origin=("layer",)),
        layer.replace(name="call1", inputs=("flip",), group="layer", origin=("layer",)),
        normalization(4, name="bn0", inputs=("call0",)),
        normalization(4, name="bn1", inputs=("call1",), seed=second_seed),
        Node("sum", "Add", inputs=("bn0", "bn1")),
    )
    return decompose(Graph(nodes, ("x",), ("sum",))), reference


def test_a_shared_layer_is_folded_if_every_call_is_followed_by_the_same_map():
    graph, reference = shared(second_seed=1)
    folded = fold_affines(graph)
    assert kinds(folded) == ["ReLU", "Conv2D", "Conv2D", "Add"]
    np.testing.assert_array_equal(folded["call0"].weights["kernel"], folded["call1"].weights["kernel"])
    bn = normalization(4)
    check(folded, X, normalized(reference(X), bn) + normalized(reference(np.clip(X, 0, 6)), bn))


def test_a_shared_layer_is_left_alone_if_its_calls_are_followed_by_different_maps():
    graph, _ = shared(second_seed=2)
    assert fold_affines(graph) is graph


def test_the_scale_of_a_gate_moves_behind_the_product_into_the_next_convolution():
    layer = same_convolution()
    graph = chain(
        Node("gate", "ReLU", {"max_value": 6.0}),
        affine([1 / 6] * 3, [0] * 3),
        Node("product", "Multiply", inputs=("x", "affine")),
        layer,
    )
    folded = fold_affines(graph)
    assert kinds(folded) == ["ReLU", "Multiply", "Conv2D"]
    check(folded, X, run_graph(graph, {"x": X})[0])


@pytest.mark.parametrize(
    ("scale", "offset", "kind"),
    [([2, 2, 2], [0, 0, 0], "MultiplyConstant"), ([1, 1, 1], [3, 3, 3], "AddConstant"),
     ([2, 2, 2], [3, 3, 3], "DepthwiseConv2D"), ([1, 1, 1], [0, 0, 0], "DepthwiseConv2D")],
)  # fmt: skip
def test_one_number_for_all_channels_is_added_or_multiplied_by(scale, offset, kind):
    x = RNG.normal(size=(2, 2, 4, 3)).astype(np.float32)
    left = affines_to_layers(chain(affine(scale, offset), shape=x.shape[1:]))
    assert kinds(left) == [kind]
    check(left, x, x * scale[0] + offset[0])


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 2, 4, 3)])
def test_what_remains_is_one_depthwise_convolution_whatever_the_rank(shape):
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    left = affines_to_layers(chain(affine([1, 2, 3], [4, 0, 6]), shape=shape))
    assert kinds(left).count("DepthwiseConv2D") == 1
    check(left, x, x * [1.0, 2, 3] + [4, 0, 6])
