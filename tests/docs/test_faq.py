"""The lines of docs/faq.md that feed an integer model and read it do what they say."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfq.pipeline import quantize
from tfq.recipe import Recipe

FAQ = pathlib.Path(__file__).resolve().parents[2] / "docs/faq.md"
FEED, READ = re.findall(r"^```python\n(.*?)^```", FAQ.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model on pixels 0..255 with real outputs of both signs, and its data."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(scaled)))
    folder = tmp_path_factory.mktemp("faq")
    keras.Model(inputs, outputs).save(folder / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3)).astype(np.uint8)
    np.savez(folder / "pixels.npz", x=pixels)
    return folder


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_values_go_in_and_come_out(folder: pathlib.Path, kind: str) -> None:
    recipe = Recipe(
        str(folder / "model.keras"),
        str(folder / "pixels.npz"),
        preprocess="raw",
        metric="sqnr",
        input_type=kind,
        output_type=kind,
    )
    interpreter = Interpreter(model_content=quantize(recipe).files["model.tflite"])
    interpreter.allocate_tensors()
    model = keras.models.load_model(folder / "model.keras")
    pixels = np.load(folder / "pixels.npz")["x"][:20].astype(np.float32)
    expected = model.predict(pixels, verbose=0)
    found = []
    for values in pixels:
        names: dict[str, Any] = {"np": np, "interpreter": interpreter, "values": values[None]}
        exec(FEED, names)
        interpreter.invoke()
        exec(READ, names)
        assert names["integers"].min() >= np.iinfo(kind).min
        found.append(names["results"][0])
    step = interpreter.get_output_details()[0]["quantization"][0]
    np.testing.assert_allclose(np.array(found), expected, atol=4 * step)
    assert np.ptp(expected) > 40 * step
    if kind == "uint8":  # camera bytes go in unchanged
        assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
