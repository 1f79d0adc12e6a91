"""The benchmarks measure what they say: on the demo model end to end, and bar by bar on made-up figures."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import cases, common, int8, latency, scale
from benchmarks.common import Bar, TfqRun
from tfq.execution.progress import Silent


def run_of(**changes):
    run = TfqRun(100.0, 2000.0, 10, 1, dict.fromkeys(common.REPEATABLE, "00"), {"stages": []})
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def demo():
    return int8.run_case(cases.DEMO, num_samples=64, seed=0, progress=Silent())


@pytest.mark.slow
def test_demo_case_measures_the_three_files_on_the_same_samples(demo):
    assert [model.name for model in demo.against_float.models] == ["float", "TFLite int8", "tfq int8"]
    assert demo.calibration_samples == 64
    assert demo.against_float.samples == demo.against_tflite.samples == 797
    scores = [model.score.value for model in demo.against_float.models]
    assert scores[0] == pytest.approx(100 * 758 / 797)  # what demo/README.md says of the Keras model
    paired = demo.against_tflite["tfq int8"].difference
    assert paired.value == pytest.approx(scores[2] - scores[1])
    assert paired.low <= paired.value <= paired.high
    sizes = {model.name: model.size.file_bytes for model in demo.against_float.models}
    assert sizes["float"] > 2 * sizes["TFLite int8"]
    assert demo.bytes_ratio("file_bytes") == sizes["tfq int8"] / sizes["TFLite int8"]
    assert demo.tfq.report["calibration_samples"] == 64
    assert demo.tfq.seconds > sum(demo.tfq.stages.values())


@pytest.mark.slow
def test_page_and_figures_hold_every_case_and_bar(demo, tmp_path, capsys):
    where = common.environment("benchmarks.int8")
    demands = int8.bars(demo)
    assert len(demands) == 5
    page = int8.page([demo], ["another was skipped: a reason"], demands, where)
    for line in (*map(str, demands), "- another was skipped: a reason"):
        assert line in page.splitlines()
    figures = {**where, "cases": [demo.figures()]}
    common.finish(tmp_path / "int8.md", page, figures, [bar for bar in demands if bar.passed])
    assert (tmp_path / "int8.md").read_text() == page
    written = json.loads((tmp_path / "int8.json").read_text())
    assert written["cases"][0]["tfq"]["max_steps"] == demo.tfq.max_steps
    assert "pass" in capsys.readouterr().out


def test_calibration_data_are_the_first_samples_without_labels(tmp_path):
    files = cases.write_case(cases.DEMO, tmp_path, 5)
    with np.load(common.ROOT / "demo/calibration.npz") as source, np.load(files.calibration) as written:
        assert written.files == ["x"]
        np.testing.assert_array_equal(written["x"], source["x"][:5])


@pytest.mark.parametrize(
    ("measured", "limit", "at_most", "at_least"),
    [(1.0, 1.0, True, True), (1.01, 1.0, False, True), (0.9, 1, True, False)],
)
def test_bars_hold_at_their_limit_and_fail_beyond_it(measured, limit, at_most, at_least):
    assert Bar.at_most("x", measured, limit, "{:.2f}").passed == at_most
    assert Bar.at_least("x", measured, limit, "{:.2f}").passed == at_least
    assert str(Bar.at_most("x", measured, limit, "{:.2f}")).startswith("pass" if at_most else "FAIL")


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, ""),
        ({"seconds": 241.0}, "whole run"),
        ({"peak_memory_mb": 4001.0}, "peak memory"),
        ({"digests": {**dict.fromkeys(common.REPEATABLE, "00"), "spec.json": "01"}}, "differ: spec.json"),
    ],
)
def test_scale_judges_the_worse_of_two_runs(changes, failed):
    for runs in ((run_of(), run_of(**changes)), (run_of(**changes), run_of())):
        missed = [bar.text for bar in scale.bars(scale.ModelResult("a/b", runs, 1.5)) if not bar.passed]
        assert len(missed) == bool(failed)
        assert not failed or failed in missed[0]


def test_scale_judges_what_calibration_costs():
    for ratio, failed in ((2.0, []), (2.01, ["a/b: calibration of the forward pass: 2.01 x, bar at most 2.00 x"])):
        found = scale.bars(scale.ModelResult("a/b", (run_of(), run_of()), ratio))
        assert [bar.text for bar in found if not bar.passed] == failed


def test_latencies_are_compared_process_by_process_and_kept_for_the_next_page(tmp_path):
    def file(partitions, *milliseconds):
        return latency.FileResult(milliseconds, partitions, 9, {"SOFTMAX": 1} if partitions > 1 else {}, 31.04)

    files = {"float": file(1, 4.0, 8.0, 5.0), "TFLite int8": file(6, 5.0, 9.0, 7.0), "tfq int8": file(2, 2.0, 4.8, 4.9)}
    found = latency.ModelResult(files, common.Origin("run it", "2026-01-02", "abc"), 0.5)
    assert found.ratio("tfq int8", "float") == pytest.approx(0.6)
    assert all(bar.passed for bar in latency.bars("ResNet50", found))
    slow = dataclasses.replace(found, files={**files, "tfq int8": file(4, 4.0, 8.0, 5.0)})
    assert [bar.passed for bar in latency.bars("ResNet50", slow)] == [False, True, False]
    assert [bar.passed for bar in latency.bars("kws_dscnn", slow)] == [True, True, False]
    assert [bar.passed for bar in latency.bars("MobileNetV3Small", found)] == [True, False, True]
    for times, passed in (((5.1, 8.9, 7.1), True), ((5.1, 9.1, 7.1), False)):  # one process, none says as fast
        beside = dataclasses.replace(found, files={**files, "tfq int8": file(2, *times)})
        assert beside.ratio("tfq int8", "TFLite int8") > 1
        assert latency.bars("DenseNet121", beside)[1].passed == passed
    (tmp_path / "latency.json").write_text(json.dumps({"models": {"ResNet50": dataclasses.asdict(found)}}))
    kept = latency._kept(tmp_path / "latency.json")
    assert kept == {"ResNet50": found}
    page = latency.page(kept, [], common.environment("benchmarks.latency"), ["another was skipped: a reason"])
    assert "- another was skipped: a reason" in page.splitlines()
    assert (
        "| ResNet50 | 5.00 | 1.25 x [1.12, 1.40] | 0.60 x [0.50, 0.98] | 0.53 x [0.40, 0.70] | 1 | 6 | 2 | 1 SOFTMAX"
        " | 1 SOFTMAX | 31.0 dB | 31.0 dB | 0.5 |" in page
    )


def test_a_missed_bar_gives_exit_code_1_and_still_writes(tmp_path, capsys):
    assert common.finish(tmp_path / "x.md", "page", {}, [Bar("slow", False)]) == 1
    assert (tmp_path / "x.md").read_text() == "page"
    assert json.loads((tmp_path / "x.json").read_text())["bars"] == [{"text": "slow", "passed": False}]
    assert "FAIL  slow" in capsys.readouterr().out


def test_images_are_repeatable_and_have_the_spectrum_of_natural_images():
    made = scale.images(6, 64, seed=3)
    assert made.dtype == np.uint8
    assert made.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(made, scale.images(6, 64, seed=3))
    assert (made != scale.images(6, 64, seed=4)).any()
    power = np.square(np.abs(np.fft.rfft2(made.mean(-1).astype(float)))).mean(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :])
    used = (frequency > 2 / 64) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[used]), np.log(power[used]), 1)[0]
    assert -2.3 < slope < -1.5


@pytest.mark.parametrize(
    ("module", "flag", "message"),
    [
        ("int8", "--cases=digits,lenet", "--cases names 'lenet'; choose among digits,"),
        ("scale", "--models=lenet", "--models names 'lenet'; choose among MobileNetV2/tf_keras,"),
        ("latency", "--models=lenet", "--models names 'lenet'; choose among MobileNetV2,"),
        ("int8", "--num_samples=0", "--num_samples is 0; it must be at least 1"),
        ("scale", "--output=setup.py", "cannot make the directory --output=setup.py"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(module, flag, message):
    command = [sys.executable, "-m", f"benchmarks.{module}", flag]
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_case_that_is_absent_says_where_it_was_looked_for(monkeypatch):
    monkeypatch.setattr(cases, "_SHARED_FOLDER", common.ROOT.parent / "no such folder")
    assert cases.absence(cases.DEMO) == ""
    assert cases.absence("kws_dscnn").startswith("../no such folder/cases.py is not there")


def test_every_measurement_is_listed_with_its_command_day_and_code_and_that_of_other_code_is_marked():
    mine, old = common.Origin("run a|b", "2026-01-02", "abc"), common.Origin("run it", "2026-01-01", "")
    heading, text, table = common.origins_section({"a": mine, "b": old, "c": mine}, "abc")
    assert heading == "## Origins"
    assert text.endswith("1 of 3 were.")
    rows = [[part.strip() for part in re.split(r"(?<!\\)\|", line.strip("|"))] for line in table.splitlines()[2:]]
    assert rows == [
        ["`run it`", "2026-01-01", "not kept *", "1", "b"],
        ["`run a\\|b`", "2026-01-02", "abc", "2", "a; c"],
    ]
    assert common.origins_section({"a": mine}, "abc, changed")[1].endswith("1 of 1 were.")


def test_the_command_is_told_without_where_the_page_went(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["coverage.py", "--output=/home/me/out", "--only=basics", "-output=here"])
    assert common.environment("benchmarks.coverage")["command"] == "python -m benchmarks.coverage --only=basics"


def test_the_environment_names_the_commit(monkeypatch, tmp_path):
    assert common.environment("benchmarks.int8")["commit"]
    monkeypatch.setattr(common, "ROOT", tmp_path)
    assert common.commit() == "unknown"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "tfq").mkdir()
    (tmp_path / "tfq/file.py").write_text("1")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "x")):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    assert re.fullmatch("[0-9a-f]{10}", common.commit())
    (tmp_path / "tfq/file.py").write_text("2")
    assert common.commit().endswith(", changed")
