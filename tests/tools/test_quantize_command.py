"""tfq-quantize and tfq-inspect as a user calls them."""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfq.recipe import Recipe

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"
FLAGS = """model output_dir calibration_data evaluation_data num_calibration_samples metric pipeline weight_bits
    outputs decoder annotations
    activation_bits per_channel calibration_method storage input_type output_type seed overwrite precision
    preprocess selection labels allow_unsafe_deserialization recipe flagfile package first_last_bits
    reconstruction mode granularity range_tuning batch_norm_tuning network_tuning equalization memory_limit workers
    max_accuracy_drop size_budget latency_budget latency_table objective candidates pin sensitivity input_shape"""
GOOD = ("--model=digits.keras", "--calibration_data=calibration.npz", "--preprocess=raw", "--output_dir=out")
PROGRESS = re.compile(r".*: (done in [\d.]+ s|\d.*left|[\d.]+ s so far)$")


def run(place, *arguments, tool="quantize", **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", f"tfq_tools.{tool}", *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A directory with the demo's files and the result of one run in "out": (directory, finished process)."""
    place = tmp_path_factory.mktemp("demo")
    for name in ("digits.keras", "calibration.npz", "test.npz"):
        shutil.copy(DEMO / name, place)
    (place / "flags.txt").write_text("--model=digits.keras\n--calibration_data=calibration.npz\n--preprocess=raw\n")
    options = ("--evaluation_data=test.npz", "--num_calibration_samples=128", "--output_dir=out")
    return place, run(place, "--flagfile=flags.txt", *options)


def snapshot(place):
    """Everything under a directory: path -> content."""
    return {str(p.relative_to(place)): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


class TestARun:
    def test_it_succeeds_and_writes_the_documented_files(self, demo):
        place, done = demo
        assert done.returncode == 0, done.stderr
        names = {"model.tflite", "HOWTO.md", "float.tflite", "spec.json", "report.json", "report.html", "recipe.json"}
        assert {p.name for p in (place / "out").iterdir()} == names
        assert not [p.name for p in place.iterdir() if p.name.startswith(".")]

    def test_the_terminal_shows_progress_on_stderr_and_the_table_on_stdout(self, demo):
        _, done = demo
        assert all(PROGRESS.fullmatch(line) for line in done.stderr.splitlines()), done.stderr
        for text in ("n = 797", "top1", "agreement with float", "file bytes", "download bytes (compressed)"):
            assert text in done.stdout
        assert re.search(r"latency p50, ms +[\d.]+ +[\d.]+ +[\d.]+ x \[", done.stdout)
        assert re.search(r"layers with most error +your layers", done.stdout)
        assert "the scales of 20 activations, 15 weights and 15 biases." in done.stdout
        assert "0 of 19 operations run in float." in done.stdout
        assert done.stdout.rstrip().splitlines()[-2:] == [
            "report: out/report.html (report.json holds the same)",
            "model:  out/model.tflite (HOWTO.md says how to feed it)",
        ]

    def test_its_pages_write_options_as_flags(self, demo):
        place, _ = demo
        page = (place / "out/HOWTO.md").read_text() + (place / "out/report.html").read_text()
        written = set(
            re.findall(r"(?:`|<code>)([a-z]\w*)(?:=[^`<]*)?(?:`|</code>)", page)
        )  # names of tensors among them
        assert written & {field.name for field in dataclasses.fields(Recipe)} == set()

    def test_the_table_says_what_the_report_does(self, demo):
        place, done = demo
        models = json.loads((place / "out/report.json").read_text())["evaluation"]["models"]
        for model, name in zip(models, ("float", "model"), strict=True):
            assert f"{model['score']['value']:.2f} %" in done.stdout
            assert f"{model['size']['file_bytes']:,}" in done.stdout
            assert model["size"]["file_bytes"] == (place / f"out/{name}.tflite").stat().st_size

    def test_the_recipe_repeats_it_in_another_process_to_the_byte(self, demo):
        place, _ = demo
        options = {**os.environ, "PYTHONHASHSEED": "7"}
        done = run(place, "--recipe=out/recipe.json", "--output_dir=again", env=options)
        assert done.returncode == 0, done.stderr
        for name in ("model.tflite", "float.tflite", "spec.json", "recipe.json"):
            assert (place / "again" / name).read_bytes() == (place / "out" / name).read_bytes(), name

    @pytest.mark.slow
    def test_a_package_is_the_same_model_and_both_repeat_to_the_byte(self, demo):
        place, _ = demo
        options = ("--recipe=out/recipe.json", "--output_dir=packed", "--package=gzip", "--model_card")
        code, output, errors = quantize_here(place, *options, "--evaluation_data=")
        assert code == 0, errors
        packed = (place / "packed/model.tflite.gz").read_bytes()
        assert gzip.decompress(packed) == (place / "packed/model.tflite").read_bytes()
        assert output.rstrip().splitlines()[-2:] == [
            f"packed: packed/model.tflite.gz, {len(packed):,} bytes",
            "card:   packed/MODEL_CARD.md (README.md of a repository on the Hugging Face Hub)",
        ]
        report = json.loads((place / "packed/report.json").read_text())
        assert report["package_bytes"] == len(packed)
        assert report["evaluation"]["models"][1]["size"]["download_bytes"] == len(packed) - 12
        # again, into the same place: the file is known as tfq's own
        code, _, errors = quantize_here(place, "--recipe=packed/recipe.json", "--output_dir=packed", "--overwrite")
        assert code == 0, errors
        assert (place / "packed/model.tflite.gz").read_bytes() == packed

    @pytest.mark.slow
    def test_four_bit_activations_are_simulated_and_say_so(self, demo):
        place, _ = demo
        options = ("--activation_bits=4", "--first_last_bits=8", "--output_dir=simulated")
        code, output, errors = quantize_here(place, "--recipe=out/recipe.json", *options)
        assert code == 0, errors
        names = {"float.tflite", "spec.json", "report.json", "report.html", "recipe.json"}
        assert {p.name for p in (place / "simulated").iterdir()} == names
        assert re.search(r"n = 797 +float +W8A4 simulated +against float", output)
        assert "W8A4 simulated: no file, so no size and no latency; TFLite has no kernels for 4-bit" in output
        assert output.rstrip().endswith("model:  none, simulated only: TFLite has no kernels for 4-bit activations")
        assert re.search(r"file bytes +[\d,]+$", output, re.MULTILINE)
        done = run(place, "--result=simulated", tool="inspect")
        assert done.returncode == 0, done.stderr
        assert re.search(r"block2_expand +Conv2D +int8 +8 bit int8 +\[\S+, \S+\] 4 bit", done.stdout)

    @pytest.mark.slow
    def test_the_advanced_pipeline_says_what_each_step_did(self, demo):
        place, _ = demo
        options = ("--pipeline=advanced", "--weight_bits=4", "--output_dir=advanced", "--num_calibration_samples=64")
        code, output, errors = quantize_here(place, "--recipe=out/recipe.json", *options)
        assert code == 0, errors
        report = json.loads((place / "advanced/report.json").read_text())
        assert re.search(r"^step +tried +before +after +samples +result +layers improved$", output, re.MULTILINE)
        for step in report["steps"]:
            for guard in step["guards"]:
                candidate, before = guard["divergences"]
                figures = (
                    rf"{guard['divergences'][before]:.3g} +{guard['divergences'][candidate]:.3g} +{guard['samples']}"
                )
                outcome = "kept" if guard["kept"] == candidate else "rolled back"
                assert re.search(rf"^{step['name']} +{candidate} +{figures} +{outcome}", output, re.M)
        (layers,) = (step["layers"] for step in report["steps"] if step["name"] == "reconstruction")
        kept = sum(layer["kept"] for layer in layers)
        assert re.search(rf"^reconstruction .* {kept} of {len(layers)}$", output, re.MULTILINE)

    def test_inspect_shows_the_result_layer_by_layer(self, demo):
        place, _ = demo
        done = run(place, "--result=out", "--sort=error", tool="inspect")
        assert done.returncode == 0, done.stderr
        report = json.loads((place / "out/report.json").read_text())
        lines = done.stdout.splitlines()
        names = [line.split()[0] for line in lines[2 : 2 + len(report["layers"])]]
        own = {x["name"]: x["own_sqnr_db"] for x in report["layers"]}
        measured = [own[name] for name in names if own[name] is not None]
        assert set(names) == set(own)
        assert measured == sorted(measured)
        assert "load the model" in done.stdout

    def test_inspect_shows_some_layers_only(self, demo):
        place, _ = demo
        done = run(place, "--result=out", "--layers=^block1_(add|expand)", tool="inspect")
        shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("block")]
        assert shown
        assert all(name.startswith(("block1_add", "block1_expand")) for name in shown)

    def test_a_model_that_fails_is_written_and_the_exit_code_is_3(self, demo):
        place, _ = demo
        arguments = ["--model=digits.keras", "--calibration_data=calibration.npz", "--evaluation_data=test.npz"]
        arguments += ["--preprocess=raw", "--num_calibration_samples=8", "--output_dir=failed"]
        done = run(place, *arguments, "--fail_if=drop>90,download>0.01")
        assert done.returncode == 3, done.stderr
        assert "failed, download>0.01: download is 0.3" in done.stderr
        assert "drop>90" not in done.stderr
        assert (place / "failed/model.tflite").is_file()
        assert "against float" in done.stdout

    @pytest.mark.slow
    def test_inspect_diagnoses_a_result(self, demo):
        place, _ = demo
        done = run(place, "--result=out", "--diagnose", "--layers=add$", tool="inspect")
        assert done.returncode == 0, done.stderr
        for part in ("all", "weights", "activations", "depthwise weights"):
            assert re.search(rf"^{part} +unseen .* dB", done.stdout, re.MULTILINE)
        assert [line.split()[0] for line in done.stdout.splitlines() if " Add " in line] == ["block1_add", "block3_add"]

    def test_inspect_compares_any_two_files(self, demo):
        place, _ = demo
        data = ("--data=test.npz", "--preprocess=raw", "--num_samples=4")
        done = run(place, "--model=out/model.tflite", "--float_model=out/float.tflite", *data, tool="inspect")
        assert done.returncode == 0, done.stderr
        rows = [line for line in done.stdout.splitlines()[2:] if line]
        assert len(rows) == 19
        assert sum(" dB" in row for row in rows) > 14
        assert sum("8 bit int8" in row for row in rows) == 15

    def test_inspect_refuses_what_is_no_result(self, demo):
        place, _ = demo
        for arguments, message in (
            ((), "give either --result=DIRECTORY"),
            (("--result=out", "--model=out/model.tflite"), "give either --result=DIRECTORY"),
            (("--result=nowhere",), "nowhere/report.json cannot be read"),
            (("--model=digits.keras",), "is not a .tflite file"),
            (("--model=out/model.tflite", "--layers=("), "--layers=( is no regular expression"),
            (("--model=out/model.tflite", "--data=test.npz"), "--float_model and --data go together"),
            (("--model=out/model.tflite", "--diagnose"), "--diagnose needs --result=DIRECTORY"),
            (("--result=out", "--diagnose", "--sort=error"), "--diagnose shows layers in order"),
        ):
            code, _, errors = inspect_here(place, *arguments)
            assert code == 2
            assert [line for line in errors.splitlines() if line.startswith("tfq-inspect: error:")], errors
            assert message in errors


def _call(module, name, place, *arguments):
    """The command in this process, with flags of its own: (exit code, output, errors). Libraries may speak."""
    found = runpy.run_module(f"tfq_tools.{module}")
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [name, *arguments, "--verbose"])
        patched.chdir(place)
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as stop:
            found["run"]()
    return stop.value.code, output.getvalue(), errors.getvalue()


def inspect_here(place, *arguments):
    return _call("inspect", "tfq-inspect", place, *arguments)


def quantize_here(place, *arguments):
    return _call("quantize", "tfq-quantize", place, *arguments)


def test_help_lists_every_flag(tmp_path):
    done = run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in FLAGS.split():
        assert re.search(rf"^  --(\[no\])?{name}(=|$)", done.stdout, re.MULTILINE), name
    for choices in (
        "--pipeline=int8|light|advanced",
        "--reconstruction=default|none|bias_correction|least_squares|adaround|adaquant|best",
        "--mode=sequential|parallel",
        "--granularity=layer|block",
        "--batch_norm_tuning=default|none|always",
        "--range_tuning=default|none|always",
        "--network_tuning=default|none|always",
        "--equalization=default|none|published|expected",
        "--storage=int8|packed",
        "--package=none|gzip",
        "--input_type=int8|uint8|float32",
        "--output_type=int8|uint8|float32",
    ):
        assert choices in done.stdout
    for default in ("num_calibration_samples", "weight_bits", "metric"):
        assert re.search(rf"--{default}\n(?:      .*\n)*?      .*\(default: \S+\)", done.stdout), default


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A directory with the demo's good files and bad ones of every kind."""
    import keras
    import tf_keras
    from PIL import Image

    place = tmp_path_factory.mktemp("bad")
    for name in ("digits.keras", "calibration.npz", "test.npz"):
        shutil.copy(DEMO / name, place)
    whole = (place / "digits.keras").read_bytes()
    (place / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (place / "text.h5").write_text("this is no model\n" * 40)
    (place / "text.keras").write_text("this is no model\n" * 40)
    layers = tf_keras.layers
    small = tf_keras.Sequential([tf_keras.Input((8, 8, 1), name="image"), layers.Flatten(), layers.Dense(10)])
    small.save(place / "small.h5")
    content = (place / "small.h5").read_bytes()
    (place / "cut.h5").write_bytes(content[: len(content) // 2])
    small.layers[-1].set_weights([np.full((64, 10), np.nan, np.float32), np.zeros(10, np.float32)])
    small.save(place / "nan.h5")
    inputs = keras.Input((8, 8, 1), name="image")
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(place / "lambda.keras")
    with np.load(place / "calibration.npz") as arrays:
        digits = arrays["x"]
    nan = digits.astype(np.float32)
    nan[7, 2, 3] = np.nan
    np.savez(place / "nan.npz", x=nan)
    np.savez(place / "shape.npz", x=digits[:, :7])
    np.savez(place / "text.npz", x=np.array(["a", "b"]))
    np.savez(place / "complex.npz", x=digits.astype(np.complex64))
    np.savez(place / "name.npz", picture=digits)
    np.savez(place / "none.npz", x=digits[:0])
    (place / "cut.npz").write_bytes((place / "calibration.npz").read_bytes()[:5000])
    (place / "empty").mkdir()
    (place / "images").mkdir()
    for index in range(12):
        Image.fromarray(digits[index, ..., 0]).save(place / f"images/{index:02}.png")
    (place / "images/07.png").write_bytes((place / "images/07.png").read_bytes()[:40])
    (place / "file").write_text("in the way\n")
    (place / "taken").mkdir()
    (place / "taken/model.tflite").write_text("precious\n")
    (place / "foreign").mkdir()
    (place / "foreign/thesis.txt").write_text("precious\n")
    return place


def with_(**changes):
    options = dict(flag[2:].split("=") for flag in GOOD) | changes
    return [f"--{name}={value}" if value is not None else f"--{name}" for name, value in options.items() if value != ""]


BAD = {
    "no model": (with_(model="nowhere.keras"), "nowhere.keras"),
    "truncated .keras": (with_(model="cut.keras"), "cut.keras"),
    "truncated .h5": (with_(model="cut.h5"), "cut.h5"),
    "text as .h5": (with_(model="text.h5"), "text.h5"),
    "text as .keras": (with_(model="text.keras"), "text.keras"),
    "data as model": (with_(model="test.npz"), "test.npz"),
    "Lambda": (with_(model="lambda.keras"), "--allow_unsafe_deserialization"),
    "NaN weights": (with_(model="nan.h5"), "NaN"),
    "no data": (with_(calibration_data="nowhere.npz"), "nowhere.npz"),
    "NaN in the data": (with_(calibration_data="nan.npz"), "NaN"),
    "NaN in the evaluation data": (with_(evaluation_data="nan.npz"), "NaN"),
    "wrong shape": (with_(calibration_data="shape.npz"), "(8, 8, 1)"),
    "wrong dtype": (with_(calibration_data="text.npz"), "text.npz"),
    "complex numbers": (with_(calibration_data="complex.npz"), "complex"),
    "wrong name": (with_(calibration_data="name.npz"), "picture"),
    "no samples": (with_(calibration_data="none.npz"), "none.npz"),
    "truncated data": (with_(calibration_data="cut.npz"), "cut.npz"),
    "empty folder": (with_(calibration_data="empty"), "empty"),
    "one corrupt image": (with_(calibration_data="images"), "07.png"),
    "model as data": (with_(calibration_data="digits.keras"), "digits.keras"),
    "output exists": (with_(output_dir="taken"), "taken exists already; pass --overwrite"),
    "output holds other files": (with_(output_dir="foreign", overwrite=None), "thesis.txt"),
    "output is a file": (with_(output_dir="file"), "it is a file"),
    "output below a file": (with_(output_dir="file/out"), "cannot write"),
    "unwritable output": (with_(output_dir="/proc/out"), "cannot write /proc/out"),
    "unknown metric": (with_(metric="top2"), "top2"),
    "unknown function": (with_(metric="nowhere:score", evaluation_data="test.npz"), "nowhere"),
    "weight bits": (with_(weight_bits="9"), "--weight_bits is 9; it must be 2 to 8"),
    "weight bits in words": (with_(weight_bits="four"), "four"),
    "activation bits": (with_(activation_bits="3"), "--activation_bits is 3; it must be 8, which TFLite runs"),
    "a package of nothing": (with_(activation_bits="4", package="gzip"), "there is no model.tflite to package"),
    "bits of the first and last layer": (with_(first_last_bits="9"), "--first_last_bits is 9"),
    "percentile": (with_(calibration_method="percentile=120"), "the number of percentile must lie in (50, 100]"),
    "calibration method": (with_(calibration_method="entropy"), "--calibration_method is 'entropy'"),
    "number of samples": (with_(num_calibration_samples="0"), "--num_calibration_samples is 0"),
    "unknown flag": ([*GOOD, "--bits=4"], "bits"),
    "no model named": (with_(model=""), "missing --model"),
    "no data named": (with_(calibration_data=""), "missing --calibration_data"),
    "no output named": (with_(output_dir=""), "missing --output_dir"),
    "no labels": (with_(labels="nowhere.txt"), "nowhere.txt"),
    "no recipe": ([*GOOD, "--recipe=nowhere.json"], "--recipe=nowhere.json cannot be read"),
    "recipe that is none": ([*GOOD, "--recipe=file"], "--recipe=file cannot be read"),
    "pipeline": (with_(pipeline="heavy"), "--pipeline=heavy"),
    "pipeline of a float model": (with_(pipeline="light", precision="float16"), "only weights on a grid are fitted"),
    "reconstruction": (with_(pipeline="advanced", reconstruction="gptq"), "--reconstruction=gptq"),
    "reconstruction without a pipeline": (with_(reconstruction="best"), "best, but --pipeline=int8 has none"),
    "batch norms without a pipeline": (with_(batch_norm_tuning="always"), "always, but --pipeline=int8 has none"),
    "gradients in the light pipeline": (with_(pipeline="light", reconstruction="adaquant"), "use --pipeline=advanced"),
    "mode": (with_(mode="both"), "--mode=both"),
    "granularity": (with_(granularity="model"), "--granularity=model"),
    "equalization": (with_(equalization="on"), "--equalization=on"),
    "memory limit": (with_(memory_limit="10"), "--memory_limit is 10; it must be at least 64"),
    "memory limit in words": (with_(memory_limit="1GB"), "1GB"),
    "a budget without a pipeline": (with_(size_budget="0.1"), "a budget needs --pipeline=light or --pipeline=advanced"),
    "a budget beyond reach": (with_(pipeline="light", size_budget="0.01"), "the smallest possible is"),
    "a pin of nothing": (
        with_(pipeline="light", size_budget="0.2", pin="nowhere:w8", sensitivity="output_error"),
        "nowhere",
    ),
    "a drop below zero": (with_(pipeline="light", max_accuracy_drop="-1"), "max_accuracy_drop"),
    "no latency table": (with_(pipeline="light", latency_budget="1ms", latency_table="nowhere.json"), "nowhere.json"),
    "workers": (with_(workers="0"), "--workers is 0; it must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_code_2_and_leaves_everything_as_it_was(case, bad):
    arguments, message = BAD[case]
    before = snapshot(bad)
    code, output, errors = quantize_here(bad, *arguments)
    assert code == 2, errors
    assert output == ""
    named = [line for line in errors.splitlines() if line.startswith("tfq-quantize: error: ")]
    assert len(named) == 1, errors
    assert errors.splitlines()[-1] == named[0]
    assert message in named[0]
    assert "Traceback" not in errors
    assert snapshot(bad) == before
    assert not [p for p in bad.iterdir() if p.name.startswith(".") or p.name == "out"]


@pytest.mark.slow
def test_a_metric_that_does_not_fit_the_labels(bad):
    code, _, errors = quantize_here(bad, *with_(metric="auc", evaluation_data="test.npz"))
    assert code == 2
    assert "metric auc needs" in errors.splitlines()[-1]
    assert not (bad / "out").exists()


@pytest.mark.parametrize("case", ["Lambda", "one corrupt image"])
def test_in_a_process_of_its_own_nothing_else_is_on_the_terminal(case, bad):
    arguments, message = BAD[case]
    before = snapshot(bad)
    done = run(bad, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    *others, last = done.stderr.splitlines()
    assert last.startswith("tfq-quantize: error: ")
    assert message in last
    assert all(PROGRESS.fullmatch(line) for line in others), done.stderr
    assert snapshot(bad) == before


def test_killed_half_way_what_was_there_is_untouched(bad):
    place = bad / "killed"
    place.mkdir()
    (place / "out").mkdir()
    (place / "out/model.tflite").write_text("precious\n")
    arguments = [f"--model={bad}/digits.keras", f"--calibration_data={bad}/calibration.npz", "--preprocess=raw"]
    command = [sys.executable, "-m", "tfq_tools.quantize", *arguments, "--output_dir=out", "--overwrite"]
    child = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in child.stderr:
        if "simplify the model: done" in line:
            break
    time.sleep(0.1)  # into the conversion
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert snapshot(place / "out") == {"model.tflite": b"precious\n"}
    assert len([p for p in place.iterdir() if p.name.startswith(".out.partial-")]) == 1
    # the next run, even one that fails, removes what the dead one left
    budget = ["--pipeline=light", "--size_budget=0.2", "--pin=nowhere:w8"]  # which is told of a model that is loaded
    code, _, _ = quantize_here(place, *arguments, *budget, "--output_dir=out", "--overwrite")
    assert code == 2
    assert [p.name for p in place.iterdir()] == ["out"]
    assert snapshot(place / "out") == {"model.tflite": b"precious\n"}
