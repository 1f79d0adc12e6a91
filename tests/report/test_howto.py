"""HOWTO.md: its lines of Python are run, and what they give is compared with the interpreter's real values.

What it says of MediaPipe is asked MediaPipe's ImageClassifier. As that needs absl-py 2, which
tensorflow-model-optimization does not take, it has an environment of its own, whose Python TFQ_TEST_MEDIAPIPE names.
"""

import json
import os
import re
import subprocess

import numpy as np
import pytest
import tf_keras

import tfq
from tfq.execution.interpreter import TfliteModel
from tfq.export.metadata import ModelMetadata, TensorMetadata
from tfq.report.howto import howto

PIXELS = np.arange(256).repeat(3).reshape(1, 16, 16, 3)
NAMES = ("nought", "one", "two", "three")
CLASSIFY = """
import json, sys
import mediapipe, numpy
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in numpy.load(sys.argv[2]):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        (head,) = classifier.classify(image).classifications
        print(json.dumps({found.category_name: found.score for found in head.categories}))
"""


def by_its_lines(page, content, tmp_path, monkeypatch, **inputs):
    """What the Python lines of a page leave behind."""
    (tmp_path / "model.tflite").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(lines, inputs)
    return inputs


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_lines_preprocess_and_feed_an_image(kind, classifier, tmp_path, monkeypatch, capsys):
    _, images, *files = classifier
    content = files[kind == "int8"]
    described = TensorMetadata("image", "GRAYSCALE", (10.0,), (64.0,), (0.0,), (4.0,))
    told = ModelMetadata("digits", inputs=(described,), outputs=(TensorMetadata("probabilities", labels=NAMES),))
    pixels = (images[:1] * 64 + 10).round()
    found = by_its_lines(howto(content, told), content, tmp_path, monkeypatch, x0=pixels)
    (expected,) = TfliteModel(content).run({"image": (pixels - 10) / 64})
    np.testing.assert_allclose(found["y0"], expected, rtol=1e-6)
    assert capsys.readouterr().out == f"{NAMES[expected.argmax()]}\n"


def test_several_inputs_and_outputs_keep_the_order_of_the_file(two_inputs, tmp_path, monkeypatch):
    _, content = two_inputs
    told = ModelMetadata(
        "two",
        inputs=(TensorMetadata("left", minimum=(-1.0,), maximum=(1.0,)), TensorMetadata("ids")),
        outputs=(TensorMetadata("sum"), TensorMetadata("product")),
    )
    model = TfliteModel(content)
    given = {"left": np.float32([[0.5, -1.0, 2.0]]), "ids": np.int32([[1, 4]])}
    page = howto(content, told)
    inputs = {f"x{k}": given[info.name] for k, info in enumerate(model.inputs)}
    found = by_its_lines(page, content, tmp_path, monkeypatch, **inputs)
    for k, expected in enumerate(model.run(given)):
        np.testing.assert_allclose(found[f"y{k}"], expected, rtol=1e-6)
    assert "as the model takes it; calibration saw -1 to 1 |" in page
    assert "| int32 | | | whole numbers |" in re.sub(" +", " ", page)


@pytest.fixture(scope="module")
def others():
    """Pages of models whose inputs are no images: token ids, sound, and a table."""
    tf_keras.utils.set_random_seed(0)
    layers, rng = tf_keras.layers, np.random.default_rng(0)

    def page(inputs, outputs, samples):
        model = tf_keras.Model(inputs, layers.Dense(4, "softmax")(outputs))
        options = {"precision": "int8", "evaluation": (samples, np.arange(len(samples)) % 4), "model_card": True}
        return tfq.quantize(model, samples, **options).files

    ids = tf_keras.Input((6,), dtype="int32", name="ids")
    sound = tf_keras.Input((20, 8, 1), name="sound")
    table = tf_keras.Input((5,), name="table")
    return {
        "ids": page(
            ids, layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(ids)), rng.integers(0, 9, (32, 6), np.int32)
        ),
        "sound": page(
            sound, layers.Flatten()(layers.Conv2D(2, 3)(sound)), rng.normal(size=(32, 20, 8, 1)).astype("f4")
        ),
        "table": page(table, layers.Dense(6, "relu")(table), rng.normal(size=(32, 5)).astype("f4")),
    }


@pytest.mark.parametrize("kind", ["ids", "sound", "table"])
def test_what_is_no_image_has_no_pixels(kind, others):
    page, card = (others[kind][name].decode() for name in ("HOWTO.md", "MODEL_CARD.md"))
    for text in (page, card):
        assert not re.search("pixel|image|preprocess|MediaPipe", text), text
    assert "The lines below do that: give them the numbers that the float model takes." in page
    assert "x0.forEachIndexed { i, number ->" in page
    assert "x0.enumerated().map { (i, number) in" in page


def test_the_languages_hold_the_numbers_of_the_file(classifier):
    content = classifier[3]
    described = TensorMetadata("image", "", mean=(1.5, 2.5, 3.5), std=(50.0, 60.0, 70.0))
    model = TfliteModel(content)
    outputs = tuple(TensorMetadata(info.name) for info in model.outputs)
    page, (info,) = howto(content, ModelMetadata("digits", inputs=(described,), outputs=outputs)), model.inputs
    step, offset = str(np.float32(info.scale[0])), abs(info.zero_point[0])
    real = "(pixel - mean0[i % 3]) / std0[i % 3]"
    assert "val mean0 = floatArrayOf(1.5f, 2.5f, 3.5f)" in page
    assert f"Math.rint(({real} / {step}f).toDouble()).toInt() - {offset}).coerceIn(-128, 127)" in page
    assert "let std0: [Float] = [50.0, 60.0, 70.0]" in page
    assert f"Int8(min(127, max(-128, ({real} / {step}).rounded(.toNearestOrEven) - {offset})))" in page
    assert "MediaPipe" not in page


@pytest.fixture(scope="module")
def photographs():
    """(model of RGB images in 0..1, images none of which reaches 255)."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    image = tf_keras.Input((16, 16, 3), name="image")
    model = tf_keras.Model(image, layers.Dense(4, "softmax")(layers.Flatten()(layers.Conv2D(4, 3)(image))))
    return model, np.random.default_rng(0).integers(20, 200, (40, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("preprocess", ["zero_one", "minus_one_one"])
def test_bytes_of_an_image_are_the_integers_of_the_file(preprocess, photographs, tmp_path, monkeypatch):
    model, images = photographs
    options = {"preprocess": preprocess, "input_type": "uint8", "output_type": "uint8", "labels": NAMES}
    result = tfq.quantize(model, images, **options)
    page, (info,) = result.files["HOWTO.md"].decode(), TfliteModel(result.tflite).inputs
    pixels = np.arange(256, dtype=np.float32)
    real = pixels / 255 if preprocess == "zero_one" else pixels / 127.5 - 1
    assert np.abs(info.to_raw(real) - pixels).max() <= 1
    assert "| image, RGB; pixels 0..255 as they are |" in page
    assert "Its ImageClassifier takes the file as it is" in page
    found = by_its_lines(page, result.tflite, tmp_path, monkeypatch, x0=PIXELS)
    (expected,) = TfliteModel(result.tflite).run({"image": real[PIXELS]})
    np.testing.assert_allclose(found["y0"], expected, atol=2 / 256)


def test_what_mediapipe_lacks_is_told(photographs):
    model, images = photographs
    page = tfq.quantize(model, images, preprocess="imagenet").files["HOWTO.md"].decode()
    lacking = "one mean and deviation for all channels, or of a model that scales by itself, `output_type='uint8'`"
    assert page.endswith(f"Its ImageClassifier takes a file that is made with {lacking}, `labels`.\n")


@pytest.fixture
def classify(tmp_path):
    """What MediaPipe's ImageClassifier does with a file and images, in a process of its own."""
    python = os.environ.get("TFQ_TEST_MEDIAPIPE")
    if not python:
        pytest.skip("set TFQ_TEST_MEDIAPIPE to the Python of an environment with mediapipe: `make mediapipe`")

    def run(content, images):
        (tmp_path / "model.tflite").write_bytes(content)
        np.save(tmp_path / "images.npy", images)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [python, "-c", CLASSIFY, tmp_path / "model.tflite", tmp_path / "images.npy"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


@pytest.mark.parametrize("preprocess", ["zero_one", "minus_one_one"])
@pytest.mark.parametrize("types", [("uint8", "uint8"), ("float32", "float32")])
def test_it_names_the_classes_with_the_scores_of_the_file(preprocess, types, photographs, classify):
    model, images = photographs
    options = dict(zip(("input_type", "output_type"), types, strict=True))
    result = tfq.quantize(model, images, preprocess=preprocess, labels=NAMES, **options)
    assert "Its ImageClassifier takes the file as it is" in result.files["HOWTO.md"].decode()
    done = classify(result.tflite, images[:8])
    assert done.returncode == 0, done.stderr
    real = images[:8] / np.float32(255) if preprocess == "zero_one" else images[:8] / np.float32(127.5) - 1
    for line, sample in zip(done.stdout.splitlines(), real, strict=True):
        found = json.loads(line)
        (expected,) = TfliteModel(result.tflite).run({"image": sample[None]})
        # a pixel may lie on the edge between two integers, which costs a step or two of the 256 of a score
        np.testing.assert_allclose([found[name] for name in NAMES], expected[0], atol=0.01)


def test_it_refuses_what_the_page_says_it_lacks(photographs, classify):
    model, images = photographs
    result = tfq.quantize(model, images, preprocess="zero_one", output_type="uint8", labels=NAMES)
    (lacking,) = re.findall(r"takes a file that is made with (.*)\.\n$", result.files["HOWTO.md"].decode())
    assert lacking == "`input_type='uint8'`"
    done = classify(result.tflite, images[:1])
    assert done.returncode
    assert "got INT8" in done.stderr
