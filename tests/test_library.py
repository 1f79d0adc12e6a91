"""tfq as a library: what a notebook does, against what the commands do on files."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import nbformat
import numpy as np
import pytest
import tf_keras
from metadata_reader import read_metadata
from nbclient import NotebookClient

import tfq
from tfq.errors import UserError
from tfq.export.flatbuffer import parse, serialize, text
from tfq.export.metadata import RECIPE_BUFFER
from tfq.inputs import taken
from tfq.library import runs
from tfq.recipe import Recipe

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUBLIC = {
    *("quantize", "explore", "evaluate", "inspect", "engine", "Recipe", "UserError"),
    *("Result", "Report", "Comparison", "Inspection", "FrontierReport"),
}
SETTINGS = {"num_calibration_samples": 64, "preprocess": "raw"}
NAMES = {"model.tflite", "HOWTO.md", "float.tflite", "spec.json", "report.json", "report.html", "recipe.json"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder with the demo's files and the result of the command in "out", evaluation images, their labels)."""
    place = tmp_path_factory.mktemp("library")
    for name in ("digits.keras", "calibration.npz"):
        shutil.copy(ROOT / "demo" / name, place)
    with np.load(ROOT / "demo/test.npz") as test:
        x, y = test["x"][:100], test["y"][:100]
    np.savez(place / "test.npz", x=x, y=y)
    command = [sys.executable, "-m", "tfq_tools.quantize", "--model=digits.keras", "--calibration_data=calibration.npz"]
    command += ["--evaluation_data=test.npz", "--output_dir=out", *(f"--{k}={v}" for k, v in SETTINGS.items())]
    # some tests switch oneDNN off for processes that start after them; this one's has it on
    own = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    subprocess.run(command, cwd=place, check=True, capture_output=True, env=own)
    return place, x, y


@pytest.fixture(scope="module")
def result(demo):
    """Of a live Keras 3 model and arrays."""
    place, x, y = demo
    model = keras.models.load_model(place / "digits.keras")
    with np.load(place / "calibration.npz") as calibration:
        return tfq.quantize(model, calibration["x"], evaluation=(x, y), **SETTINGS)


def without_recipe(content: bytes) -> bytes:
    """A .tflite whose metadata do not say what it was made of."""
    parsed = parse(content)
    (entry,) = (entry for entry in parsed.metadata if text(entry.name) == RECIPE_BUFFER)
    parsed.buffers[entry.buffer].data = np.zeros(0, np.uint8)
    return serialize(parsed)


# Names ----------------------------------------------------------------------------------------------------------------


def test_the_public_names_are_these_and_documented():
    assert set(dir(tfq)) == set(tfq.__all__) == PUBLIC
    for name in PUBLIC:
        found = getattr(tfq, name)
        assert found.__name__ == name
        assert inspect.getdoc(found)
    assert not hasattr(tfq, "anything_else")


def test_importing_tfq_imports_no_tensorflow_and_neither_does_measuring_files():
    program = "import sys, tfq; tfq.UserError; tfq.Recipe; tfq.evaluate; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_the_whole_library_changes_nothing_that_its_libraries_do_not():
    program = """
import logging, os, signal, sys, warnings
import matplotlib, keras, tensorflow, tf_keras, tensorflow_model_optimization, ai_edge_litert.interpreter
def state():
    handlers = [signal.getsignal(n) for n in signal.valid_signals()]
    loggers = {n: (l.level, list(l.handlers), list(l.filters)) for n, l in logging.root.manager.loggerDict.items()
               if isinstance(l, logging.Logger)}
    return dict(os.environ), handlers, loggers, logging.root.level, list(warnings.filters), sys.excepthook
before = state()
from tfq import *
assert quantize.__module__ == "tfq.library.runs"
after = state()
names = set(before[2])
print([b == a for b, a in zip(before, (*after[:2], {n: v for n, v in after[2].items() if n in names}, *after[3:]))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([True] * 6)


def test_the_options_are_the_fields_of_a_recipe():
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(runs.Options.__annotations__) == fields - {"model", "calibration_data", "evaluation_data"}


# Runs -----------------------------------------------------------------------------------------------------------------


def test_paths_give_the_files_of_the_command_to_the_byte(demo, monkeypatch):
    place, _, _ = demo
    monkeypatch.chdir(place)
    found = tfq.quantize("digits.keras", pathlib.Path("calibration.npz"), evaluation="test.npz", **SETTINGS)
    assert set(found.files) == NAMES
    for name in ("model.tflite", "float.tflite", "spec.json", "recipe.json"):
        assert found.files[name] == (place / "out" / name).read_bytes(), name
    assert Recipe.from_json(found.files["recipe.json"].decode()) == found.report.recipe


def test_objects_give_the_model_of_the_command(demo, result):
    place, _, _ = demo
    assert result.files["spec.json"] == (place / "out/spec.json").read_bytes()
    for name in ("model.tflite", "float.tflite"):
        assert without_recipe(result.files[name]) == without_recipe((place / "out" / name).read_bytes())
    stored = json.loads((place / "out/report.json").read_text())
    found = json.loads(result.files["report.json"])
    assert found["evaluation"]["models"][1]["score"] == stored["evaluation"]["models"][1]["score"]
    assert found["warnings"] == stored["warnings"]


def test_the_recipe_of_objects_names_their_classes_and_asks_for_them(demo, result):
    place, x, y = demo
    recipe = result.report.recipe
    assert (recipe.model, recipe.calibration_data, recipe.evaluation_data) == ("<Functional>", "<ndarray>", "<tuple>")
    with pytest.raises(UserError, match="missing `model` and `calibration` and `evaluation`; give an object or a path"):
        tfq.quantize(recipe=recipe)
    result.save(place / "saved")
    command = [sys.executable, "-m", "tfq_tools.quantize", "--recipe=saved/recipe.json", "--output_dir=no"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert "missing --model and --calibration_data and --evaluation_data" in done.stderr
    again = tfq.quantize(place / "digits.keras", place / "calibration.npz", evaluation=(x, y), recipe=recipe)
    assert again.files["spec.json"] == result.files["spec.json"]


def test_a_live_tf_keras_model_and_an_endless_generator(classifier):
    model, images, _, _ = classifier
    taken = []

    def endless():
        while True:
            for image in images:
                taken.append(len(taken))
                yield image

    found = tfq.quantize(model, endless(), evaluation=(images, np.arange(120) % 4), num_calibration_samples=100)
    assert len(taken) == found.report.calibration_samples == 100
    stored = tfq.quantize(model, images[:100], evaluation=(images, np.arange(120) % 4))
    assert found.files["spec.json"] == stored.files["spec.json"]


def test_a_metric_and_labels_of_the_program(classifier):
    model, images, _, _ = classifier
    truth, seen = np.arange(120) % 4, []

    def right(outputs, labels):
        seen.append(outputs.shape)
        return 100.0 * (np.argmax(outputs, axis=-1) == labels)

    names = ["ant", "bee", "cat", "dog"]
    found = tfq.quantize(model, images, evaluation=(images, truth), metric=right, labels=names)
    assert (120, 4) in seen
    assert found.report.evaluation.metric == "right"
    stored = tfq.evaluate(found.models, (images, truth), latency_runs=0)
    assert found.report.evaluation["int8"].score.value == pytest.approx(stored["int8"].score.value)
    assert tfq.evaluate(found.models, (images, truth), metric=right, latency_runs=0).metric == "right"
    assert read_metadata(found.tflite).outputs[0].labels == tuple(names)
    assert found.report.recipe.missing == ("model", "calibration_data", "evaluation_data", "metric", "labels")
    with pytest.raises(UserError, match="missing `metric` and `labels`"):
        tfq.quantize(model, images, evaluation=(images, truth), recipe=found.report.recipe)
    for wrong, message in (
        ({"metric": 3}, "`metric` is of type int; expected a name or a function"),
        ({"metric": len}, "`metric` is 'len', whose parameters are"),
        ({"labels": ["a", 3]}, "`labels` holds what is no text, or an empty one"),
        ({"labels": names[:3]}, "`labels` names 3 classes, and the model's first output has 4"),
    ):
        with pytest.raises(UserError, match=message):
            tfq.quantize(model, images, evaluation=(images, truth), **wrong)


def test_settings_of_keras_are_kept_and_change_nothing(classifier):
    model, images, _, _ = classifier
    plain = tfq.quantize(model, images)
    keras.config.set_dtype_policy("mixed_float16")
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    tf_keras.backend.set_image_data_format("channels_first")
    try:
        found = tfq.quantize(model, images)
        assert keras.config.dtype_policy().name == "mixed_float16"
        assert tf_keras.mixed_precision.global_policy().name == "mixed_float16"
        assert tf_keras.backend.image_data_format() == "channels_first"
    finally:
        keras.config.set_dtype_policy("float32")
        tf_keras.mixed_precision.set_global_policy("float32")
        tf_keras.backend.set_image_data_format("channels_last")
    assert found.files["spec.json"] == plain.files["spec.json"]


def test_another_backend_of_keras_is_refused(classifier, monkeypatch):
    model, images, _, _ = classifier
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="Keras runs on jax; tfq needs its tensorflow backend: set the environment"):
        tfq.quantize(model, images)


# Results --------------------------------------------------------------------------------------------------------------


def test_a_result_prints_the_summary_of_the_command(result):
    printed = str(result)
    for words in ("n = 100", "top1", "agreement with float", "layers with most error", "20 activations"):
        assert words in printed
    assert "report:" not in printed
    assert f"model.tflite {len(result.tflite):,} bytes" in repr(result)
    shown = result._repr_html_()
    assert shown.count("<table>") == 1
    assert f"<td>{len(result.tflite):,}</td>" in shown


def test_a_result_is_saved_whole_or_not_at_all(result, tmp_path):
    assert result.save(tmp_path / "a/b") == tmp_path / "a/b"
    assert {path.name: path.read_bytes() for path in (tmp_path / "a/b").iterdir()} == result.files
    with pytest.raises(UserError, match="exists already; pass `overwrite=True` to replace it"):
        result.save(str(tmp_path / "a/b"))
    result.save(tmp_path / "a/b", overwrite=True)
    (tmp_path / "a/b/mine.txt").touch()
    with pytest.raises(UserError, match=r"holds files that are not tfq's \(mine.txt\)"):
        result.save(tmp_path / "a/b", overwrite=True)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}


def test_evaluate_takes_paths_contents_and_names(demo, result):
    place, x, y = demo
    by_name = tfq.evaluate(result.models, (x, y), preprocess="raw", latency_runs=0)
    assert [model.name for model in by_name.models] == ["float", "int8"]
    in_report = result.report.evaluation["int8"]
    assert by_name["int8"].score == in_report.score
    assert by_name["int8"].agreement == in_report.agreement
    files = [place / "out/float.tflite", str(place / "out/model.tflite")]
    listed = tfq.evaluate(files, place / "test.npz", preprocess="raw", latency_runs=0)
    assert [model.name for model in listed.models] == ["float.tflite", "model.tflite"]
    assert listed.models[1].score == in_report.score
    one = tfq.evaluate(result.tflite, x, preprocess="raw", metric="sqnr", latency_runs=4)
    assert one.models[0].name == "model 1"
    command = [sys.executable, "-m", "tfq_tools.evaluate", "--models=out/float.tflite,out/model.tflite"]
    command += ["--evaluation_data=test.npz", "--preprocess=raw", "--latency_runs=0"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout == f"{listed}\n"
    assert listed._repr_html_().count("<tr>") == 3


def test_inspect_lists_what_the_command_lists(demo, result):
    place, x, _ = demo
    found = tfq.inspect(result.tflite)
    assert [o.kind for o in found.operations][:3] == ["CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D"]
    command = [sys.executable, "-m", "tfq_tools.inspect", "--model=out/model.tflite"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout == f"{found}\n"
    measured = tfq.inspect(
        result.tflite, float_model=result.files["float.tflite"], data=x, preprocess="raw", num_samples=2
    )
    assert all(o.sqnr_db is not None and o.sqnr_db > 10 for o in measured.operations)
    assert "digit" in measured.table("digit", sort="error")
    assert found._repr_html_().count("<tr>") == 1 + len(found.operations)


def test_a_frontier_is_printed_and_saved(classifier, tmp_path):
    model, images, _, _ = classifier
    found = tfq.explore(model, images, evaluation=(images, np.arange(120) % 4), points=2)
    assert "size_budget" in str(found)
    assert found._repr_html_().count("<tr>") == 1 + len(found.evaluation.models)
    found.save(tmp_path / "frontier")
    names = {"frontier.json", "frontier.csv", "frontier.html", "frontier.png", "recipe.json"}
    assert {path.name for path in (tmp_path / "frontier").iterdir()} == names
    assert found.recipe.pipeline == "advanced"


def test_a_point_of_the_frontier_is_the_model_of_a_run_with_its_budget(classifier):
    model, images, _, _ = classifier
    options = {"evaluation": (images, np.arange(120) % 4), "pipeline": "light", "candidates": ("w2", "w4", "w8")}
    found = tfq.explore(model, images, points=2, reconstruct=True, **options)
    point = found.points[0]
    budget = float(point.flag.removeprefix("--size_budget="))
    run = tfq.quantize(model, images, size_budget=budget, **options).report
    assert run.allocation.allocation.candidates == point.candidates
    measured, expected = run.evaluation.models[-1], point.evaluation
    assert (measured.score, measured.sqnr) == (expected.score, expected.sqnr)
    assert measured.size.weight_bits == expected.size.weight_bits


# Documentation --------------------------------------------------------------------------------------------------------


def test_the_page_of_names_has_every_public_one():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: tfq\.(\w+)$", page, re.MULTILINE)) == PUBLIC


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    for name in ("docs/library.ipynb", "demo/digits.keras", "demo/calibration.npz", "demo/test.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    notebook = nbformat.read(tmp_path / "docs/library.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    told = [
        "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert told[1].startswith("Result(float.tflite ")
    assert "True" in told  # the endless generator gave the same specification
    assert "block2_depthwise" in told[-2]
    assert "add `pipeline='light'` or `pipeline='advanced'`" in told[-1]
    assert {path.name for path in (tmp_path / "out/digits").iterdir()} == NAMES


# Refusals -------------------------------------------------------------------------------------------------------------


REFUSED = {
    "bits": ({"weight_bits": 9}, "`weight_bits` is 9; it must be 2 to 8"),
    "no such option": ({"weigth_bits": 4}, "there is no option 'weigth_bits'; did you mean `weight_bits`?"),
    "idle option": ({"weight_bits": 4, "mode": "parallel"}, "add `pipeline='advanced'`, or leave it out"),
    "metric": ({"metric": "top7"}, "`metric` is 'top7'; it must be one of"),
    "labels": ({"metric": "auc"}, "no `evaluation` is given, so there are no labels; add `evaluation`"),
    "journal": ({"journal": "kept"}, "`journal` is given without a budget"),
    "executor": ({"executor": ThreadPoolExecutor()}, "`engine` or an executor is given and no layers are worked on"),
    "budget": ({"pin": ["a:w8"]}, "`pin` is given without a budget; add `max_accuracy_drop`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_options_and_leaves_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, message = REFUSED[case]
    with pytest.raises(tfq.UserError, match=re.escape(message)):
        tfq.quantize("digits.keras", np.zeros((100, 8, 8, 1)), **options)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_or_no_model_is_said(demo):
    place, x, _ = demo
    with pytest.raises(UserError, match="missing `calibration`; give an object or a path"):
        tfq.quantize(place / "digits.keras")
    with pytest.raises(UserError, match="got a int for a model"):
        tfq.quantize(3, x)
    with pytest.raises(UserError, match="got a int for a model; give the path or the content"):
        tfq.evaluate(3, x)
    for option, message in (
        ({"latency_run": 4}, "there is no option 'latency_run'; did you mean `latency_runs`"),
        ({"threads": 0}, "`threads` is 0; it must be at least 1"),
        ({"num_samples": -1}, "`num_samples` is -1; it must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            tfq.evaluate(place / "out/model.tflite", x, **option)
    with pytest.raises(UserError, match="`float_model` and `data` go together"):
        tfq.inspect(b"", data=x)
    with pytest.raises(UserError, match="`points` is 1; it must be a whole number of at least 2"):
        tfq.explore("m.keras", x, points=1)
    with pytest.raises(UserError, match="`weight_bits` is given, and a frontier has models of every size"):
        tfq.explore("m.keras", x, weight_bits=4)
    with pytest.raises(UserError, match=r"the calibration data has the shape .* a sample; input .* expects"):
        tfq.quantize(place / "digits.keras", x[:, :4])


def test_a_text_stands_for_a_list_as_in_a_flag():
    options = {"pipeline": "light", "size_budget": 0.2, "pin": "c1.*:w4", "candidates": "w4,w8", "outputs": "y"}
    recipe, _ = taken(None, "m.keras", "x.npz", "t.npz", options)
    assert (recipe.pin, recipe.candidates, recipe.outputs) == (("c1.*:w4",), ("w4", "w8"), ("y",))
