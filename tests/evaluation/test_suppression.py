"""TFLite's operator behind a detector finds the boxes that the decoder finds in the detector's own outputs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from metadata_reader import read_metadata

import tfq
from tfq.errors import UserError
from tfq.evaluation.decoders import DECODERS, find_decoder
from tfq.evaluation.metric import Predictions
from tfq.evaluation.suppression import with_nms
from tfq.execution.interpreter import TfliteModel
from tfq.export.nms import OUTPUTS
from tfq.options import APPENDABLE
from tfq.recipe import Recipe

CELLS, CLASSES, SAMPLES = 60, 4, 12
RNG = np.random.default_rng(0)


def passed_on(numbers, outputs, *, int8=False, samples=None):
    """A .tflite of [1, CELLS, numbers, 1] whose outputs are functions of it [1, CELLS, numbers], by name."""

    def function(x):
        rows = tf.squeeze(x, 3)
        return {name: make(rows) for name, make in outputs.items()}

    module = tf.Module()
    signature = tf.TensorSpec([1, CELLS, numbers, 1], tf.float32, name="x")
    module.f = tf.function(function, input_signature=[signature])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_output_type = tf.int8
    return converter.convert()


def yolo_numbers(*, objectness, scale=1.0, logits=False):
    """Centres, sizes, an objectness perhaps, and class scores: [samples, CELLS, n, 1]."""
    boxes = np.concatenate(
        [RNG.uniform(0.2, 0.8, (SAMPLES, CELLS, 2)), RNG.uniform(0, 0.5, (SAMPLES, CELLS, 2))], axis=2
    )
    scores = RNG.uniform(0, 1, (SAMPLES, CELLS, CLASSES + objectness))
    if logits:
        scores = 8 * scores - 4
    numbers = np.concatenate([boxes * scale, scores], axis=2)
    numbers[0, :5, 2:4] = 0.0  # boxes without an area
    return numbers.astype(np.float32)[..., None]


def as_it_is(rows):
    return rows * 1.0


BOTH = {"codes": lambda rows: rows[..., :4] * 1.0, "scores": lambda rows: rows[..., 4:] * 1.0}
CASES = {
    "shares": ("yolov8", yolo_numbers(objectness=False), {"y": as_it_is}, ()),
    "swapped": ("yolov8", yolo_numbers(objectness=False), {"y": lambda rows: tf.transpose(rows, (0, 2, 1))}, ()),
    "pixels": ("yolov8", yolo_numbers(objectness=False, scale=np.array([8, 60, 8, 60])), {"y": as_it_is}, ()),
    "objectness": ("yolo", yolo_numbers(objectness=True, logits=True), {"y": as_it_is}, ()),
    "grid": ("yolo", yolo_numbers(objectness=True), {"y": lambda r: tf.reshape(r, (1, 6, 10, 5 + CLASSES)) * 1.0}, ()),
    "outputs": ("yolov8", yolo_numbers(objectness=False), {"other": tf.nn.relu, **BOTH}, ("codes", "scores")),
}


def detections(content, samples):
    """Boxes [n, most, 6] of a file with the operator, by the decoder that reads what it gives."""
    model = TfliteModel(content)
    assert [info.name for info in model.outputs] == list(OUTPUTS)
    rows = [model.run({"x": sample[None]}) for sample in samples]
    outputs = tuple(np.concatenate(output) for output in zip(*rows, strict=True))
    return find_decoder("tflite_detection")(Predictions(outputs, None, {}, outputs))


def decoded(content, decoder, samples, names=()):
    model = TfliteModel(content)
    rows = [model.run({"x": sample[None]}) for sample in samples]
    outputs = {info.name: np.concatenate(o) for info, o in zip(model.outputs, zip(*rows, strict=True), strict=True)}
    read = tuple(outputs[name] for name in names or outputs)
    return find_decoder(decoder)(Predictions(read, None, {"x": samples}, read))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("settings", ["score=0.3,nms=0.4", "score=0.01,nms=0.7,most=20"])
def test_boxes_of_a_yolo(name, settings):
    decoder, samples, outputs, names = CASES[name]
    decoder = f"{decoder},{settings}"
    content = passed_on(samples.shape[2], outputs)
    appended, notes = with_nms(content, decoder, names, {"x": samples})
    assert notes == ()
    found, expected = detections(appended, samples), decoded(content, decoder, samples, names)
    assert (expected[:, :4, 0] >= 0).all()
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["probabilities", "logits", "int8"])
def test_boxes_of_an_ssd(kind, tmp_path):
    anchors = np.column_stack([RNG.uniform(0.2, 0.8, (CELLS, 2)), RNG.uniform(0.1, 0.4, (CELLS, 2))])
    np.save(tmp_path / "anchors.npy", anchors)
    samples = RNG.normal(0, 2, (SAMPLES, CELLS, 5 + CLASSES, 1)).astype(np.float32)
    score = as_it_is if kind == "logits" else tf.sigmoid
    outputs = {"codes": BOTH["codes"], "scores": lambda rows: score(rows[..., 4:])}
    content = passed_on(5 + CLASSES, outputs, int8=kind == "int8", samples=samples)
    decoder = f"ssd,anchors={tmp_path}/anchors.npy,score=0.5,nms=0.4"
    appended, notes = with_nms(content, decoder, ("codes", "scores"), {"x": samples})
    assert notes == ()
    found, expected = detections(appended, samples), decoded(content, decoder, samples, ("codes", "scores"))
    if kind == "int8":  # equal integers are equal scores, whose order differs between classes
        assert "int8" in {info.dtype.name for info in TfliteModel(content).outputs}
        found, expected = (np.array([rows[np.lexsort(rows.T)] for rows in boxes]) for boxes in (found, expected))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_run_writes_the_file_beside_the_model_and_says_where_it_cannot():
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    image = tf.keras.Input((16, 16, 3), name="x")
    cells = layers.Reshape((64, 4 + CLASSES))(layers.Conv2D(4 + CLASSES, 3, 2, "same", activation="sigmoid")(image))
    images = RNG.uniform(0, 1, (40, 16, 16, 3)).astype(np.float32)
    decoder = "yolov8,score=0.3"
    result = tfq.quantize(tf.keras.Model(image, cells), images, decoder=decoder, nms="append")
    assert not any("other boxes" in warning for warning in result.report.warnings)
    found = detections(result.files["model_nms.tflite"], images[:6])
    expected = decoded(result.tflite, decoder, images[:6])
    np.testing.assert_allclose(*(np.sort(boxes[..., 5], axis=1) for boxes in (found, expected)), atol=1e-5)
    assert [told.name for told in read_metadata(result.files["model_nms.tflite"]).outputs] == list(OUTPUTS)

    recipe = Recipe("model.keras", "x.npz", decoder=decoder, nms="append")
    with pytest.raises(UserError, match="ssd, yolo, yolov8, give one of them"):
        dataclasses.replace(recipe, decoder="centernet")
    with pytest.raises(UserError, match="`outputs` names z; the model has"):
        with_nms(result.tflite, decoder, ["z"], {"x": images[:2]})


def test_what_can_be_appended_are_decoders_whose_boxes_have_doubles():
    assert {name for name in APPENDABLE if DECODERS[name].doubles} == set(APPENDABLE)
