"""Files that a newer Keras wrote than the one installed: what it added and the model does not use is left out."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from tfq.errors import UserError
from tfq.models.load import load_model

LIBRARIES = [keras, tf_keras]


def saved(path: Path, library: Any, version: str, **options: Any) -> Any:
    """A model, written to `path` as that version would with more options of its convolution."""
    inputs = library.Input((6, 6, 2), name="image")
    outputs = library.layers.BatchNormalization(name="bn")(library.layers.Conv2D(3, 3, name="conv")(inputs))
    model = library.Model(inputs, outputs)
    model.save(path.with_name("original.keras"))
    with zipfile.ZipFile(path.with_name("original.keras")) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps({**json.loads(content), "keras_version": version}).encode()
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1]["config"] |= options
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return model


def version_of(library: Any, *, newer: bool) -> str:
    major, minor = library.__version__.split(".")[:2]
    return f"{major}.{int(minor) + newer}.0"


def test_options_that_are_not_used_are_left_out(tmp_path: Path) -> None:
    version = version_of(keras, newer=True)
    model = saved(tmp_path / "newer.keras", keras, version, sharpness=None, padded_twice=False)
    loaded = load_model(tmp_path / "newer.keras")
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(loaded.predict({"image": x})[0], model.predict(x, verbose=0), atol=1e-6)
    assert loaded.framework.endswith(version)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_an_option_that_is_used_is_named_with_both_versions(tmp_path: Path, library: Any) -> None:
    version = version_of(library, newer=True)
    saved(tmp_path / "newer.keras", library, version, sharpness=3)
    with pytest.raises(UserError, match="conv") as raised:
        load_model(tmp_path / "newer.keras")
    assert f"{library.__name__} {version}, which is newer than the installed {library.__version__}" in str(raised.value)


def test_an_unknown_option_of_the_installed_version_is_no_question_of_versions(tmp_path: Path) -> None:
    saved(tmp_path / "same.keras", keras, version_of(keras, newer=False), sharpness=3)
    with pytest.raises(UserError) as raised:
        load_model(tmp_path / "same.keras")
    assert "newer" not in str(raised.value)
