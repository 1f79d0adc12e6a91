"""What folding remembers of batch normalisation, against the pre-activations of the prepared graph itself."""

import keras
import numpy as np
import pytest
import tf_keras
from keras_outputs import predict_list

from tfq.models.decompose import decompose
from tfq.models.fold import affines_to_depthwise, fold_affines
from tfq.models.graph import Graph, Node, build_model
from tfq.models.load import load_model
from tfq.models.prepare import prepare

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0.3, 1, (64, 10, 8, 3)).astype(np.float32)
ROWS = RNG.normal(0.3, 1, (64, 12, 3)).astype(np.float32)


def trained(model, samples):
    """The model with random scales and shifts and the moving statistics that `samples` give, front to back."""
    rng = np.random.default_rng(1)
    module = keras if isinstance(model, keras.Model) else tf_keras
    for layer in model.layers:
        if isinstance(layer, module.layers.BatchNormalization):
            x = np.asarray(module.Model(model.inputs, layer.input)(samples), np.float64)
            axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
            other = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
            channels = x.shape[axis]
            gamma, beta = rng.normal(0, 1, channels), rng.normal(0, 1, channels)
            gamma = np.where(np.abs(gamma) < 0.2, 0.5, gamma)
            layer.set_weights([gamma, beta, x.mean(other), x.var(other)])
    return model


def prepared(model, samples, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    return prepare(loaded.graph, {loaded.graph.inputs[0]: samples[:8]}, original=loaded).graph


def check_statistics(graph, samples):
    """`normalized` of every node that has it equals mean and deviation of its output without activation."""
    found = [n for n in graph.nodes if n.normalized is not None]
    for node in found:
        bare = graph.replace_nodes([n.replace(activation=None) if n is node else n for n in graph.nodes])
        (y,) = predict_list(build_model(bare, outputs=[node.name]), [samples])
        y = y.reshape(-1, y.shape[-1]).astype(np.float64)
        np.testing.assert_allclose(node.normalized[0], y.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(node.normalized[1], y.std(0), rtol=1e-3, atol=1e-5)
    return [n.name for n in found]


def convolutions(module):
    """Convolutions of all kinds, each followed by a batch normalisation; a residual sum of them; a dense layer."""
    layers = module.layers
    x = inputs = layers.Input((10, 8, 3), name="x")

    def normalized(y, name, activation=None):
        y = layers.BatchNormalization(epsilon=0.05, name=f"bn_{name}")(y)
        return layers.Activation(activation, name=f"act_{name}")(y) if activation else y

    x = normalized(layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(x), "conv", "relu")
    y = normalized(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x), "depthwise", "relu6")
    y = normalized(layers.Conv2D(6, 1, name="pointwise")(y), "pointwise")
    x = layers.Add(name="sum")([x, y])
    x = layers.ReLU(name="relu")(normalized(layers.Conv2D(8, 3, groups=2, name="grouped")(x), "grouped"))
    x = normalized(layers.Conv2DTranspose(5, 3, strides=2, name="transposed")(x), "transposed", "relu")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = normalized(layers.Dense(7, name="hidden")(x), "hidden", "relu")
    return module.Model(inputs, layers.Dense(4, activation="softmax", name="last")(x))


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras 3", "tf_keras"])
def test_every_layer_before_a_batch_normalisation_knows_its_mean_and_deviation(module, tmp_path):
    module.utils.set_random_seed(0)
    graph = prepared(trained(convolutions(module), IMAGES), IMAGES, tmp_path)
    known = {graph[name].origin[0] for name in check_statistics(graph, IMAGES)}
    assert known == {"conv", "depthwise", "pointwise", "grouped", "transposed", "hidden"}
    assert sum(n.normalized is not None and n.origin[0] == "grouped" for n in graph.nodes) == 2


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras 3", "tf_keras"])
def test_layers_over_rows_know_them_through_the_reshapes_around_them(module, tmp_path):
    layers = module.layers
    module.utils.set_random_seed(0)
    stack = [layers.Conv1D(6, 3, name="conv"), layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.Dense(5, name="dense"), layers.BatchNormalization(), layers.ReLU()]
    model = module.Sequential([layers.Input((12, 3), name="x"), *stack, layers.Flatten(), layers.Dense(2, name="last")])
    graph = prepared(trained(model, ROWS), ROWS, tmp_path)
    assert {graph[name].origin[0] for name in check_statistics(graph, ROWS)} == {"conv", "dense"}


def test_a_batch_normalisation_that_stays_by_itself_is_a_depthwise_layer_that_knows_them(tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = layers.ReLU()(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    graph = prepared(trained(tf_keras.Model(inputs, x), IMAGES), IMAGES, tmp_path)
    (name,) = check_statistics(graph, IMAGES)
    assert graph[name].kind == "DepthwiseConv2D"


def test_a_map_behind_the_normalisation_maps_them_too(tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.Rescaling(-2.0, offset=3.0)(x)
    graph = prepared(trained(tf_keras.Model(inputs, layers.Flatten()(x)), IMAGES), IMAGES, tmp_path)
    assert check_statistics(graph, IMAGES) == ["conv"]


def test_of_two_normalisations_the_second_counts(tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = layers.BatchNormalization(name="first")(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.BatchNormalization(name="second")(x)
    graph = prepared(trained(tf_keras.Model(inputs, layers.Flatten()(x)), IMAGES), IMAGES, tmp_path)
    assert check_statistics(graph, IMAGES) == ["conv"]
    assert graph["conv"].origin == ("conv", "first", "second")


@pytest.mark.parametrize("pool", ["AveragePooling2D", "UpSampling2D", "Cropping2D"])
def test_a_normalisation_moved_through_another_layer_says_nothing_of_the_layer_that_takes_it(pool, tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = getattr(layers, pool)(1 if pool == "Cropping2D" else 2)(layers.Conv2D(4, 3, name="conv")(inputs))
    model = trained(tf_keras.Model(inputs, layers.Flatten()(layers.BatchNormalization(name="bn")(x))), IMAGES)
    graph = prepared(model, IMAGES, tmp_path)
    assert graph["conv"].origin == ("conv", "bn")
    assert check_statistics(graph, IMAGES) == []


def test_a_rescaling_moved_through_pooling_maps_what_the_layer_knows(tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.Rescaling(0.5, offset=1.0)(layers.AveragePooling2D()(x))
    graph = prepared(trained(tf_keras.Model(inputs, layers.Flatten()(x)), IMAGES), IMAGES, tmp_path)
    assert check_statistics(graph, IMAGES) == ["conv"]


def test_a_normalisation_folded_forward_leaves_the_next_layers_statistics_alone(tmp_path):
    layers = tf_keras.layers
    inputs = layers.Input((10, 8, 3), name="x")
    x = layers.BatchNormalization(name="before")(layers.ReLU()(inputs))
    x = layers.BatchNormalization(name="behind")(layers.Conv2D(4, 3, name="conv")(x))
    model = trained(tf_keras.Model(inputs, layers.Flatten()(layers.ReLU()(x))), IMAGES)
    graph = prepared(model, IMAGES, tmp_path)
    assert graph["conv"].origin[:3] == ("before", "conv", "behind")
    assert check_statistics(graph, IMAGES) == ["conv"]


def test_a_channel_without_variance_has_no_deviation():
    weights = {"moving_mean": [1.0, 2.0], "moving_variance": [0.0, 4.0], "gamma": [3.0, -3.0], "beta": [5.0, 6.0]}
    weights = {name: np.array(values, np.float32) for name, values in weights.items()}
    nodes = (
        Node("x", "Input", {"shape": (2,), "dtype": "float32"}),
        Node("bn", "BatchNormalization", {"axis": -1, "epsilon": 1e-3}, ("x",), weights),
    )
    graph = affines_to_depthwise(fold_affines(decompose(Graph(nodes, ("x",), ("bn",)))))
    mean, deviation = graph["bn"].normalized
    np.testing.assert_allclose(mean, [5, 6])
    np.testing.assert_allclose(deviation, [0, 3 * np.sqrt(4 / 4.001)], rtol=1e-6)
