"""Random damage to every file that the commands read: a UserError or a result, within 2 GB."""

import json
import os
import pathlib
import subprocess
import sys

import fuzzing
import numpy as np
import pytest

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"
_SEED = 0 if "CI" in os.environ else int.from_bytes(os.urandom(4), "little")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A good file of every kind: those of a run, and its data."""
    place = tmp_path_factory.mktemp("good")
    line = [f"--model={DEMO / 'digits.keras'}", f"--calibration_data={DEMO / 'calibration.npz'}", "--preprocess=raw"]
    line += ["--num_calibration_samples=16", f"--output_dir={place / 'run'}"]
    command = [sys.executable, "-m", "tfq_tools.quantize", *line]
    subprocess.run(command, check=True, capture_output=True)
    images = np.random.default_rng(0).uniform(0, 4, (40, 8, 8, 1)).astype(np.float32)
    np.savez_compressed(place / "plain.npz", x=images, y=np.arange(40) % 4)
    np.savez_compressed(place / "columns.npz", x=np.asfortranarray(images), y=np.arange(40) % 4)
    np.save(place / "data.npy", images)
    run = {kind: place / f"run/{kind}.json" for kind in ("recipe", "spec", "report")}
    return {"npz": place / "plain.npz", "columns": place / "columns.npz", "npy": place / "data.npy", **run}


def damage(files, name, count):
    kind = "npz" if name == "columns" else name
    command = [sys.executable, fuzzing.__file__, kind, str(files[name]), str(count), str(_SEED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accepted"] + found["refused"] == count
    assert found["refused"] > 0
    assert found["peak_mb"] < 2000


@pytest.mark.parametrize("name", ["npz", "columns", "npy", "recipe", "spec", "report"])
def test_a_hundred_of_each(files, name):
    damage(files, name, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["npz", "columns", "npy", "recipe", "spec", "report"])
def test_two_thousand_of_each(files, name):
    damage(files, name, 2000)
