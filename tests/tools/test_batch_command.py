"""tfq-batch on the demo model: what runs, what does not run again, what fails."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
from tfq_tools.batch import stage_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMON = [
    f"--model={ROOT / 'demo/digits.keras'}",
    f"--calibration_data={ROOT / 'demo/calibration.npz'}",
    f"--evaluation_data={ROOT / 'demo/test.npz'}",
    "--preprocess=raw",
    "--num_calibration_samples=16",
]


def batch(*jobs, output, arguments=()):
    line = [sys.executable, "-m", "tfq_tools.batch", f"--jobs={','.join(map(str, jobs))}", f"--output_dir={output}"]
    return subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)


def write_flags(path, *more):
    """The common flags, but those that are given in another way."""
    path.parent.mkdir(exist_ok=True)
    given = {flag.partition("=")[0] for flag in more}
    common = [flag for flag in COMMON if flag.partition("=")[0] not in given]
    path.write_text("\n".join([*common, *more]) + "\n")
    return path


def rows_of(output):
    with (output / "batch.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run that works and one without a model."""
    folder = tmp_path_factory.mktemp("batch")
    write_flags(folder / "jobs/a.flags")
    write_flags(folder / "jobs/gone.flags", f"--model={folder / 'gone.keras'}")
    return folder, batch(folder / "jobs/*.flags", output=folder / "out")


def test_what_works_is_done_and_what_fails_is_told(first):
    folder, found = first
    assert found.returncode == 2
    assert "gone failed: " in found.stderr
    assert "gone.keras: no such file" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("tfq-batch: error: 1 of 2 runs failed: gone")
    rows = rows_of(folder / "out")
    assert list(rows) == ["a", "gone"]
    assert "no such file" in rows["gone"]["outcome"]
    report = json.loads((folder / "out/a/report.json").read_text())
    baseline, model = report["evaluation"]["models"]
    assert rows["a"]["outcome"] == "done"
    assert int(rows["a"]["download bytes"]) == model["size"]["download_bytes"]
    ratio = model["size"]["download_bytes"] / baseline["size"]["download_bytes"]
    assert float(rows["a"]["download bytes / float"]) == pytest.approx(ratio, abs=1e-3)
    assert float(rows["a"]["score"]) == pytest.approx(model["score"]["value"], abs=1e-3)
    assert str(model["size"]["file_bytes"]) in found.stdout
    assert "reconstruct" not in (folder / "out/a.log").read_text()
    assert "report.html" in (folder / "out/a.log").read_text()
    assert not (folder / "out/gone").exists()


def test_what_is_done_is_not_run_again_and_a_recipe_is_a_job(first):
    folder, _ = first
    recipe = json.loads((folder / "out/a/recipe.json").read_text())
    (folder / "b.json").write_text(json.dumps(recipe | {"weight_bits": 6}))
    written = (folder / "out/a/report.json").stat().st_mtime_ns
    found = batch(folder / "jobs/a.flags", folder / "b.json", output=folder / "out")
    assert found.returncode == 0, found.stderr
    assert (folder / "out/a/report.json").stat().st_mtime_ns == written
    assert "1 of 2, a" not in found.stderr
    rows = rows_of(folder / "out")
    assert {row["outcome"] for row in rows.values()} == {"done"}
    assert int(rows["b"]["download bytes"]) < int(rows["a"]["download bytes"])
    assert json.loads((folder / "out/b/recipe.json").read_text())["weight_bits"] == 6


def test_other_settings_under_the_same_name_are_refused(first, tmp_path):
    folder, _ = first
    other = write_flags(tmp_path / "a.flags", "--seed=1")
    found = batch(other, output=folder / "out")
    assert found.returncode == 2
    assert "holds a run with other settings" in found.stderr


def test_bad_jobs_are_told_before_anything_runs(tmp_path):
    good, bad = write_flags(tmp_path / "good.flags"), write_flags(tmp_path / "bad.flags", "--wieght_bits=4")
    (tmp_path / "no.json").write_text("{")
    write_flags(tmp_path / "sub/good.flags")
    for jobs, message in (
        ((good, bad), "bad.flags: there is no flag --wieght_bits; did you mean --weight_bits?"),
        ((good, tmp_path / "no.json"), "no.json cannot be read"),
        ((tmp_path / "*.txt",), "no file matches"),
        ((good, tmp_path / "sub/good.flags"), "would both be the run good"),
    ):
        found = batch(*jobs, output=tmp_path / "out")
        assert found.returncode == 2
        assert message in found.stderr
        assert len(found.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_the_stage_of_a_run_is_that_of_its_log(tmp_path):
    log = tmp_path / "a.log"
    assert stage_of(tmp_path / "a", 0.0) == ""
    log.write_text("")
    assert stage_of(tmp_path / "a", 0.0) == "start"
    log.write_text("calibrate: done in 2.0 s\nreconstruct the layers, best: 3/20, about 9 s left\n")
    assert stage_of(tmp_path / "a", 0.0) == "reconstruct the layers, best"
    assert stage_of(tmp_path / "a", log.stat().st_mtime + 1) == ""


def test_shards_and_workers_share_the_runs(first, tmp_path):
    folder, _ = first
    for name in ("b", "c", "d"):
        write_flags(tmp_path / f"jobs/{name}.flags", f"--model={tmp_path / 'gone.keras'}")
    for shard, names in (("1/2", ["b", "d"]), ("2/2", ["c"])):
        found = batch(tmp_path / "jobs/*.flags", output=tmp_path / "out", arguments=[f"--shard={shard}", "--workers=2"])
        assert f"{len(names)} of {len(names)} runs failed: " in found.stderr
        with (tmp_path / f"out/batch-{shard.replace('/', '-of-')}.csv").open(newline="") as file:
            assert [row["run"] for row in csv.DictReader(file)] == names
    none = batch(folder / "jobs/a.flags", output=folder / "out", arguments=["--shard=2/2"])
    assert (none.returncode, none.stdout) == (0, "shard 2/2 has none of the runs\n")
