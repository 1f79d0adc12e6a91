"""A detector and a segmenter on folders of images, end to end: outputs, decoder, annotations, and a largest drop."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import tfq
from tfq.errors import UserError

CELL, CELLS = 8, 4  # pixels of a square, and squares in a row
FOUND = {"preprocess": "zero_one", "decoder": "yolov8", "outputs": ["detections"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images of one red or green square each, their boxes and their masks."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    images, annotations = [], []
    for i in range(24):
        pixels = rng.integers(0, 60, (CELL * CELLS, CELL * CELLS, 3)).astype(np.uint8)
        mask, colour = np.zeros(pixels.shape[:2], np.uint8), int(rng.integers(0, 2))
        x, y = (int(corner) for corner in rng.integers(0, CELLS, 2) * CELL)
        pixels[y : y + CELL, x : x + CELL, colour] = rng.integers(150, 256)
        mask[y : y + CELL, x : x + CELL] = colour + 1
        name = f"{i:02}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)
        images.append({"id": i, "file_name": name, "width": CELL * CELLS, "height": CELL * CELLS})
        annotations.append({"image_id": i, "category_id": colour + 1, "bbox": [x, y, CELL, CELL]})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def detector():
    """It sees squares: boxes and scores [16, 4 + 2] of its cells, and a second output."""
    image = keras.Input((CELL * CELLS, CELL * CELLS, 3), name="image")
    means = layers.AveragePooling2D(CELL)(image)
    scores = layers.Conv2D(2, 1, activation="sigmoid", name="scores")(means)
    rows, columns = np.mgrid[:CELLS, :CELLS]
    sides = [(columns + 0.5) / CELLS, (rows + 0.5) / CELLS, 0 * rows + 1 / CELLS, 0 * rows + 1 / CELLS]
    boxes = 0.02 * layers.Conv2D(4, 1, activation="tanh", name="boxes")(means) + np.stack(sides, -1)[None].astype(
        "float32"
    )
    joined = layers.Reshape((CELLS * CELLS, 6), name="detections")(layers.Concatenate()([boxes, scores]))
    model = keras.Model(image, [layers.Flatten(name="means")(means), joined])
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, [0, 1], [0, 1]] = 12
    model.get_layer("scores").set_weights([kernel, np.float32([-4, -4])])
    return model


def test_outputs_and_a_decoder_that_do_not_fit_are_told_before_the_work(detector, place, monkeypatch):
    monkeypatch.delattr("tfq.pipeline.begin.prepare")
    found = {"metric": "ap50", "annotations": place / "instances.json", **FOUND}
    for change, message in (
        ({"outputs": ["nowhere"]}, "`outputs` names 'nowhere'; the model's outputs are means, detections"),
        ({"outputs": ["means"]}, r"decoder yolov8 reads 1 output with 2 axes a sample; got \(48,\)"),
        ({"decoder": "centernet"}, "decoder centernet reads 3 outputs"),
    ):
        with pytest.raises(UserError, match=message):
            tfq.quantize(detector, place / "images", evaluation=place / "images", **found | change)


@pytest.mark.slow
def test_a_detector_by_average_precision(detector, place):
    images, boxes = place / "images", place / "instances.json"
    found = {"metric": "ap50", "annotations": boxes, **FOUND}
    result = tfq.quantize(detector, images, evaluation=images, **found)
    scores = {model.name: model.score.value for model in result.report.evaluation.models}
    assert scores["float"] == pytest.approx(100.0)
    assert scores["int8"] > 90
    again = tfq.evaluate(result.models, images, latency_runs=0, **found)
    assert [model.score.value for model in again.models] == list(scores.values())
    with pytest.raises(UserError, match="names 'nowhere'; the model's outputs are"):
        tfq.evaluate(result.models, images, latency_runs=0, **found | {"outputs": ["nowhere"]})


@pytest.mark.slow
def test_a_largest_drop_of_average_precision_without_labels(detector, place):
    options = {"metric": "map", "pipeline": "light", "sensitivity": "gradient", **FOUND}
    result = tfq.quantize(detector, place / "images", max_accuracy_drop=5, **options)
    last = result.report.allocation.rounds[-1].measured.drop
    assert last.standard_error > 0
    assert result.report.allocation.attained
    with pytest.raises(UserError, match="metric eer needs labels"):
        tfq.quantize(detector, place / "images", max_accuracy_drop=5, metric="eer", pipeline="light", preprocess="raw")


@pytest.mark.slow
def test_a_segmenter_by_mean_intersection_over_union(place):
    image = keras.Input((CELL * CELLS, CELL * CELLS, 3), name="image")
    model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax", name="mask")(image))
    kernel = np.zeros((1, 1, 3, 3), np.float32)
    kernel[0, 0, [0, 1], [1, 2]] = 12
    model.get_layer("mask").set_weights([kernel, np.float32([5, 0, 0])])
    options = {"metric": "miou", "annotations": place / "masks", "preprocess": "zero_one"}
    result = tfq.quantize(model, place / "images", evaluation=place / "images", **options)
    assert all(estimate.score.value > 95 for estimate in result.report.evaluation.models)
