"""Damaged model files: one line or a model, never a signal, a traceback or more than 2 GB."""

from __future__ import annotations

import random

import byte_flips
import keras
import pytest
import tf_keras

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
FLIPS = 2_000


def small(library):
    x = library.Input((6, 6, 2), name="image")
    y = library.layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    y = library.layers.Flatten(name="flat")(library.layers.BatchNormalization(name="norm")(y) * 2)
    return library.Model(x, library.layers.Dense(3, name="dense")(y), name="small")


def check(try_one, place, count: int) -> None:
    seed = random.randrange(2**32)
    found = byte_flips.survivors(try_one, place, byte_flips.damaged(place.read_bytes(), count, random.Random(seed)))
    print(f"seed {seed}: {dict(found)}")
    assert found["refused"]
    assert found.total() == count


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_damaged_model_file(library, suffix, tmp_path):
    small(library).save(tmp_path / f"model{suffix}")
    check(byte_flips.load_a_model, tmp_path / f"model{suffix}", FLIPS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "try_one"),
    [
        ("keras_metadata.pb", byte_flips.load_a_saved_model),
        ("variables/variables.index", byte_flips.load_a_checkpoint),
        ("variables/variables.data-00000-of-00001", byte_flips.load_a_checkpoint),
    ],
)
def test_a_damaged_saved_model(name, try_one, tmp_path):
    small(tf_keras).save(tmp_path / "saved", save_format="tf")
    check(try_one, tmp_path / "saved" / name, FLIPS if name == "keras_metadata.pb" else FLIPS // 4)
