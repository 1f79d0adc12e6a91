"""The committed demo: small, split honestly, and as good as its README says."""

from __future__ import annotations

import pathlib
import re

import keras
import numpy as np
import pytest

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo"


@pytest.fixture(scope="module")
def data() -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for name in ("calibration", "test"):
        with np.load(DEMO / f"{name}.npz", allow_pickle=False) as arrays:
            found[name] = dict(arrays)
    return found


def test_data_are_small_unlabelled_for_calibration_and_in_the_units_of_the_model(
    data: dict[str, dict[str, np.ndarray]],
) -> None:
    assert set(data["calibration"]) == {"x"}
    assert set(data["test"]) == {"x", "y"}
    assert len(data["test"]["x"]) == len(data["test"]["y"]) == 797
    assert set(data["test"]["y"].tolist()) == set(range(10))
    for arrays in data.values():
        assert arrays["x"].dtype == np.uint8
        assert arrays["x"].shape[1:] == (8, 8, 1)
        assert arrays["x"].min() == 0
        assert arrays["x"].max() == 16
    assert sum(path.stat().st_size for path in DEMO.iterdir() if path.is_file()) < 1_000_000


def test_no_test_image_is_a_calibration_image(data: dict[str, dict[str, np.ndarray]]) -> None:
    images = {name: {image.tobytes() for image in arrays["x"]} for name, arrays in data.items()}
    assert not images["calibration"] & images["test"]


def test_model_is_mobile_style_and_scores_what_its_readme_says(data: dict[str, dict[str, np.ndarray]]) -> None:
    model = keras.models.load_model(DEMO / "digits.keras")
    kinds = {type(layer).__name__ for layer in model.layers}
    assert {"Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add", "Dense"} <= kinds
    predicted = np.argmax(model.predict(data["test"]["x"].astype(np.float32), verbose=0), axis=-1)
    stated = re.search(r"(\d+) of (\d+) test images", (DEMO / "README.md").read_text(encoding="utf-8"))
    assert stated is not None
    assert [np.sum(predicted == data["test"]["y"]), len(predicted)] == [int(number) for number in stated.groups()]


def test_data_are_the_digits_that_scikit_learn_carries(data: dict[str, dict[str, np.ndarray]]) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is in tfq[demo] only")
    digits = datasets.load_digits()
    np.testing.assert_array_equal(data["calibration"]["x"][..., 0], digits.images[:512])
    np.testing.assert_array_equal(data["test"]["x"][..., 0], digits.images[1000:])
    np.testing.assert_array_equal(data["test"]["y"], digits.target[1000:])
