"""Operations in the forms that a target runs fast: chosen by its table, equal to what they stand for, all delegated."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
import tf_keras

from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel
from tfq.models.equality import relative_error, run_graph
from tfq.models.forms import written_for
from tfq.models.graph import Graph, Node
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.targets.target import Kernel
from tfq.verify.structure import verify_structure

IMAGE = (6, 4, 3)


def alone(kind, **config):
    return Graph(
        (Node("x", "Input", {"shape": IMAGE, "dtype": "float32"}), Node("y", kind, config, ("x",))), ("x",), ("y",)
    )


def kinds(graph):
    return [node.kind for node in graph.nodes[1:]]


def drawn(shape=IMAGE, count=3, spread=3.0):
    return np.random.default_rng(0).normal(0, spread, (count, *shape)).astype(np.float32)


def test_hard_swish_is_its_own_formula():
    graph, (found,) = written_for(alone("HardSwish"), CPU)
    x = drawn()
    assert kinds(graph) == ["AddConstant", "ReLU", "Multiply", "Affine"]
    np.testing.assert_allclose(run_graph(graph, {"x": x})[0], x * np.clip(x + 3, 0, 6) / 6, rtol=1e-5, atol=1e-6)
    assert (found.operator, found.operators, found.layers) == ("HARD_SWISH", ("ADD", "MUL"), ("y",))
    assert found.reason == "runs outside XNNPACK in int8"


@pytest.mark.parametrize("kind", ["Concatenate", "FloatConcatenate"])
@pytest.mark.parametrize(("count", "made"), [(5, 1), (6, 2), (7, 3), (26, 7)])
def test_many_tensors_are_joined_in_groups(kind, count, made):
    parts = [Node(f"p{i}", "AddConstant", {"constant": float(i)}, ("x",)) for i in range(count)]
    joined = Node("y", kind, {"axis": 2}, tuple(part.name for part in parts))
    before = Graph((alone("ReLU").nodes[0], *parts, joined), ("x",), ("y",))
    graph, found = written_for(before, CPU)
    joins = [node for node in graph.nodes if node.kind == kind]
    assert len(joins) == made
    assert max(len(node.inputs) for node in joins) <= 5
    assert [layers.layers for layers in found] == [("y",)] * (made > 1)
    np.testing.assert_array_equal(run_graph(graph, {"x": drawn()})[0], run_graph(before, {"x": drawn()})[0])


@pytest.mark.parametrize("size", [(2, 2), (1, 3), (4, 1), (3, 2)])
def test_nearest_upsampling_by_whole_factors_repeats_rows_and_columns(size):
    x = drawn()
    expected = x.repeat(size[0], 1).repeat(size[1], 2)
    rows, columns = expected.shape[1:3]
    resized = alone("Resizing", height=rows, width=columns, interpolation="nearest")
    for before in (alone("UpSampling2D", size=size), resized):
        graph, (found,) = written_for(before, CPU)
        assert set(kinds(graph)) == {"Concatenate", "Reshape"}
        np.testing.assert_array_equal(run_graph(graph, {"x": x})[0], expected)
        assert found.operator == "RESIZE_NEAREST_NEIGHBOR"


@pytest.mark.parametrize(
    "graph",
    [
        alone("UpSampling2D", size=2, interpolation="bilinear"),
        alone("Resizing", height=12, width=8),
        alone("Resizing", height=9, width=8, interpolation="nearest"),
        alone("Resizing", height=3, width=2, interpolation="nearest"),
    ],
    ids=lambda graph: str(dict(graph["y"].config)),
)
def test_other_resampling_keeps_its_form(graph):
    assert written_for(graph, CPU) == (graph, ())


def test_the_table_of_the_target_decides():
    graph = alone("HardSwish")
    assert written_for(graph, MICRO) == (graph, ())
    newer = dataclasses.replace(CPU, kernels=(*CPU.kernels, Kernel("HARD_SWISH", ("int8",))))
    assert written_for(graph, newer) == (graph, ())
    poorer = dataclasses.replace(CPU, kernels=tuple(row for row in CPU.kernels if row.operator != "MUL"))
    assert written_for(graph, poorer) == (graph, ())


def network():
    """Hard-swish before a convolution, before squeeze-and-excite and at the end; hard-sigmoid; nearest upsampling."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)

    def hard_swish(x):
        return layers.Multiply()([layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(x))), x])

    image = tf_keras.Input((12, 12, 3))
    x = hard_swish(layers.Conv2D(8, 3, padding="same")(image))
    x = hard_swish(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    squeezed = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    excited = layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(layers.Conv2D(8, 1)(squeezed)))
    x = layers.Multiply()([x, layers.Rescaling(1 / 6)(excited)])
    x = layers.Conv2D(6, 1)(layers.UpSampling2D(2)(x))
    return tf_keras.Model(image, hard_swish(x))


def test_the_forms_are_prepared_exported_verified_and_taken_by_the_delegate():
    loaded, samples = load_model(network()), {"input_1": drawn((12, 12, 3), operator_graphs.SAMPLES, 2.0)}
    (name,) = loaded.graph.inputs
    samples = {name: samples["input_1"]}
    few = {name: samples[name][:8]}
    prepared = prepare(loaded.graph, few, original=loaded, target=CPU)
    assert [(found.operator, len(found.layers)) for found in prepared.anew] == [
        ("HARD_SWISH", 3),
        ("RESIZE_NEAREST_NEIGHBOR", 1),
    ]
    # the factor of the first goes into the convolution that reads it, those of the others have two readers or none
    assert kinds(prepared.graph).count("MultiplyConstant") == 2
    assert kinds(prepared.plain).count("HardSwish") == 3
    assert relative_error(run_graph(prepared.plain, few), run_graph(prepared.graph, few)) < 1e-5
    made = operator_graphs.exported(prepared.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    assert delegation(TfliteModel(made.content)).outside == {}
    assert prepare(loaded.graph, few).anew == prepare(loaded.graph, few, target=MICRO).anew == ()


def test_integers_are_those_of_the_upsampling_itself():
    graph = operator_graphs.exported(alone("UpSampling2D", size=(2, 3)))
    other = operator_graphs.exported(written_for(alone("UpSampling2D", size=(2, 3)), CPU)[0])
    x = np.random.default_rng(1).integers(-128, 128, (1, *IMAGE)).astype(np.int8)
    np.testing.assert_array_equal(*(TfliteModel(made.content).run_raw({"x": x})[0] for made in (graph, other)))


@pytest.mark.parametrize(
    ("config", "made"),
    [
        ({"pool_size": 2}, ["DepthwiseConv2D"]),
        ({"pool_size": (3, 2), "strides": 1}, ["DepthwiseConv2D"]),
        ({"pool_size": 1, "strides": 2}, ["DepthwiseConv2D"]),
        ({"pool_size": 2, "padding": "same"}, ["DepthwiseConv2D"]),  # no window reaches over the edge
        ({"pool_size": 3, "strides": 1, "padding": "same"}, ["DepthwiseConv2D", "MultiplyPlaces"]),
        ({"pool_size": 3, "strides": 2, "padding": "same"}, ["DepthwiseConv2D", "MultiplyPlaces"]),
        ({"pool_size": (4, 3), "strides": 4, "padding": "same"}, ["DepthwiseConv2D", "MultiplyPlaces"]),
        ({"pool_size": 5, "strides": 1, "padding": "same"}, ["AveragePooling2D"]),  # its factors lie on no grid
        # TensorFlow's depthwise convolution takes one stride for both sides, on some processors
        ({"pool_size": (6, 2)}, ["DepthwiseConv2D"]),
        ({"pool_size": (2, 4), "strides": (3, 4)}, ["DepthwiseConv2D"]),
        ({"pool_size": (5, 4), "strides": (5, 3)}, ["DepthwiseConv2D"]),
        ({"pool_size": (2, 1)}, ["AveragePooling2D"]),
        ({"pool_size": (4, 2)}, ["AveragePooling2D"]),  # with a stride of 2 there were two rows
    ],
    ids=str,
)
def test_average_pooling_is_a_depthwise_convolution_whose_edges_are_scaled(config, made):
    before, x = alone("AveragePooling2D", **config), drawn()
    graph, _ = written_for(before, CPU)
    assert kinds(graph) == made
    np.testing.assert_allclose(run_graph(graph, {"x": x})[0], run_graph(before, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_padding_in_front_of_an_average_is_the_convolutions_own():
    padded = tf_keras.layers.ZeroPadding2D(((0, 1), (0, 1)))
    image = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.Conv2D(4, 1, activation="relu")(image)
    pooled = [
        tf_keras.layers.AveragePooling2D(3, 2, padding="same")(x),
        tf_keras.layers.AveragePooling2D(3, 2)(padded(x)),
    ]
    loaded = load_model(tf_keras.Model(image, tf_keras.layers.Concatenate()(pooled)))
    samples = {loaded.graph.inputs[0]: drawn((8, 8, 3))}
    found = kinds(prepare(loaded.graph, samples, original=loaded, target=CPU).graph)
    assert "ZeroPadding2D" not in found
    assert found.count("DepthwiseConv2D") == 1  # of both


def with_slopes(*slopes):
    config, alpha = {"shared_axes": [1, 2]}, np.array(slopes, np.float32).reshape(1, 1, -1)
    graph = alone("PReLU", **config)
    return graph.with_nodes(graph["y"].replace(weights={"alpha": alpha}))


def of_two(kind):
    graph = alone(kind)
    other = Node("z", "Input", graph["x"].config)
    return Graph((graph["x"], other, graph["y"].replace(inputs=("x", "z"))), ("x", "z"), ("y",))


@pytest.mark.parametrize(
    ("before", "made"),
    [
        (with_slopes(0.1, -0.5, 0.9), ["Affine", "Affine", "ReLU", "Add"]),
        (with_slopes(0.2, 0.2, 0.2), ["LeakyReLU"]),
        (with_slopes(0.2, 0.2, 1.2), ["PReLU"]),
        (of_two("Maximum"), ["Input", "Subtract", "ReLU", "Add"]),
        (of_two("Minimum"), ["Input", "Subtract", "ReLU", "Subtract"]),
    ],
    ids=lambda found: found["y"].kind if isinstance(found, Graph) else len(found),
)
def test_prelu_and_extremes_are_made_of_a_clamp(before, made):
    graph, _ = written_for(before, CPU)
    assert kinds(graph) == made
    samples = {name: drawn(spread=i + 1.0) for i, name in enumerate(graph.inputs)}
    np.testing.assert_allclose(run_graph(graph, samples)[0], run_graph(before, samples)[0], rtol=1e-5, atol=1e-5)


def slow_operations():
    """A lone ReLU, poolings, PReLU and extremes, each between others."""
    make = operator_graphs._Builder(8)
    make.input("image", (6, 6, 4))
    stem = make.conv("stem", "image", 4, 4, 3)
    alone_ = make.node("alone", "ReLU", stem)
    six = make.node("six", "ReLU", make.node("large", "MultiplyConstant", stem, constant=9.0), max_value=6.0)
    pooled = make.node("pooled", "AveragePooling2D", alone_, pool_size=3, strides=1, padding="same")
    slopes = {"alpha": np.array([0.1, 0.2, 0.9, -0.3], np.float32).reshape(1, 1, 4)}
    bent = make.node("bent", "PReLU", stem, slopes, shared_axes=[1, 2])
    larger = make.node("larger", "Maximum", (pooled, bent))
    smaller = make.node("smaller", "Minimum", (larger, six))
    small = make.node("small", "AveragePooling2D", smaller, pool_size=1, strides=2)
    smooth = make.node("smooth", "Gelu", make.conv("before", small, 4, 4))
    return make.graph((make.conv("last", smooth, 4, 3), six))


def test_slow_operations_are_exported_verified_and_taken_by_the_delegate():
    graph, samples = slow_operations(), operator_graphs.draw(slow_operations())
    prepared = prepare(graph, samples, target=CPU)
    assert [found.operator for found in prepared.anew] == ["AVERAGE_POOL_2D", "PRELU", "MAXIMUM", "MINIMUM", "GELU"]
    made = operator_graphs.exported(prepared.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    assert delegation(TfliteModel(made.content)).outside == {}


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    ("window", "config", "parts"),
    [
        ((7, 7), {"padding": "same"}, 3),
        ((7, 7), {}, 3),
        ((6, 9), {"padding": "same", "strides": 2}, 3),
        ((1, 30), {"padding": "same"}, 2),
    ],
    ids=str,
)
def test_large_depthwise_windows_are_sums_of_parts(window, config, parts, activation):
    rng, shape = np.random.default_rng(2), (9, 31, 3)
    weights = {"depthwise_kernel": rng.normal(size=(*window, 3, 1)).astype(np.float32)}
    weights |= {"bias": rng.normal(size=3).astype(np.float32)}
    node = Node("y", "DepthwiseConv2D", {"kernel_size": window, **config}, ("x",), weights, activation)
    before = Graph((Node("x", "Input", {"shape": shape, "dtype": "float32"}), node), ("x",), ("y",))
    graph, (found,) = written_for(before, CPU)
    assert kinds(graph).count("DepthwiseConv2D") == parts
    assert kinds(graph)[-1] == "Add"
    assert found.layers == ("y",)
    samples = {"x": drawn(shape)}
    np.testing.assert_allclose(run_graph(graph, samples)[0], run_graph(before, samples)[0], rtol=1e-4, atol=1e-4)
    assert written_for(before, MICRO) == (before, ())


def test_a_large_window_is_exported_verified_and_taken_by_the_delegate():
    make = operator_graphs._Builder(9)
    make.input("image", (10, 10, 4))
    weights = {"depthwise_kernel": make.normal(7, 7, 4, 1, fan_in=49), "bias": 0.3 * make.normal(4)}
    stem = make.conv("stem", "image", 4, 4)
    large = make.node("large", "DepthwiseConv2D", stem, weights, kernel_size=7, padding="same")
    graph = make.graph((make.conv("last", large, 4, 3),))
    made = operator_graphs.exported(prepare(graph, operator_graphs.draw(graph), target=CPU).graph)
    assert verify_structure(made.content, made.model).unseen == ()
    assert delegation(TfliteModel(made.content)).outside == {}


def shuffled(parts=2, channels=40, strided=False):
    """One part of the channels in turn goes through a layer and is joined with the others, as in ShuffleNet."""
    make = operator_graphs._Builder(5)
    make.input("image", (8, 8, parts * channels))
    stem, free = make.conv("stem", "image", parts * channels, parts * channels), (None,) * 2
    split = {"target_shape": (8, 8, channels, parts)}
    turns = []
    for turn in range(parts):
        if strided:
            cut = {"begin": (*free, turn), "end": (*free, None), "strides": (*free, parts)}
            turns.append(make.node(f"turn{turn}", "Slice", stem, **cut))
            continue
        pairs = make.node(f"pairs{turn}", "Reshape", stem, **split)
        cut = {"begin": (None, *free, turn), "end": (None, *free, turn + 1), "strides": (None, *free, None)}
        part = make.node(f"turn{turn}", "Slice", pairs, **cut)
        turns.append(make.node(f"flat{turn}", "Reshape", part, target_shape=(8, 8, channels)))
    changed = make.conv("changed", turns[0], channels, channels)
    return make.graph((make.node("joined", "Concatenate", (changed, *turns[1:])),))


@pytest.mark.parametrize(("parts", "strided"), [(2, False), (2, True), (4, False)])
def test_channels_in_turn_are_told_apart_by_one_transposition(parts, strided):
    before = shuffled(parts, strided=strided)
    samples = operator_graphs.draw(before)
    graph, (found,) = written_for(before, CPU)
    assert (found.operator, found.operators) == ("SLICE", ("TRANSPOSE", "SLICE"))
    assert found.layers == tuple(f"turn{turn}" for turn in range(parts))
    assert kinds(graph).count("Permute") == 1
    assert kinds(graph).count("Reshape") == 2
    np.testing.assert_array_equal(run_graph(graph, samples)[0], run_graph(before, samples)[0])
    made = operator_graphs.exported(prepare(before, samples, target=CPU).graph)
    assert verify_structure(made.content, made.model).unseen == ()
    assert delegation(TfliteModel(made.content)).outside == {}


@pytest.mark.parametrize("graph", [shuffled(5), shuffled(2, channels=4)], ids=["many parts", "a small tensor"])
def test_other_slices_stay(graph):
    assert written_for(graph, CPU) == (graph, ())


def attending(*, ends: bool):
    """Scores of places against places and a softmax over them, which ends the model or weighs sums."""
    make = operator_graphs._Builder(6)
    make.input("image", (1, 12, 8))
    first, second = (make.conv(name, "image", 8, 8) for name in ("query", "value"))
    weights = make.node("weights", "Softmax", make.node("scores", "MatMul", (first, second), transpose_b=True))
    if ends:
        return make.graph((make.node("shaped", "Reshape", weights, target_shape=(12, 12)),))
    return make.graph((make.node("context", "MatMul", (weights, second)),))


def test_a_softmax_inside_the_model_works_on_real_values():
    before = attending(ends=False)
    found = prepare(before, operator_graphs.draw(before), target=CPU)
    assert [(form.operator, form.layers) for form in found.anew] == [("SOFTMAX", ("weights",))]
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    taken = delegation(TfliteModel(made.content))
    assert (taken.partitions, taken.outside) == (1, {})


def test_a_softmax_that_ends_the_model_keeps_the_type_of_the_output():
    graph = attending(ends=True)
    assert written_for(graph, CPU) == (graph, ())
