"""Every command tells a path that leads nowhere before it imports TensorFlow, which takes seconds."""

import json
import shutil
import subprocess
import sys

import pytest
from bad_inputs import DEMO, REPORT, Case, call

from tfq.recipe import Recipe

NONE = "does not exist"
TEST = {"evaluation_data": "test.npz"}
BOXES = {**TEST, "metric": "ap50"}
TIMED = {"latency_budget": "1ms", "pipeline": "light"}
TABLE = {"models": None, "evaluation_data": None, "latency_table": "table.json"}
CASES = {
    "quantize, calibration": call("quantize", NONE, calibration_data="nowhere.npz"),
    "quantize, evaluation": call("quantize", NONE, evaluation_data="nowhere"),
    "quantize, distillation": call("quantize", NONE, **TEST, pipeline="light", distillation_data="nowhere.tfrecord"),
    "quantize, annotations": call("quantize", NONE, **TEST, annotations="nowhere.json"),
    "quantize, labels": call("quantize", "no such file", labels="nowhere.txt"),
    "quantize, latency_table": call("quantize", "no such file", **TIMED, latency_table="nowhere"),
    "quantize, anchors": call("quantize", "no such file", **BOXES, decoder="ssd,anchors=nowhere.npy"),
    "quantize, a module of data": call("quantize", "no such module", calibration_data="nowhere:f"),
    "quantize, a file of functions": call("quantize", "no such module", evaluation_data="folder/nowhere.py:f"),
    "quantize, metric": call("quantize", "--metric is", **TEST, metric="nowhere:f"),
    "quantize, decoder": call("quantize", "--decoder is", **BOXES, decoder="nowhere:f"),
    "quantize, import": call("quantize", "--import names 'nowhere.layers'", **{"import": "nowhere.layers"}),
    "quantize, fail_if": call("quantize", "--fail_if", **TEST, fail_if="nothing>1"),
    "quantize, a journal without a budget": call("quantize", "--journal", journal="journal"),
    "frontier, calibration": call("frontier", NONE, calibration_data="nowhere.npz"),
    "frontier, an idle journal": call("frontier", "--journal", journal="j", sensitivity="gradient"),
    "evaluate, data": call("evaluate", NONE, evaluation_data="nowhere.npz"),
    "evaluate, annotations": call("evaluate", NONE, annotations="nowhere"),
    "evaluate, models": call("evaluate", "no such file", models="nowhere.tflite"),
    "inspect, model": call("inspect", "no such file", model="nowhere.tflite"),
    "inspect, float_model": call("inspect", "no such file", float_model="nowhere.tflite", data="test.npz"),
    "inspect, data": call("inspect", NONE, float_model="float.tflite", data="nowhere.npz"),
    "inspect, what the run read": Case("inspect", ("--result=result", "--diagnose"), NONE),
    "bench, data": call("bench", NONE, evaluation_data="nowhere.npz"),
    "bench, model": call("bench", "no such file", **TABLE, model="nowhere"),
    "profile, model": call("profile", "no such file", model="nowhere.keras"),
}
PROGRAM = """
import contextlib, io, json, runpy, sys
sys.modules["tensorflow"] = None
for command, arguments in json.load(sys.stdin):
    sys.argv = [command, *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            runpy.run_module(f"tfq_tools.{command}")["run"]()
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, errors.getvalue()]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """(exit code, errors) of each case, all in one process that can import no TensorFlow."""
    folder = tmp_path_factory.mktemp("misspelt")
    for file in ("digits.keras", "calibration.npz", "test.npz"):
        shutil.copy(DEMO / file, folder)
    (folder / "float.tflite").write_bytes(b"....TFL3")
    (folder / "result").mkdir()
    (folder / "result/recipe.json").write_text(Recipe("digits.keras", "nowhere.npz").to_json())
    (folder / "result/report.json").write_text(json.dumps(REPORT))
    calls = json.dumps([(case.command, case.arguments) for case in CASES.values()])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=calls, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, map(tuple, map(json.loads, done.stdout.splitlines())), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_without_tensorflow(name: str, told: dict[str, tuple[int, str]]) -> None:
    code, errors = told[name]
    assert code == 2, errors
    assert errors.splitlines()[-1].startswith(f"tfq-{CASES[name].command}: error: ")
    assert CASES[name].message in errors
    assert "Traceback" not in errors
