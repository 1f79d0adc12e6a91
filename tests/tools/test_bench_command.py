"""tfq-bench on this machine as a user runs it: real runner, real runtime."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from runner_cache import built_runner
from tfq_bench.bench import prepare, run_bench
from tfq_bench.host_device import describe_host, run_on_host
from tfq_bench.job import Settings
from tfq_bench.library import wheel_library
from tfq_bench.summary import device_summary

from tfq.allocation.latency_table import read_table
from tfq.data.samples import Samples
from tfq.evaluation.evaluate import evaluate

QUICK = ("--rounds=2", "--seconds=0", "--warmup_seconds=0", "--min_runs=30")


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return built_runner(tmp_path_factory)


@pytest.fixture
def files(classifier: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    _, images, first, second = classifier
    (tmp_path / "float.tflite").write_bytes(first)
    (tmp_path / "int8.tflite").write_bytes(second)
    np.savez(tmp_path / "test.npz", x=images, y=np.arange(120) % 4)
    return tmp_path


def bench(folder: pathlib.Path, runner: pathlib.Path, *arguments: str, **options: Any) -> Any:
    command = [sys.executable, "-m", "tfq_tools.bench", f"--runner={runner}", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)


def report(folder: pathlib.Path, name: str = "host") -> dict[str, Any]:
    return json.loads((folder / f"out/bench/{name}.json").read_text())


def test_a_run_of_tfq_quantize_gets_the_figures_into_its_report(
    files: pathlib.Path, runner: pathlib.Path, classifier: Any
) -> None:
    classifier[0].save(files / "model.h5")
    line = ["--model=model.h5", "--calibration_data=test.npz", "--evaluation_data=test.npz", "--output_dir=made"]
    subprocess.run([sys.executable, "-m", "tfq_tools.quantize", *line], cwd=files, check=True, capture_output=True)
    done = bench(files, runner, "--result=made", "--evaluation_data=test.npz", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    merged = json.loads((files / "made/report.json").read_text())
    (device,) = merged["devices"]
    assert [model["name"] for model in device["models"]] == ["float.tflite", "model.tflite"]
    score = merged["evaluation"]["models"][-1]["score"]
    assert device["models"][-1]["score"]["value"] == score["value"]
    assert device["models"][-1]["against_host"][0]["exact"]
    assert f"On {device['device']['name']}" in (files / "made/report.html").read_text()
    again = bench(files, runner, "--result=nowhere", "--evaluation_data=test.npz", *QUICK)
    assert again.returncode == 2
    assert "nowhere/report.json cannot be read" in again.stderr


def test_table_and_json(files: pathlib.Path, runner: pathlib.Path, classifier: Any) -> None:
    models = "--models=float.tflite,int8.tflite"
    done = bench(files, runner, models, "--evaluation_data=test.npz", "--threads=1,2", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    found = report(files)
    images = classifier[1]
    samples = Samples({"image": images}, np.arange(120), np.arange(120) % 4)
    expected = evaluate({"float": classifier[2], "int8": classifier[3]}, samples, timing=None)
    assert found["failures"] == []
    assert [model["name"] for model in found["models"]] == ["float.tflite", "int8.tflite"]
    for model, evaluated, content in zip(found["models"], expected.models, classifier[2:], strict=True):
        assert model["sha256"] == hashlib.sha256(content).hexdigest()
        assert model["file_bytes"] == len(content)
        assert [d["exact"] for d in model["against_host"]] == [True]
        assert not model["outputs_differ"]
        for key in ("score", "difference", "agreement", "sqnr"):
            own, other = model[key], getattr(evaluated, key)
            assert (own is None) == (other is None)
            if own:
                assert own["n"] == 120
                assert own["value"] == pytest.approx(other.value, rel=1e-5)
                assert own["low"] == pytest.approx(other.low, rel=1e-5)
        assert [t["threads"] for t in model["timings"]] == [1, 2]
        for timing in model["timings"]:
            latency = timing["latency"]
            assert timing["same_outputs"] is True
            assert [len(values) for values in latency["rounds_us"]] == [30, 30]
            assert latency["runs"] == 60
            assert latency["p50_us"]["low"] <= latency["p50_us"]["value"] <= latency["p50_us"]["high"]
            assert latency["memory"]["after"]["peak_kb"] >= latency["memory"]["before"]["peak_kb"]
            assert (latency["ratio_p50"] is None) == (model["name"] == "float.tflite")
        (profile,) = model["profiles"]
        assert profile["plain_ops"] + profile["delegated_ops"] == profile["model_ops"]
    assert found["machine"]["runner_sha256"] == hashlib.sha256(runner.read_bytes()).hexdigest()
    assert found["machine"]["library_sha256"] == hashlib.sha256(wheel_library().read_bytes()).hexdigest()
    assert found["device"]["emulated"] == ""
    base = found["models"][0]["timings"][1]["latency"]["rounds_us"]
    own = found["models"][1]["timings"][1]["latency"]
    ratios = [sorted(a)[14] / sorted(b)[14] for a, b in zip(own["rounds_us"], base, strict=True)]
    assert own["ratio_p50"]["value"] == pytest.approx(np.mean(ratios))
    assert (own["ratio_p50"]["low"], own["ratio_p50"]["high"]) == pytest.approx((min(ratios), max(ratios)))
    rows = [line for line in done.stdout.splitlines() if line.startswith(("float.tflite ", "int8.tflite "))]
    assert [row.split()[:2] for row in rows] == [[m, t] for m in ("float.tflite", "int8.tflite") for t in "12"]
    assert f"{own['p50_us']['value'] / 1e3:.3f}" in rows[3]
    assert (files / "out/bench/summary.txt").read_text().strip() in done.stdout
    assert sorted(path.name for path in (files / "out/bench").iterdir()) == ["host.json", "summary.txt"]

    again = bench(files, runner, models, "--evaluation_data=test.npz", *QUICK)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_without_data_the_inputs_are_random_and_nothing_is_said_of_accuracy(
    files: pathlib.Path, runner: pathlib.Path
) -> None:
    done = bench(files, runner, "--models=float.tflite,int8.tflite", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    found = report(files)
    assert "random" in found["omitted"]
    assert found["omitted"] in done.stdout
    assert found["metric"] == ""
    for model in found["models"]:
        assert model["samples"] == 8
        assert model["timings"][0]["latency"]["runs"] == 60
        assert [d["exact"] for d in model["against_host"]] == [True]  # a speed is still that of the right computation
        assert model["against_baseline"] == []
        assert all(model[key] is None for key in ("score", "difference", "agreement", "sqnr"))
    assert "agreement" not in done.stdout
    assert "bootstrap" not in done.stdout


def test_broken_models_are_rows_and_the_exit_code_says_so(
    files: pathlib.Path, runner: pathlib.Path, needs_tensorflow: bytes
) -> None:
    content = (files / "int8.tflite").read_bytes()
    (files / "cut.tflite").write_bytes(content[: len(content) // 2])
    (files / "flex.tflite").write_bytes(needs_tensorflow)
    models = "--models=float.tflite,cut.tflite,int8.tflite,flex.tflite,missing.tflite"
    done = bench(files, runner, models, "--evaluation_data=test.npz", "--rounds=1", *QUICK[1:])
    assert done.returncode == 3, done.stderr
    found = report(files)
    assert [model["name"] for model in found["models"]] == ["float.tflite", "int8.tflite"]
    failures = {failure["model"]: failure for failure in found["failures"]}
    assert set(failures) == {"cut.tflite", "flex.tflite", "missing.tflite"}
    assert {failure["stage"] for failure in failures.values()} == {"host"}
    assert "truncated" in failures["cut.tflite"]["error"]
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if ".tflite " in line}
    for name in failures:
        assert "failed" in rows[name]
        assert failures[name]["error"] in done.stdout


def test_a_runtime_that_refuses_a_model_is_a_failure_with_its_words(
    tmp_path: pathlib.Path, runner: pathlib.Path, lstm: Any
) -> None:
    """LiteRT takes no variable tensors; the Python interpreter does."""
    (tmp_path / "lstm.tflite").write_bytes(lstm[1])
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 5, 3), np.float32))
    done = bench(tmp_path, runner, "--models=lstm.tflite", "--evaluation_data=t.npz", "--rounds=1", *QUICK[1:])
    assert done.returncode == 3, done.stderr
    failures = report(tmp_path)["failures"]
    assert {f["task"] for f in failures} == {"m000/outputs", "m000/latency/t1/r0"}
    assert {(f["status"], f["stage"]) for f in failures} == {("error", "load")}
    assert "Variable tensors not yet supported" in done.stdout


def test_deadlines_masks_and_profiles(files: pathlib.Path, runner: pathlib.Path) -> None:
    processor = max(os.sched_getaffinity(0))
    arguments = ["--models=int8.tflite", "--evaluation_data=test.npz", "--rounds=1", "--profile_ops"]
    done = bench(files, runner, *arguments, *QUICK[1:], f"--cpu_mask={1 << processor:x}", "--kernels=builtin")
    assert done.returncode == 0, done.stderr
    (model,) = report(files)["models"]
    assert model["against_host"][0]["exact"]
    assert report(files)["reference"].endswith("builtin kernels")
    assert model["timings"][0]["cpu_mask"] == f"{1 << processor:x}"
    assert model["profiles"][0]["ops"][0]["type"] == "CONV_2D"
    assert "CONV_2D" in done.stdout
    done = bench(files, runner, *arguments, "--overwrite", "--seconds=60", "--max_runs=1000000", "--deadline=1.5")
    assert done.returncode == 3, done.stderr
    found = report(files)
    assert {(f["status"], f["stage"]) for f in found["failures"]} == {("timeout", "timed"), ("timeout", "profile")}
    assert found["models"][0]["score"] is not None
    assert "failed: timeout" in done.stdout


def test_a_device_that_computes_something_else_is_told(
    files: pathlib.Path, runner: pathlib.Path, classifier: Any
) -> None:
    """A runner that swaps the model for another one behind the report's back."""
    other = bytearray(classifier[3])
    place = max(range(0, len(other) - 64), key=lambda i: len(set(other[i : i + 54])))  # the convolution's weights
    other[place : place + 54] = bytes([127]) * 54
    (files / "other.tflite").write_bytes(other)
    fake = files / "runner.sh"
    fake.write_text(
        f'#!/bin/sh\nrm models/m001.tflite; cp {files}/other.tflite models/m001.tflite\nexec {runner} "$@"\n'
    )
    fake.chmod(0o755)
    samples = Samples({"image": classifier[1]}, np.arange(120), np.arange(120) % 4)
    settings = Settings(rounds=1, seconds=0, warmup_seconds=0, min_runs=5)
    paths = {name: files / name for name in ("float.tflite", "int8.tflite")}
    made = prepare(paths, samples, files / "work/job", settings=settings)
    device = (describe_host(), lambda job, folder: run_on_host(job, fake, wheel_library(), folder))
    (found,) = run_bench(made, {"host": device}, files / "work")
    assert [model.outputs_differ for model in found.models] == [False, True]
    text = device_summary(found, made)
    assert "DIFFERS" in text
    assert "its speed may be that of something else" in text
    row = next(line for line in text.splitlines() if line.startswith("int8.tflite"))
    assert " ?" in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluation_data=test.npz"], "missing --models"),
        (["--models=float.tflite", "--metric=top1"], "--metric"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--threads=two"], "expected numbers such as 1,4"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--cpu_mask=xyz"], "hexadecimal"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--library=test.npz"], "no ELF program or library"),
        (["--models=none.tflite", "--evaluation_data=test.npz"], "none.tflite"),
        (["--models=float.tflite", "--evaluation_data=none.npz"], "none.npz"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--delegate=none.so"], "--delegate=none.so"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--metric=best"], "--metric is 'best'"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    files: pathlib.Path, runner: pathlib.Path, arguments: list[str], message: str
) -> None:
    done = bench(files, runner, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (files / "out").exists()


def test_a_killed_command_ends_its_runner(files: pathlib.Path, runner: pathlib.Path) -> None:
    command = [sys.executable, "-m", "tfq_tools.bench", f"--runner={runner}", "--models=float.tflite"]
    command += ["--evaluation_data=test.npz", "--seconds=600"]
    process = subprocess.Popen(command, cwd=files, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def runners() -> list[int]:
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                ours = str(files) in os.readlink(path / "cwd")
                if ours and (path / "cmdline").read_bytes().startswith(str(runner).encode()):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def until(condition: Any) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.1)

    until(runners)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not runners())


def test_latency_table_of_a_keras_model(tmp_path: pathlib.Path, runner: pathlib.Path, classifier: Any) -> None:
    classifier[0].save(tmp_path / "model.h5")
    quick = ("--rounds=1", *QUICK[1:3], "--min_runs=5", "--max_runs=5")
    done = bench(tmp_path, runner, "--model=model.h5", "--latency_table=table.json", *quick)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "table.json")
    assert {"Conv2D", "Dense", "Quantize", "Dequantize"} <= {entry.operation.kind for entry in table.entries}
    for check in table.checks:
        assert f"{check.measured_ms:.3f} ms" in done.stdout
    assert not (tmp_path / "out").exists()
    done = bench(tmp_path, runner, "--latency_table=table.json", *quick)
    assert done.returncode == 2
    assert "--latency_table and --model go together" in done.stderr
