"""Single layers, activations and the structure of models: nested, shared, several inputs and outputs, attention."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.errors import UserError
from tfq.models.load import load_model

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)

IMAGE, SEQUENCE, VECTOR = (8, 10, 6), (12, 6), (6,)
# shape of the input, then the layer; made in either framework
LAYERS = {
    "Conv2D": (IMAGE, lambda k: k.Conv2D(4, 3, strides=2, padding="same", activation="relu")),
    "Conv2D groups": (IMAGE, lambda k: k.Conv2D(4, (1, 3), groups=2, use_bias=False)),
    "Conv2D dilated": (IMAGE, lambda k: k.Conv2D(4, 3, dilation_rate=2)),
    "Conv2DTranspose": (IMAGE, lambda k: k.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "Conv2DTranspose valid": (IMAGE, lambda k: k.Conv2DTranspose(4, 4, strides=3, activation="tanh")),
    "DepthwiseConv2D": (IMAGE, lambda k: k.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")),
    "SeparableConv2D": (IMAGE, lambda k: k.SeparableConv2D(4, 3, depth_multiplier=2, activation="elu")),
    "Conv1D": (SEQUENCE, lambda k: k.Conv1D(4, 3, padding="causal", activation="sigmoid")),
    "Conv1DTranspose": (SEQUENCE, lambda k: k.Conv1DTranspose(4, 3, strides=2)),
    "SeparableConv1D": (SEQUENCE, lambda k: k.SeparableConv1D(4, 3)),
    "DepthwiseConv1D": (SEQUENCE, lambda k: k.DepthwiseConv1D(3)),
    "Dense": (VECTOR, lambda k: k.Dense(4, activation="softmax")),
    "Dense on a sequence": (SEQUENCE, lambda k: k.Dense(4, use_bias=False)),
    "EinsumDense": (SEQUENCE, lambda k: k.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "BatchNormalization": (IMAGE, lambda k: k.BatchNormalization(scale=False, epsilon=0.01)),
    "LayerNormalization": (SEQUENCE, lambda k: k.LayerNormalization(epsilon=1e-6)),
    "GroupNormalization": (IMAGE, lambda k: k.GroupNormalization(3)),
    "UnitNormalization": (SEQUENCE, lambda k: k.UnitNormalization()),
    "Softmax": (IMAGE, lambda k: k.Softmax(axis=1)),
    "ReLU": (IMAGE, lambda k: k.ReLU(2.0, 0.1, 0.5)),
    "ELU": (IMAGE, lambda k: k.ELU(0.7)),
    "PReLU": (IMAGE, lambda k: k.PReLU(shared_axes=[1, 2])),
    "LeakyReLU": (IMAGE, lambda k: k.LeakyReLU(0.123)),
    "Rescaling": (IMAGE, lambda k: k.Rescaling(1 / 127.5, -1.0)),
    "Normalization": (IMAGE, lambda k: k.Normalization(mean=[0.1 * i for i in range(6)], variance=[0.2] * 6)),
    "Resizing": (IMAGE, lambda k: k.Resizing(16, 5, interpolation="bilinear")),
    "UpSampling2D": (IMAGE, lambda k: k.UpSampling2D((2, 3))),
    "UpSampling2D bilinear": (IMAGE, lambda k: k.UpSampling2D(2, interpolation="bilinear")),
    "UpSampling1D": (SEQUENCE, lambda k: k.UpSampling1D(2)),
    "MaxPooling2D": (IMAGE, lambda k: k.MaxPooling2D(3, 2, padding="same")),
    "MaxPooling1D": (SEQUENCE, lambda k: k.MaxPooling1D(2)),
    "AveragePooling2D": (IMAGE, lambda k: k.AveragePooling2D((3, 2), 1, padding="same")),
    "AveragePooling1D": (SEQUENCE, lambda k: k.AveragePooling1D(2)),
    "GlobalAveragePooling2D": (IMAGE, lambda k: k.GlobalAveragePooling2D(keepdims=True)),
    "GlobalAveragePooling1D": (SEQUENCE, lambda k: k.GlobalAveragePooling1D()),
    "GlobalMaxPooling2D": (IMAGE, lambda k: k.GlobalMaxPooling2D()),
    "GlobalMaxPooling1D": (SEQUENCE, lambda k: k.GlobalMaxPooling1D()),
    "ZeroPadding2D": (IMAGE, lambda k: k.ZeroPadding2D(((0, 1), (2, 3)))),
    "ZeroPadding1D": (SEQUENCE, lambda k: k.ZeroPadding1D((1, 2))),
    "Cropping2D": (IMAGE, lambda k: k.Cropping2D(((0, 1), (2, 3)))),
    "Cropping1D": (SEQUENCE, lambda k: k.Cropping1D((1, 2))),
    "Flatten": (IMAGE, lambda k: k.Flatten()),
    "Reshape": (IMAGE, lambda k: k.Reshape((-1, 12))),
    "Permute": (IMAGE, lambda k: k.Permute((3, 1, 2))),
    "RepeatVector": (VECTOR, lambda k: k.RepeatVector(3)),
    "Dropout": (IMAGE, lambda k: k.Dropout(0.5, seed=1)),
    "SpatialDropout2D": (IMAGE, lambda k: k.SpatialDropout2D(0.5)),
    "GaussianNoise": (IMAGE, lambda k: k.GaussianNoise(0.5)),
    "RandomFlip": (IMAGE, lambda k: k.RandomFlip()),
    "RandomRotation": (IMAGE, lambda k: k.RandomRotation(0.2)),
    "Identity": (IMAGE, lambda k: k.Identity()),
    "TimeDistributed": (SEQUENCE, lambda k: k.TimeDistributed(k.Dense(4))),
}
ACTIVATIONS = ["linear", "relu", "softmax", "elu", "selu", "softplus", "softsign", "swish", "gelu", "tanh", "sigmoid"]
ACTIVATIONS += ["exponential", "mish", "hard_sigmoid"]
KERAS3_ACTIVATIONS = ["relu6", "leaky_relu", "hard_swish", "hard_silu", "silu", "log_softmax", "log_sigmoid"]


@both
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_kept_with_its_configuration_and_weights(library, name, check_equal, randomise):
    shape, make = LAYERS[name]
    loaded = check_equal(randomise(library.Sequential([library.Input(shape), make(library.layers)])), bound=1e-6)
    assert all(node.group == node.name for node in loaded.graph.nodes)


@pytest.mark.parametrize(
    ("library", "name"),
    [(lib, n) for n in ACTIVATIONS for lib in LIBRARIES] + [("keras", n) for n in KERAS3_ACTIVATIONS],
)
def test_an_activation_means_what_it_means_in_its_framework(library, name, check_equal, randomise):
    library = LIBRARIES[library]
    x = library.Input(VECTOR)
    y = library.layers.Activation(name)(library.layers.Dense(6, activation=name)(x * 3))
    check_equal(randomise(library.Model(x, y)), bound=1e-6)


@both
def test_a_layer_without_a_rule_is_written_out_in_operators(library, check_equal, randomise):
    x = library.Input(SEQUENCE)
    y = library.layers.Attention(name="attention")([x, library.layers.Dense(6)(x)])
    loaded = check_equal(randomise(library.Model(x, y)), bound=2e-6)
    assert {"MatMul", "Softmax"} <= {node.kind for node in loaded.graph.nodes}
    assert loaded.graph.output_names == ("attention",)


@both
def test_a_layer_may_read_one_tensor_twice(library, check_equal, randomise):
    x = library.Input(SEQUENCE)
    y = library.layers.Dense(6)(x)
    check_equal(randomise(library.Model(x, library.layers.Attention()([y, y]))), bound=2e-6)


AUGMENTATIONS = {
    "RandomBrightness": {"factor": 0.3}, "RandomContrast": {"factor": 0.3}, "RandomZoom": {"height_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3}, "RandomInvert": {"factor": 1.0},
    "RandomHue": {"factor": 1.0}, "RandomSaturation": {"factor": 1.0}, "RandomGaussianBlur": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.5}, "RandomSharpness": {"factor": 1.0}, "RandomPosterization": {"factor": 3},
    "RandomColorDegeneration": {"factor": 1.0}, "RandomColorJitter": {"hue_factor": 1.0}, "RandomPerspective": {},
    "RandomErasing": {}, "RandomElasticTransform": {}, "RandomGrayscale": {}, "MixUp": {}, "CutMix": {},
    "RandAugment": {}, "AugMix": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_an_augmentation_does_nothing_at_inference(kind, check_equal):
    x = keras.Input((9, 9, 3))
    loaded = check_equal(keras.Model(x, getattr(keras.layers, kind)(**AUGMENTATIONS[kind])(x)), bound=0.0)
    assert loaded.graph.nodes[1].config == {"activation": "linear"}


def test_a_random_layer_that_is_no_identity_at_inference_is_carried(check_equal):
    x = keras.Input((9, 9, 3))
    check_equal(keras.Model(x, keras.layers.RandomCrop(4, 4, name="crop")(x)))


@both
@pytest.mark.parametrize("kind", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"])
def test_a_merging_layer(library, kind, check_equal, randomise):
    x = library.Input(SEQUENCE)
    options = {"Dot": {"axes": 2}, "Concatenate": {"axis": 1}}.get(kind, {})
    merged = getattr(library.layers, kind)(**options)([x, library.layers.Dense(6)(x)])
    check_equal(randomise(library.Model(x, merged)), bound=2e-6)


@both
@pytest.mark.parametrize("invert", [False, True])
def test_an_adapted_normalisation_becomes_affine(library, invert, check_equal):
    samples = np.random.default_rng(3).normal(2.0, 3.0, (50, *IMAGE)).astype("float32") * np.arange(1, 7)
    layer = library.layers.Normalization(invert=invert, name="adapted")
    layer.adapt(samples)
    x = library.Input(IMAGE)
    assert check_equal(library.Model(x, layer(x)), bound=1e-6).graph["adapted"].kind == "Affine"


def test_a_fused_activation_keeps_its_tf_keras_name():
    x = keras.Input(VECTOR)
    loaded = load_model(keras.Model(x, keras.layers.Dense(3, activation="silu", name="head")(x)))
    assert loaded.graph["head"].config["activation"] == "swish"


@pytest.mark.parametrize("activation", [tf.nn.relu6, tf.nn.relu, tf.nn.gelu, tf_keras.layers.LeakyReLU(0.3)])
def test_an_activation_given_as_a_function_or_layer_is_taken(activation, check_equal, randomise):
    x = tf_keras.Input(IMAGE)
    check_equal(randomise(tf_keras.Model(x, tf_keras.layers.Conv2D(4, 3, activation=activation)(x * 5))))


_GIVEN = ("relu", "relu6", "silu", "gelu", "softmax", "tanh", "sigmoid", "leaky_relu", "softplus", "log_softmax")


@pytest.mark.parametrize("module", [keras.ops, tf.nn], ids=["keras.ops", "tf.nn"])
@pytest.mark.parametrize("name", _GIVEN)
def test_keras_takes_functions_of_other_modules_as_activations(module, name, check_equal, randomise):
    """That of keras.ops need not be the activation of its name: gelu is the approximate one, 5e-4 apart."""
    x = keras.Input(VECTOR)
    y = keras.layers.Dense(6, activation=getattr(module, name))(x * 3)
    check_equal(randomise(keras.Model(x, y)), bound=1e-6)


def test_hard_sigmoid_differs_between_the_frameworks():
    """0.083 apart at x = 2.5; the graph of each must follow its own."""
    values = np.full((1, 6), 2.5, "float32")
    results = []
    for library in LIBRARIES.values():
        x = library.Input(VECTOR, name="x")
        loaded = load_model(library.Model(x, library.layers.Activation("hard_sigmoid")(x)))
        results.append(loaded.predict({"x": values})[0][0, 0])
    assert abs(results[0] - results[1]) > 0.08


@pytest.mark.parametrize(
    "layer",
    [keras.layers.Resizing(4, 4, antialias=True), keras.layers.LayerNormalization(rms_scaling=True)],
    ids=["antialias", "rms_scaling"],
)
def test_a_layer_with_a_configuration_key_without_equivalent_is_carried(layer, check_equal):
    x = keras.Input(IMAGE)
    assert check_equal(keras.Model(x, layer(x))).graph.nodes[1].kind == "Carried"


@both
def test_nested_models_are_flattened_with_readable_unique_names(library, check_equal, randomise):
    layers = library.layers

    def inner(name, depth):
        x = library.Input(IMAGE)
        y = layers.Conv2D(6, 1, name="conv", activation="relu")(x)
        if depth:
            y = inner("deep", depth - 1)(y)
        return library.Model(x, layers.BatchNormalization(name=f"{name}_norm")(y), name=name)

    x = library.Input(IMAGE, name="image")
    y = inner("left", 1)(x)
    y = layers.Add(name="sum")([y, inner("right", 0)(y)])
    sequential = library.Sequential([library.Input(IMAGE), layers.Flatten(name="flat"), layers.Dense(5)], name="head")
    loaded = check_equal(randomise(library.Model(x, sequential(y))))
    names = {node.name for node in loaded.graph.nodes}
    assert {"image", "left.conv", "deep.conv", "deep_norm", "left_norm", "right.conv", "sum", "flat"} <= names
    assert loaded.graph["left.conv"].origin == ("left/conv",)
    assert loaded.graph.inputs == ("image",)


@both
def test_a_shared_layer_gives_one_node_per_call_and_one_array(library, check_equal, randomise):
    a, b = library.Input(VECTOR, name="a"), library.Input(VECTOR, name="b")
    dense = library.layers.Dense(4, activation="hard_sigmoid", name="encode")
    loaded = check_equal(randomise(library.Model([a, b], dense(a) - dense(b))))
    calls = [node for node in loaded.graph.nodes if node.kind == "Dense"]
    assert [node.name for node in calls] == ["encode", "encode.1"]
    assert {node.group for node in calls} == {"encode"}
    assert calls[0].weights["kernel"] is calls[1].weights["kernel"]
    assert {node.group for node in loaded.graph.nodes if node.kind == "ReLU"} == {"encode.relu"}
    groups: dict[str, list] = {}
    for node in loaded.graph.nodes:
        groups.setdefault(node.group, []).append(node)
    for nodes in groups.values():
        for node in nodes[1:]:
            assert node.weights.keys() == nodes[0].weights.keys()
            assert all(np.array_equal(node.weights[n], w) for n, w in nodes[0].weights.items()), (
                "one group, other weights"
            )


@both
def test_a_nested_model_called_twice_shares_its_weights(library, check_equal, randomise):
    i = library.Input(VECTOR)
    encoder = library.Model(i, library.layers.Dense(4, name="inside")(i), name="encoder")
    a, b = library.Input(VECTOR, name="a"), library.Input(VECTOR, name="b")
    loaded = check_equal(randomise(library.Model([a, b], library.layers.Concatenate()([encoder(a), encoder(b)]))))
    assert [(n.name, n.group) for n in loaded.graph.nodes if n.kind == "Dense"] == [
        ("inside", "inside"),
        ("inside.1", "inside"),
    ]


@both
def test_several_inputs_and_outputs_keep_order_and_names(library, check_equal, randomise):
    image, meta = library.Input(IMAGE, name="z_image"), library.Input(VECTOR, name="a_meta")
    y = library.layers.GlobalAveragePooling2D()(library.layers.Conv2D(6, 3)(image))
    y = library.layers.Add()([y, meta])
    outputs = [library.layers.Dense(3, name="second")(y), library.layers.Dense(1, name="first")(y), y]
    loaded = check_equal(randomise(library.Model([image, meta], outputs)))
    assert loaded.graph.inputs == ("z_image", "a_meta")
    assert loaded.graph.output_names[:2] == ("second", "first")


@both
def test_dictionaries_of_inputs_and_outputs_are_named_by_their_keys(library, check_equal, randomise):
    inputs = {n: library.Input(VECTOR, name=n) for n in ("b", "a")}
    y = library.layers.Dense(4)(inputs["a"] - 2 * inputs["b"])
    model = library.Model(inputs, {"score": library.layers.Dense(2)(y), "embedding": y})
    loaded = check_equal(randomise(model))
    assert sorted(loaded.graph.inputs) == ["a", "b"]
    assert loaded.graph.output_names == ("embedding", "score")


@both
def test_characters_that_a_node_name_must_not_have_are_replaced(library, check_equal, randomise):
    x = library.Input(VECTOR, name="in>put")
    loaded = check_equal(randomise(library.Model(x, library.layers.Dense(3, name="den>se")(x))))
    assert loaded.graph.inputs == ("in_put",)
    assert loaded.graph[loaded.graph.outputs[0]].origin == ("den>se",)


@both
def test_attention_is_one_node_with_query_value_and_key(library, check_equal, randomise):
    x, memory = library.Input((5, 8), name="x"), library.Input((7, 8), name="memory")
    own = library.layers.MultiHeadAttention(2, 4, name="own")(x, x)
    cross = library.layers.MultiHeadAttention(2, 4, value_dim=3, name="cross")(own, memory, key=memory)
    loaded = check_equal(randomise(library.Model([x, memory], cross)))
    assert loaded.graph["own"].inputs == ("x", "x")
    assert loaded.graph["cross"].inputs == ("own", "memory", "memory")
    assert "query/kernel" in loaded.graph["cross"].weights


@both
def test_a_transformer_block_on_token_ids(library, check_equal, randomise):
    layers = library.layers
    ids = library.Input((10,), dtype="int32", name="tokens")
    x = layers.Embedding(8, 16)(ids)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 4)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, activation="gelu")(x)))
    y = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(layers.Dropout(0.1)(x)))
    loaded = check_equal(randomise(library.Model(ids, y)))
    assert loaded.graph["tokens"].config == {"shape": (10,), "dtype": "int32"}


@both
def test_an_integer_image_keeps_its_type(library, check_equal, randomise):
    x = library.Input(IMAGE, dtype="uint8", name="x")
    y = library.layers.Conv2D(3, 3)(library.layers.Rescaling(1 / 255)(x))
    loaded = check_equal(randomise(library.Model(x, y)))
    assert loaded.graph["x"].config["dtype"] == "uint8"


@both
def test_a_mixed_precision_model_becomes_float32(library, check_equal, randomise):
    x = library.Input(IMAGE)
    y = library.layers.Conv2D(3, 3, dtype="mixed_float16", activation="relu")(x)
    loaded = check_equal(randomise(library.Model(x, library.layers.Dense(2, dtype="float32")(y))), bound=5e-3)
    assert loaded.compute_dtype == "float16"
    assert {w.dtype.name for node in loaded.graph.nodes for w in node.weights.values()} == {"float32"}


@both
def test_a_fixed_batch_size_is_freed_and_predict_takes_any_number(library, check_equal, randomise):
    x = library.Input(batch_shape=(4, *VECTOR), name="x")
    model = randomise(library.Model(x, library.layers.Dense(3)(x)))
    loaded = check_equal(model)
    ten = np.random.default_rng(0).normal(size=(10, 6)).astype("float32")
    expected = ten @ loaded.graph.nodes[1].weights["kernel"] + loaded.graph.nodes[1].weights["bias"]
    np.testing.assert_allclose(loaded.predict({"x": ten})[0], expected, rtol=1e-5, atol=1e-6)


def test_predict_asks_for_arrays_by_input_name():
    x = tf_keras.Input(VECTOR, name="x")
    loaded = load_model(tf_keras.Model(x, x * 2))
    with pytest.raises(UserError, match=r"inputs are \['x'\], got arrays for \['y'\]"):
        loaded.predict({"y": np.zeros((1, 6))})
