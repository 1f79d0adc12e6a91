"""tfq-frontier on the demo model: what it writes, and what it prints."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
from tfq_tools import quantize
from tfq_tools.arguments import parsed
from tfq_tools.frontier import ABSENT, FLAGS

from tfq.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(output, *arguments):
    demo = ROOT / "demo"
    line = [sys.executable, "-m", "tfq_tools.frontier", f"--model={demo / 'digits.keras'}", f"--output_dir={output}"]
    line += [f"--calibration_data={demo / 'calibration.npz'}", "--preprocess=raw", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    data = [f"--evaluation_data={ROOT / 'demo/test.npz'}", "--num_calibration_samples=48"]
    cheap = ["--pipeline=light", "--points=4", "--candidates=w2,w4,w8", f"--journal={folder / 'journal'}"]
    found = command(folder / "out", *data, *cheap)
    assert found.returncode == 0, found.stderr
    return found, folder / "out"


def test_files_hold_the_same_points_and_the_table_shows_them(done):
    found, folder = done
    report = json.loads((folder / "frontier.json").read_text())
    with (folder / "frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [point["name"] for point in report["points"]]
    assert [row["model"] for row in rows] == ["float", "w8", *names]
    assert 2 <= len(names) <= 4
    assert all(name in found.stdout for name in names)
    names = {"frontier.json", "frontier.csv", "frontier.html", "frontier.png", "recipe.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    by_bits = sorted(rows[2:], key=lambda row: float(row["weight_bits"]))
    assert [row["flag"] for row in by_bits] == [point["flag"] for point in report["points"]]
    sizes = [int(row["download_bytes"]) for row in by_bits]
    assert sizes == sorted(sizes)
    for row, point in zip(rows[2:], report["points"], strict=True):
        share = float(row["flag"].removeprefix("--size_budget="))
        assert float(row["weight_bits"]) / 32 <= share * 1.02  # the budget counts kernels, the bits other constants too
        assert float(row["score"]) == pytest.approx(point["evaluation"]["score"]["value"], rel=1e-4)
        assert set(point["candidates"].values()) <= {"w2", "w4", "w8"}
    assert any(point["on_frontier"] for point in report["points"])


@pytest.mark.slow
def test_the_journal_holds_every_loss_and_is_refused_where_the_samples_are_others(done):
    _, folder = done
    journal = folder.parent / "journal"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    (report,) = [json.loads((folder / "frontier.json").read_text())]
    units = report["points"][0]["candidates"]
    # what it is, the base, and those of every unit at three widths that may cost anything
    assert 2 + len(units) < len(lines) <= 2 + 3 * len(units)
    few = ["--pipeline=light", "--num_calibration_samples=16", "--candidates=w4,w8", f"--journal={journal}"]
    found = command(folder.parent / "other", *few)
    assert found.returncode == 2
    assert "was written for another model, other samples or another method" in found.stderr


def test_what_is_not_possible_is_told_in_one_line(tmp_path):
    for arguments, message in (
        (["--points=1"], "--points=1"),
        (["--candidates=w9"], "'w9' is no precision"),
    ):
        found = command(tmp_path / "out", *arguments)
        assert found.returncode == 2
        assert found.stderr.splitlines()[-1].startswith("tfq-frontier: error: ")
        assert message in found.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ABSENT)
def test_a_flag_of_tfq_quantize_alone_is_told_with_the_reason(flag):
    assert flag in quantize.FLAGS
    with pytest.raises(UserError) as told:
        parsed("tfq-frontier", [f"--{flag}=4"], FLAGS)
    assert str(told.value) == f"--{flag} is no flag of tfq-frontier, {ABSENT[flag]}; tfq-quantize has it"
