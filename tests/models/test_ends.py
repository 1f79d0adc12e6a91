"""What ends a model: float where 8 bits would lose too much of it, and only there."""

import numpy as np
import operator_graphs
import pytest
import tf_keras

from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.verify.structure import verify_structure

SHAPE = (8, 8, 4)


def detector(scale=300.0, behind=None, scales=1):
    """Boxes up to about `scale` and scores in 0..1, joined; of several scales, joined again."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image, joined = tf_keras.Input(SHAPE, name="image"), []
    for _ in range(scales):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
        boxes = layers.Rescaling(scale)(layers.Conv2D(4, 1)(x))
        scores = layers.Conv2D(5, 1, activation="sigmoid")(x)
        joined.append(layers.Concatenate()([layers.Reshape((64, 4))(boxes), layers.Reshape((64, 5))(scores)]))
    y = joined[0] if scales == 1 else layers.Concatenate(axis=1)(joined)
    return tf_keras.Model(image, y if behind is None else behind(y))


def prepared(model, target=CPU):
    loaded = load_model(model)
    samples = {"image": np.random.default_rng(0).normal(size=(operator_graphs.SAMPLES, *SHAPE)).astype(np.float32)}
    return loaded, samples, prepare(loaded.graph, {"image": samples["image"][:8]}, original=loaded, target=target)


def kinds(found):
    return [node.kind for node in found.graph.nodes]


@pytest.mark.parametrize("scales", [1, 2])
def test_boxes_and_scores_keep_their_own_grids(scales):
    loaded, samples, found = prepared(detector(scales=scales))
    assert kinds(found).count("FloatConcatenate") == scales + (scales > 1)
    assert "Requantize" not in kinds(found)
    (note,) = found.notes
    assert note.startswith("the output 'concatenate")
    assert " is float32: on one grid of 8 bits with what it is joined with, " in note
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    model = TfliteModel(made.content)
    assert model.outputs[0].dtype == np.float32
    expected = loaded.predict(samples)[0][:1]
    (got,) = model.run({"image": samples["image"][:1]})
    for part in (slice(4), slice(4, None)):
        noise = np.mean((got - expected)[..., part] ** 2)
        assert 10 * np.log10(np.mean(expected[..., part] ** 2) / noise) > 25


def test_a_softmax_that_is_joined_with_boxes_works_on_real_values():
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    boxes = layers.Rescaling(300.0)(layers.Conv2D(4, 1)(x))
    classes = layers.Softmax()(layers.Conv2D(20, 1)(x))
    joined = layers.Concatenate()([layers.Reshape((64, 4))(boxes), layers.Reshape((64, 20))(classes)])
    loaded, samples, found = prepared(tf_keras.Model(image, joined))
    assert {"FloatConcatenate", "FloatSoftmax"} <= set(kinds(found))
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    model = TfliteModel(made.content)
    assert delegation(model).outside == {}
    expected = loaded.predict(samples)[0][:1]
    noise = np.mean((model.run({"image": samples["image"][:1]})[0] - expected)[..., 4:] ** 2)
    assert 10 * np.log10(np.mean(expected[..., 4:] ** 2) / noise) > 25


@pytest.mark.parametrize(
    ("model", "target"),
    [(detector(scale=0.5), CPU), (detector(behind=tf_keras.layers.Conv1D(3, 1)), CPU), (detector(), MICRO)],
    ids=["like ranges", "read by a layer", "a microcontroller"],
)
def test_others_stay_integers(model, target):
    _, _, found = prepared(model, target)
    assert "FloatConcatenate" not in kinds(found)
    assert found.notes == ()


def test_float_parts_are_joined_with_others_through_grids_of_their_own():
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(SHAPE, name="image")
    wide = layers.Conv2D(4, 1, bias_initializer=tf_keras.initializers.Constant(5.0))(image)
    scores = layers.Conv2D(5, 1, activation="tanh")(image)
    joined = layers.Concatenate()([scores, layers.Activation("exponential")(wide)])
    loaded, samples, found = prepared(tf_keras.Model(image, joined))
    assert kinds(found)[-2:] == ["Requantize", "FloatConcatenate"]
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    expected = loaded.predict(samples)[0][:1]
    (got,) = TfliteModel(made.content).run({"image": samples["image"][:1]})
    for part in (slice(5), slice(5, None)):
        noise = np.mean((got - expected)[..., part] ** 2)
        assert 10 * np.log10(np.mean(expected[..., part] ** 2) / noise) > 25


def classifier(classes, sharpness, behind=None):
    """Probabilities of so many classes; of great sharpness those of a few hold nearly all."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(SHAPE, name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(image))
    y = layers.Softmax(name="probabilities")(layers.Rescaling(sharpness)(layers.Dense(classes)(x)))
    return tf_keras.Model(image, y if behind is None else behind(y))


def test_small_probabilities_of_many_classes_are_kept_by_a_float_softmax():
    loaded, samples, found = prepared(classifier(1000, 1.0))
    assert kinds(found)[-1] == "FloatSoftmax"
    (note,) = found.notes
    assert note.startswith("the output 'probabilities' is float32: 100 % of its probability lies in classes of less")
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    assert made.model["probabilities"].reason.startswith("kept float: 8 bits would lose small probabilities")
    model = TfliteModel(made.content)
    assert delegation(model).outside == {}
    expected = loaded.predict(samples)[0][:1]
    np.testing.assert_allclose(model.run({"image": samples["image"][:1]})[0], expected, rtol=0.05)


def test_a_softmax_behind_which_the_shape_changes_ends_the_model_too():
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(SHAPE, name="image")
    logits = layers.Conv2D(1000, 1)(layers.GlobalAveragePooling2D(keepdims=True)(image))
    loaded, samples, found = prepared(tf_keras.Model(image, layers.Softmax()(layers.Flatten()(logits))))
    assert kinds(found)[-2:] == ["Reshape", "FloatSoftmax"]
    made = operator_graphs.exported(found.graph)
    model = TfliteModel(made.content)
    assert delegation(model).outside == {}
    assert delegation(model).partitions == 1
    np.testing.assert_allclose(model.run({"image": samples["image"][:1]})[0], loaded.predict(samples)[0][:1], rtol=0.05)


def scores(bias):
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(SHAPE, name="image")
    x = layers.Conv2D(3, 1, bias_initializer=tf_keras.initializers.Constant(bias), name="logits")(image)
    return tf_keras.Model(image, layers.Reshape((64, 3))(layers.Activation("sigmoid", name="score")(x)))


def test_small_scores_are_kept_by_a_float_sigmoid():
    loaded, samples, found = prepared(scores(-9.0))
    assert kinds(found)[-1] == "FloatSigmoid"
    (note,) = found.notes
    assert "is float32: on the grid that TFLite prescribes, in steps of 1/256, it keeps " in note
    assert note.endswith(" dB; end the model before the sigmoid if you need integers")
    made = operator_graphs.exported(found.graph)
    assert verify_structure(made.content, made.model).unseen == ()
    model = TfliteModel(made.content)
    assert delegation(model).outside == {}
    expected = loaded.predict(samples)[0][:1]
    np.testing.assert_allclose(model.run({"image": samples["image"][:1]})[0], expected, rtol=0.1)


def test_other_sigmoids_stay_int8():
    _, _, found = prepared(scores(0.0))
    assert "FloatSigmoid" not in kinds(found)
    assert found.notes == ()


@pytest.mark.parametrize(
    "model",
    [classifier(10, 1.0), classifier(1000, 400.0), classifier(1000, 1.0, tf_keras.layers.Reshape((10, 100)))],
    ids=["few classes", "sharp", "not the end"],
)
def test_other_softmaxes_stay_int8(model):
    _, _, found = prepared(model)
    assert "FloatSoftmax" not in kinds(found)
    assert found.notes == ()


def test_a_target_of_integers_alone_keeps_its_softmax():
    assert "Softmax" in kinds(prepared(classifier(1000, 1.0), MICRO)[2])
