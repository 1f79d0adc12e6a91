"""The sample app without its Android parts, compiled and run: it feeds and reads what tfq feeds and reads."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.data.images import resize_bilinear
from tfq.data.preprocess import NORMALIZATIONS
from tfq.execution.interpreter import TensorInfo, TfliteModel
from tfq.export.metadata import ModelMetadata, TensorMetadata, add_metadata

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "android_bench/app/src"
NAMES = ("nought", "one and a half", "zwei ½", "three")
Run = Callable[[Sequence[str]], list[str]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs jobs of Command.kt and gives the lines that it prints."""
    for tool in ("kotlinc", "java"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install kotlin default-jdk-headless)")
    plain = [SOURCES / f"main/kotlin/tfq/sample/{name}.kt" for name in ("Picture", "Feeding", "Metadata")]
    program = tmp_path_factory.mktemp("app") / "app.jar"
    command = ["kotlinc", *plain, SOURCES / "test/kotlin/tfq/sample/Command.kt", "-include-runtime", "-d", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def run(jobs: Sequence[str]) -> list[str]:
        command = ["java", "-cp", program, "tfq.sample.CommandKt"]
        done = subprocess.run(command, input="\n".join(jobs), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def model_of(images: np.ndarray, preprocess: str, kind: str) -> bytes:
    """A classifier of such images, whose metadata tell their preprocessing and the names of the classes."""
    normalization = NORMALIZATIONS[preprocess]
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input(images.shape[1:], name="image")
    features = tf_keras.layers.Flatten()(tf_keras.layers.Conv2D(4, 3)(image))
    model = tf_keras.Model(image, tf_keras.layers.Dense(4, "softmax", name="scores")(features))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in normalization(images))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(kind)
    told = TensorMetadata("image", "RGB", normalization.mean, normalization.std)
    outputs = (TensorMetadata("scores", labels=NAMES),)
    return add_metadata(converter.convert(), ModelMetadata("sample", inputs=(told,), outputs=outputs))


def written(info: TensorInfo) -> str:
    """An input or output in a job."""
    scale, zero_point = (info.scale[0], info.zero_point[0]) if info.quantized else (1, 0)
    return f"{info.dtype.name.upper()} {np.float32(scale)!s} {zero_point}"


@pytest.mark.parametrize(
    ("preprocess", "kind", "channels"),
    [("imagenet", "int8", 3), ("minus_one_one", "uint8", 3), ("zero_one", "int8", 1), ("imagenet", "float32", 3)],
)
def test_a_picture_becomes_the_same_numbers_and_gets_the_same_classes(
    app: Run, tmp_path: pathlib.Path, preprocess: str, kind: str, channels: int
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 12, channels), np.uint8)
    content = model_of(images, preprocess, kind)
    model = TfliteModel(content)
    (info,), (output,) = model.inputs, model.outputs
    assert info.dtype.name == kind

    pictures = [rng.integers(0, 256, size, np.uint8) for size in ((23, 37, 3), (16, 12, 3), (5, 9, 3), (1, 1, 3))]
    (tmp_path / "model").write_bytes(content)
    jobs, expected, classes = [], [], []
    for number, rgb in enumerate(pictures):
        argb = np.dstack([np.full(rgb.shape[:2], 255, np.uint8), rgb])
        (tmp_path / f"picture{number}").write_bytes(argb.tobytes())
        grey = (rgb.astype(np.int64) @ (19595, 38470, 7471) + 0x8000) >> 16
        pixels = rgb if channels == 3 else grey[..., None].astype(np.uint8)
        real = NORMALIZATIONS[preprocess](resize_bilinear(pixels, 16, 12))
        expected.append(info.to_raw(real[None]))
        (raw,) = model.run_raw({"image": expected[-1]})
        (tmp_path / f"output{number}").write_bytes(raw.tobytes())
        scores = output.to_real(raw)[0]
        classes += [f"{NAMES[k]} {scores[k]:.6f}" for k in np.argsort(-scores, kind="stable")[:3]]
        size, place = f"{rgb.shape[1]} {rgb.shape[0]}", f"{tmp_path}/fed{number}"
        jobs.append(f"feed {tmp_path}/model {tmp_path}/picture{number} {size} {written(info)} 16 12 {channels} {place}")
        jobs.append(f"best {tmp_path}/model {tmp_path}/output{number} {written(output)} 4 3")
    told = [f"{name} {float(score):.6f}" for name, _, score in (line.rpartition(" ") for line in app(jobs))]
    for number, elements in enumerate(expected):
        fed = np.fromfile(tmp_path / f"fed{number}", info.dtype).reshape(elements.shape)
        np.testing.assert_array_equal(fed, elements)
        assert len(np.unique(fed)) > 10 or number == 3
    assert told == classes


def test_a_model_that_says_nothing_of_pixels_is_told(app: Run, tmp_path: pathlib.Path, classifier) -> None:
    (tmp_path / "model").write_bytes(classifier[3])
    (tmp_path / "picture").write_bytes(bytes(4))
    with pytest.raises(AssertionError, match=r"make it with tfq-quantize --preprocess"):
        app([f"feed {tmp_path}/model {tmp_path}/picture 1 1 INT8 1 0 8 8 1 {tmp_path}/fed"])
