"""The files of a frontier's points."""

import numpy as np
import pytest
import tf_keras
from metadata_reader import read_metadata

import tfq
from tfq.errors import UserError
from tfq.execution.predict import predict
from tfq.pipeline import plan_of, plan_of_frontier
from tfq.recipe import Recipe


@pytest.fixture(scope="module")
def given():
    tf_keras.utils.set_random_seed(0)
    layers = [tf_keras.layers.Dense(12, activation="relu"), tf_keras.layers.Dense(12, activation="relu")]
    model = tf_keras.Sequential([tf_keras.Input((8,), name="x"), *layers, tf_keras.layers.Dense(3)])
    return model, np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32)


OPTIONS = {"pipeline": "light", "candidates": ("w2", "w8"), "sensitivity": "output_error", "metric": "sqnr"}


@pytest.fixture(scope="module")
def report(given):
    return tfq.explore(*given, points=3, reconstruct=True, write=["point_1", "point 3"], **OPTIONS)


def test_the_bytes_are_those_of_a_run_with_the_budget(given, report):
    point = report.points[0]
    share = float(point.flag.removeprefix("--size_budget="))
    run = tfq.quantize(*given, size_budget=share, **OPTIONS)
    assert run.tflite == report.files["point_1.tflite"]
    assert {stage.name for stage in run.report.stages} <= set(plan_of(run.report.recipe))
    assert {stage.name for stage in report.stages} <= set(plan_of_frontier())
    assert Recipe.from_json(read_metadata(run.tflite).recipe).size_budget == share


def test_those_that_are_asked_for_are_written(given, report, tmp_path):
    model, samples = given
    assert set(report.models) == {"point 1", "point 3"}
    folder = report.save(tmp_path / "out")
    assert {path.name for path in folder.glob("*.tflite")} == {"point_1.tflite", "point_3.tflite"}
    errors = []
    for content in report.models.values():
        (found,) = predict(content, {"x": samples})
        errors.append(np.square(found - model.predict(samples, verbose=0)).mean())
    assert errors[0] > 2 * errors[1] > 0  # the last point loses least
    assert '"models": {}' not in report.to_json()
    report.save(folder, overwrite=True)


@pytest.mark.slow
def test_processes_make_the_same_points(given, report):
    again = tfq.explore(*given, points=3, reconstruct=True, write=["point_1", "point_3"], workers=2, **OPTIONS)
    assert again.models == report.models
    assert [p.measured_loss for p in again.points] == [p.measured_loss for p in report.points]


def test_what_is_no_point_is_told_before_the_work(given):
    with pytest.raises(UserError, match="`write` names 'best'; expected a list of points such as point_3, or of all"):
        tfq.explore(*given, write=["best"], **OPTIONS)
    with pytest.raises(UserError, match="`write` names 'point_9', and there are 3 points at the most"):
        tfq.explore(*given, points=3, write=["point_9"], **OPTIONS)
    with pytest.raises(UserError, match="expected a list of points such as point_3, or of all"):
        tfq.explore(*given, write="all", **OPTIONS)
