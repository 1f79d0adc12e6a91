"""The whole preparation: random networks, standard architectures of both frameworks, a transformer, real models."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.models import prepare as preparation
from tfq.models.equality import relative_error, run_graph
from tfq.models.graph import Graph, Node, build_model
from tfq.models.grids import grid_groups, separate_grids
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.models.singular import zero_notes
from tfq.operations.table import OPERATORS
from tfq.targets.cpu import CPU

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "models"


def samples_of(graph, count=8, low=-1.0, high=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.uniform(low, high, (count, *graph[n].config["shape"])).astype(np.float32) for n in graph.inputs}


def check(loaded, *, built=True, **ranges):
    """Prepare; the result must give the original's outputs on data it was not checked on, as a Keras model too."""
    samples = samples_of(loaded.graph, **ranges)
    prepared = prepare(loaded.graph, samples)
    fresh = samples_of(loaded.graph, 3, seed=9, **ranges)
    expected = list(loaded.predict(fresh))
    assert relative_error(expected, run_graph(prepared.graph, fresh)) < 1e-4
    if built:
        found = build_model(prepared.graph)([fresh[n] for n in prepared.graph.inputs])
        found = [np.asarray(y) for y in (found if isinstance(found, list) else [found])]
        assert relative_error(expected, found) < 1e-4
    assert {n.kind for n in prepared.graph.nodes} <= {"Input", *OPERATORS}
    assert prepared.graph.output_names == loaded.graph.output_names
    assert prepared.checks
    assert all(c.max_error <= c.bound <= 1e-3 for c in prepared.checks)
    users = {n.name for n in loaded.graph.nodes} | {o for n in loaded.graph.nodes for o in n.origin}
    assert all(set(n.origin) <= users for n in prepared.graph.nodes)
    grid_groups(prepared.graph)
    return prepared


def count(prepared, kind):
    return sum(node.kind == kind for node in prepared.graph.nodes)


# --- random networks ---


def random_network(draw):
    """A random tf_keras network of the layers that image models are made of, branches included."""
    layers = tf_keras.layers

    def layer(x):
        kinds = {
            "conv": lambda: layers.Conv2D(
                draw(st.integers(1, 4)),
                draw(st.integers(1, 3)),
                padding=draw(st.sampled_from(["same", "valid"])),
                use_bias=draw(st.booleans()),
            ),
            "depthwise": lambda: layers.DepthwiseConv2D(2, padding="same", depth_multiplier=draw(st.integers(1, 2))),
            "separable": lambda: layers.SeparableConv2D(3, 2, padding="same"),
            "transpose": lambda: layers.Conv2DTranspose(2, 2),
            "norm": layers.BatchNormalization,
            "scale": lambda: layers.Rescaling(draw(st.sampled_from([2.0, -0.5])), draw(st.sampled_from([0.0, 1.0]))),
            "activation": lambda: layers.Activation(
                draw(st.sampled_from(["relu", "swish", "sigmoid", "hard_sigmoid"]))
            ),
            "relu": lambda: layers.ReLU(draw(st.sampled_from([None, 6.0, 2.0]))),
            "pool": lambda: draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))(2, 1, "same"),
            "pad": lambda: layers.ZeroPadding2D(1),
            "dropout": lambda: layers.Dropout(0.5),
        }
        return kinds[draw(st.sampled_from(sorted(kinds)))]()(x)

    inputs = tf_keras.Input((7, 7, 2))
    tensors, unchanged = [inputs], [inputs]  # an output that is the input unchanged is refused
    for _ in range(draw(st.integers(2, 8))):
        source = draw(st.sampled_from(tensors[-2:]))
        tensors.append(layer(source))
        if isinstance(tensors[-1].node.layer, layers.Dropout) and any(source is t for t in unchanged):
            unchanged.append(tensors[-1])
        if draw(st.integers(0, 3)) == 0:
            same = [t for t in tensors if t.shape[1:] == tensors[-1].shape[1:]]
            merge = draw(st.sampled_from([layers.Add, layers.Multiply, layers.Concatenate, layers.Maximum]))
            tensors.append(merge()([draw(st.sampled_from(same)), tensors[-1]]))
    outputs = [layers.Dense(3)(layers.GlobalAveragePooling2D()(tensors[-1]))]
    changed = [t for t in tensors if not any(t is u for u in unchanged)]
    if changed and draw(st.booleans()):
        outputs.append(draw(st.sampled_from(changed)))
    return tf_keras.Model(inputs, outputs)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(0, 2**16))
def test_any_network_keeps_its_function(data, seed):
    model = random_network(data.draw)
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            rng.uniform(0.3, 2, w.shape) if "variance" in v.name else rng.normal(0, 1, w.shape)
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    loaded = load_model(model)
    prepared = prepare(loaded.graph, samples_of(loaded.graph, 3))
    fresh = samples_of(loaded.graph, 3, seed=seed + 1)
    assert relative_error(list(loaded.predict(fresh)), run_graph(prepared.graph, fresh)) < 1e-4
    assert {n.kind for n in prepared.graph.nodes} <= {"Input", *OPERATORS}
    assert separate_grids(prepared.graph) is prepared.graph
    grid_groups(prepared.graph)


# --- standard architectures ---

# name -> (input size, nodes prepared, ReLUs that cannot be fused, maps that cannot be folded)
ARCHITECTURES = {
    "MobileNet": (64, 32, 0, 0),
    "MobileNetV2": (64, 66, 0, 0),
    "MobileNetV3Small": (64, 102, 0, 1),
    "EfficientNetB0": (64, 240, 0, 0),
    "ResNet50": (64, 76, 0, 0),
    "DenseNet121": (64, 250, 0, 62),
    "InceptionV3": (96, 126, 0, 0),
    "Xception": (96, 105, 11, 0),
    "NASNetMobile": (64, 568, 48, 4),
}
FAST = (("MobileNetV2", "tf_keras"), ("MobileNetV3Small", "keras"))
CASES = [
    pytest.param(name, framework, marks=[] if (name, framework) in FAST else pytest.mark.slow)
    for name in ARCHITECTURES
    for framework in LIBRARIES
]


@pytest.mark.parametrize(("name", "framework"), CASES)
def test_a_standard_architecture_is_prepared_without_changing_its_function(name, framework, randomise):
    size, nodes, relus, maps = ARCHITECTURES[name]
    LIBRARIES[framework].utils.set_random_seed(0)
    build = getattr(LIBRARIES[framework].applications, name)
    pixels = {"low": 0.0, "high": 255.0} if name in ("MobileNetV3Small", "EfficientNetB0") else {}
    model = randomise(build(input_shape=(size, size, 3), weights=None, classes=10))
    prepared = check(load_model(model), built=name == "MobileNetV2", **pixels)
    pointwise = [n for n in prepared.graph.nodes if n.kind == "DepthwiseConv2D" and n.config["kernel_size"] == (1, 1)]
    assert (len(prepared.graph.nodes), count(prepared, "ReLU"), len(pointwise)) == (nodes, relus, maps)


@pytest.mark.parametrize("framework", LIBRARIES)
def test_a_transformer_block_is_prepared(framework, randomise):
    layers = LIBRARIES[framework].layers
    x = inputs = layers.Input((10, 8))
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    hidden = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, hidden]))
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    prepared = check(load_model(randomise(LIBRARIES[framework].Model(inputs, outputs))))
    assert count(prepared, "MatMul") == 2
    assert count(prepared, "LayerNormalization") == count(prepared, "Requantize") == 2
    assert count(prepared, "Conv2D") == 6


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("resnet8_cifar10", 17),
        ("resnet20_cifar10", 35),
        ("kws_dscnn", 14),
        ("mobilenet_v2_035_imagenette", 65),
    ],
)
def test_a_real_model_is_left_with_weighted_layers_sums_and_pooling(name, nodes):
    path = DATA / f"{name}.h5"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: the real models of shared/data are no part of the project")
    prepared = check(load_model(path))
    assert len(prepared.graph.nodes) == nodes
    assert count(prepared, "ReLU") == 0


# --- the check itself, and what enters it ---


def small_graph(shape=(4, 4, 2)):
    kernel = np.random.default_rng(0).normal(size=(1, 1, 2, 3)).astype(np.float32)
    config = {"filters": 3, "kernel_size": (1, 1), "use_bias": False, "activation": "relu"}
    nodes = (
        Node("x", "Input", {"shape": shape, "dtype": "float32"}),
        Node("conv", "Conv2D", config, ("x",), {"kernel": kernel}),
    )
    return Graph(nodes, ("x",), ("conv",))


def test_a_transformation_that_changes_the_function_is_caught_and_named(monkeypatch):
    def broken(graph):
        return graph.replace_nodes(
            [n.replace(weights={k: w * 1.05 for k, w in n.weights.items()}) for n in graph.nodes]
        )

    wrong = (*preparation.TRANSFORMATIONS[:3], ("five percent more", broken), *preparation.TRANSFORMATIONS[3:])
    monkeypatch.setattr(preparation, "TRANSFORMATIONS", wrong)
    with pytest.raises(RuntimeError, match="'five percent more' changed the outputs"):
        prepare(small_graph(), samples_of(small_graph()))


def test_a_network_that_amplifies_rounding_is_measured_against_its_own_noise():
    def scale(name, value):
        weights = {"scale": np.full(2, value, np.float32), "offset": np.full(2, 0.1, np.float32)}
        return Node(name, "Affine", {}, ("x",) if name == "first" else ("first",), weights)

    nodes = (
        small_graph()["x"],
        scale("first", 301.7),
        scale("second", 77.3),
        Node("y", "Unary", {"function": "sin"}, ("second",)),
    )
    graph = Graph(nodes, ("x",), ("y",))
    (fold,) = [c for c in prepare(graph, samples_of(graph)).checks if c.name == "fold affine maps"]
    assert 1e-4 < fold.max_error <= fold.bound <= 1e-2


def test_checks_tell_what_each_transformation_did():
    prepared = prepare(small_graph(), samples_of(small_graph()))
    assert [(c.name, c.nodes_before, c.nodes_after) for c in prepared.checks] == [
        ("split activations", 2, 3),
        ("decompose layers", 3, 3),
        ("fuse activations", 3, 2),
    ]
    assert prepared.graph["conv"].activation == "relu"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ({"y": np.zeros((2, 4, 4, 2))}, "no samples for the input 'x'; got samples for y"),
        ({"x": np.zeros((2, 4, 4, 3))}, r"have the shape \(4, 4, 3\); the model takes \(4, 4, 2\)"),
        ({"x": np.zeros((0, 4, 4, 2))}, "at least one"),
        ({"x": np.full((2, 4, 4, 2), np.nan)}, "no NaN or infinity"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, said):
    with pytest.raises(UserError, match=said):
        prepare(small_graph(), samples)


def test_a_model_that_gives_infinity_is_refused():
    graph = small_graph()
    kernel = np.full((1, 1, 2, 3), 3e38, np.float32)
    graph = graph.replace_nodes([graph["x"], graph["conv"].replace(weights={"kernel": kernel})])
    with pytest.raises(UserError, match="the model gives NaN or infinity"):
        prepare(graph, {"x": np.ones((2, 4, 4, 2), np.float32)})


@pytest.mark.parametrize(("least", "said"), [(1e-4, True), (0.1, False)])
def test_what_rounds_to_0_in_front_of_a_reciprocal_is_told(least, said):
    x = tf_keras.Input((4,), name="x")
    loaded = load_model(tf_keras.Model(x, tf.math.reciprocal(x)))
    samples = {"x": np.linspace(least, 1, 32, dtype=np.float32).reshape(8, 4)}
    notes = zero_notes(prepare(loaded.graph, samples).graph, samples)
    assert bool(notes) == said
    assert all("(reciprocal) is infinite at 0, to which 8 bits round 3.12%" in note for note in notes)


def test_an_output_that_float32_loses_beside_one_is_refused_as_that():
    x = tf_keras.Input((4,))
    loaded = load_model(tf_keras.Model(x, tf.math.log_sigmoid(x + 17.0)))
    with pytest.raises(UserError, match="which float32 loses beside 1"):
        prepare(loaded.graph, samples_of(loaded.graph), original=loaded)


def test_joins_of_many_copies_are_no_duplicates():
    """The converter makes one of two that join the same, and the file would lack what is specified."""
    x = keras.Input((1, 6))
    y = keras.ops.tile(keras.layers.Dense(4)(x), (1, 16, 1))
    loaded = load_model(keras.Model(x, keras.layers.Dense(3)(y)))
    prepared = prepare(loaded.graph, samples_of(loaded.graph), target=CPU)
    joins = [node for node in prepared.graph.nodes if node.kind == "Concatenate"]
    assert max(len(node.inputs) for node in joins) <= 5
    assert len({node.inputs for node in joins}) == len(joins)


def test_the_same_seed_gives_the_same_result():
    first, second = (prepare(small_graph(), samples_of(small_graph()), seed=3) for _ in range(2))
    assert first.checks == second.checks
