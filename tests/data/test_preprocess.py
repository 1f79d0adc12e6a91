import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfq.data.images import resize_bilinear
from tfq.data.loading import load_samples
from tfq.data.preprocess import NORMALIZATIONS, normalizations
from tfq.data.samples import InputSignature
from tfq.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)


@pytest.mark.parametrize(("preprocess", "mode"), [("minus_one_one", "tf"), ("imagenet", "torch")])
def test_normalisation_equals_keras_applications(preprocess, mode):
    expected = keras.applications.imagenet_utils.preprocess_input(
        PIXELS.astype(np.float32), data_format="channels_last", mode=mode
    )
    found = NORMALIZATIONS[preprocess](PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_zero_one_and_raw():
    np.testing.assert_array_equal(NORMALIZATIONS["zero_one"](PIXELS), PIXELS.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(NORMALIZATIONS["raw"](PIXELS), PIXELS.astype(np.float32))


@pytest.mark.parametrize("size", [(9, 7), (4, 3), (23, 40), (1, 1), (9, 16)])
def test_resize_equals_tensorflow(size):
    expected = tf.image.resize(PIXELS, size).numpy()
    found = np.stack([resize_bilinear(image, *size) for image in PIXELS])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_folder_equals_what_keras_reads_from_it(tmp_path):
    generator = np.random.default_rng(0)
    for name, shape in (("b/1.png", (40, 30)), ("a/2.png", (12, 17)), ("a/3.png", (20, 20)), ("c/0.png", (64, 48))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / name)
    expected = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(20, 20), shuffle=False, batch_size=4, verbose=False
    )
    x, y = next(iter(expected))
    found = load_samples(
        str(tmp_path), [InputSignature("i", (20, 20, 3), "float32")], preprocess="raw", require_labels=True
    )
    np.testing.assert_allclose(found.arrays["i"], x.numpy(), atol=1e-3)
    np.testing.assert_array_equal(found.labels, y.numpy())
    assert found.class_names == tuple(expected.class_names) == ("a", "b", "c")
    assert found.names == ("a/2.png", "a/3.png", "b/1.png", "c/0.png")


def test_only_images_are_preprocessed_when_there_are_several_inputs():
    chosen = normalizations(
        [
            InputSignature("i", (8, 8, 3), "float32"),
            InputSignature("age", (1,), "float32"),
            InputSignature("mask", (8, 8, 1), "int32"),
        ],
        "imagenet",
    )
    assert list(chosen) == ["i"]
    assert list(normalizations([InputSignature("flat", (64,), "float32")], "zero_one")) == ["flat"]


@pytest.mark.parametrize(
    ("signature", "preprocess", "message"),
    [
        (InputSignature("i", (8, 8, 1), "float32"), "imagenet", "needs 3 channels"),
        (
            InputSignature("i", (8, 8, 3), "int8"),
            "zero_one",
            "makes float images, but the model's inputs are 'i' .8, 8, 3. int8",
        ),
        (InputSignature("i", (8, 8, 3), "float32"), "zeroone", "must be none, raw, zero_one"),
    ],
)
def test_impossible_preprocessing_is_refused(signature, preprocess, message):
    with pytest.raises(UserError, match=message):
        normalizations([signature], preprocess)
