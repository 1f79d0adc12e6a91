"""tfq-report: what it refuses, and the page and table it makes."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

import tfq
from tfq.report.comparison import compare, comparison_table


def report(folder, *arguments):
    command = [sys.executable, "-m", "tfq_tools.report", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(classifier, tmp_path_factory):
    """A folder with two runs of the same classifier, "few/a", and "a" as with 8 bits."""
    model, images, *_ = classifier
    folder = tmp_path_factory.mktemp("runs")
    labelled = (images[64:], np.arange(56) % 4)
    tfq.quantize(model, images[:64], evaluation=labelled, precision="int8", weight_bits=4).save(folder / "few/a")
    report = json.loads((folder / "few/a/report.json").read_text())
    report["evaluation"]["models"][-1]["name"], report["recipe"]["weight_bits"] = "int8", 8
    (folder / "a").mkdir()
    (folder / "a/report.json").write_text(json.dumps(report))
    return folder


def test_a_page_and_a_table(runs):
    done = report(runs, "a", "few/a/report.json", "--output=page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0].split() == ["a", "few/a"]
    assert done.stdout.split("\n")[2].split() == ["model", "int8", "W4A8"]
    page = (runs / "page.html").read_text()
    assert "2 runs side by side" in page
    assert "--weight_bits" in page


def test_another_metric_and_another_model_stand_apart(runs):
    found = json.loads((runs / "a/report.json").read_text())
    other = copy.deepcopy(found)
    other["evaluation"] |= {"metric": "f1", "samples": 7}
    other["model"]["name"] = "other"
    rows = dict(compare({"a": found, "b": other}).figures)
    assert [card.value == "not measured" for card in rows["Accuracy, top1"]] == [False, True]
    assert [card.value == "not measured" for card in rows["Accuracy, f1"]] == [True, False]
    assert compare({"a": found, "b": found}).notes == ()
    models, samples = compare({"a": found, "b": other}).notes
    assert models.startswith("The runs are of different models")
    assert "b: other with" in models
    assert samples.endswith("a: 56 samples; b: 7 samples.")
    assert samples in comparison_table(compare({"a": found, "b": other}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing --runs"),
        (["a"], "a alone is nothing to compare"),
        (["a", "--runs=a/"], "a alone is nothing to compare"),
        (["a", "nowhere"], "nowhere/report.json cannot be read"),
        (["a", "old"], "old/report.json does not hold what a page shows (KeyError: 'machine'); run tfq-quantize anew"),
    ],
)
def test_one_line_says_what_is_wrong(arguments, message, runs):
    found = json.loads((runs / "a/report.json").read_text())
    del found["machine"]
    (runs / "old").mkdir(exist_ok=True)
    (runs / "old/report.json").write_text(json.dumps(found))
    done = report(runs, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (runs / "comparison.html").exists()
