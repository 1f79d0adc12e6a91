"""Runs in MLflow: what is logged, and that no path is."""

import pathlib
import sys

import keras
import numpy as np
import pytest
from tfq_tools.tracking import load_mlflow, log_run

import tfq


def test_a_run_is_logged_without_paths(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs pip install -e '.[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    inputs = keras.Input((8,))
    keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs)).save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    result = tfq.quantize(folder / "model.keras", x, evaluation=(x, np.arange(40) % 3))
    store = f"file://{tmp_path / 'store'}"
    log_run(load_mlflow(), store, "out", result)

    (run,) = mlflow.search_runs(experiment_names=["tfq"], output_format="list")
    assert run.info.run_name == "out"
    assert run.data.params["model"] == "model.keras"
    assert run.data.params["weight_bits"] == "8"
    difference = result.report.evaluation.models[-1].difference
    assert run.data.metrics["difference"] == difference.value
    assert run.data.metrics["difference_low"] == difference.low
    assert run.data.metrics["file_bytes"] == len(result.tflite)
    files = [path for path in pathlib.Path(tmp_path / "store").rglob("*") if path.is_file()]
    assert {"model.tflite", "HOWTO.md", "spec.json"} <= {path.name for path in files}
    assert not [path for path in files if b"secret-folder" in path.read_bytes()]


def test_without_the_package_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(tfq.UserError, match=r"pip install 'tfq\[mlflow\]'"):
        load_mlflow()
