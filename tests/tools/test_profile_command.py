"""tfq-profile on a small model, and tfq-quantize under a latency budget by the table that it wrote."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tfq.allocation.latency_table import FAMILIES, read_table


def command(name, *arguments):
    line = [sys.executable, "-m", f"tfq_tools.{name}", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory, classifier):
    folder = tmp_path_factory.mktemp("profile")
    model, images, *_ = classifier
    model.save(folder / "model.h5")
    np.savez(folder / "images.npz", x=images)
    quick = ["--min_runs=4", "--seconds=0"]
    found = command("profile", f"--model={folder / 'model.h5'}", f"--output={folder / 'table.json'}", *quick)
    assert found.returncode == 0, found.stderr
    return folder, found


def test_the_table_has_every_operation_at_every_precision_and_is_checked_against_whole_models(profiled):
    folder, found = profiled
    table = read_table(folder / "table.json")
    kinds = {entry.operation.kind for entry in table.entries}
    assert {"Conv2D", "Dense", "Softmax", "Quantize", "Dequantize"} <= kinds
    assert {entry.family for entry in table.entries if entry.operation.kind == "Conv2D"} == set(FAMILIES)
    assert table.overhead_ms > 0
    assert {check.model for check in table.checks} == {*FAMILIES, "every_second_float32", "last_float32"}
    assert all(check.measured_ms > 0 for check in table.checks)
    assert all(check.model in found.stdout for check in table.checks)


@pytest.mark.slow
def test_a_latency_budget_by_this_table_is_kept_as_predicted_or_told_to_be_out_of_reach(profiled):
    folder, _ = profiled
    least = sum(c.predicted_ms for c in read_table(folder / "table.json").checks if c.model == "int8")
    data = [f"--model={folder / 'model.h5'}", f"--calibration_data={folder / 'images.npz'}", "--pipeline=light"]
    data += [f"--latency_table={folder / 'table.json'}", "--candidates=w4,w8", "--sensitivity=output_error"]
    kept = command("quantize", *data, f"--latency_budget={1.01 * least}ms", f"--output_dir={folder / 'kept'}")
    assert kept.returncode == 0, kept.stderr
    report = json.loads((folder / "kept/report.json").read_text())
    assert report["allocation"]["allocation"]["costs"]["latency_ms"] <= 1.01 * least
    missed = command("quantize", *data, f"--latency_budget={0.5 * least}ms", f"--output_dir={folder / 'missed'}")
    assert missed.returncode == 2
    assert "the smallest possible is" in missed.stderr
    assert not (folder / "missed").exists()
