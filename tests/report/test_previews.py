"""Samples as a page shows them."""

import base64
import io

import numpy as np
from PIL import Image

from tfq.data.samples import Samples
from tfq.report.previews import previews


def test_images_become_small_pictures_and_all_else_numbers():
    images = np.random.default_rng(0).normal(size=(5, 100, 80, 3)).astype(np.float32)
    tables = np.arange(250, dtype=np.float32).reshape(5, 50)
    samples = Samples({"image": images, "row": tables}, np.array([0, 2, 4, 6, 8]), names=("a", "b", "c", "d", "e"))
    first, second = previews(samples, [3, 1])
    assert (first.sample, first.index, first.name) == (3, 6, "d")
    assert second.numbers == {
        "row": "50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69,"
        " 70, 71, 72, 73, ... (50 numbers)"
    }
    kind, _, data = first.pictures["image"].partition(",")
    assert kind == "data:image/png;base64"
    drawn = Image.open(io.BytesIO(base64.b64decode(data)))
    assert drawn.size == (51, 64)


def test_nothing_changed_and_one_channel():
    samples = Samples.of({"image": np.zeros((2, 8, 8, 1), np.float32)})
    assert previews(samples, []) == ()
    assert list(previews(samples, [1])[0].pictures) == ["image"]
