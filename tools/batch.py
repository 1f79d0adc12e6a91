"""tfq-batch: many runs of tfq-quantize, and a table of what they gave. Files -> commands -> a table."""

from __future__ import annotations

import functools
import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from absl import flags
from tfq_tools.arguments import check_numbers, parsed
from tfq_tools.command import new_flags, run_command
from tfq_tools.recipe_flags import new_recipe_flags, recipe_from_flags
from tfq_tools.shards import DONE, Shard, worked_off
from tfq_tools.supervise import KILLED

from tfq.errors import UserError
from tfq.execution.engines import LOCAL, engine
from tfq.execution.files import check_file
from tfq.execution.parent import die_with_parent
from tfq.execution.resources import Resources
from tfq.recipe import Recipe

GROUPS = {
    "Jobs and output": {
        "jobs": "Files or patterns such as 'jobs/*.flags', separated by commas. Each file is one run: flags of"
        " tfq-quantize, one a line, or the recipe.json of an earlier run. The file's name names the run.",
        "output_dir": "Folder for the results: a folder and a log for every run, and batch.csv, a table of all runs.",
        "overwrite": "Repeat finished runs too, even those made with other settings.",
    },
    "Several at a time": {
        "shard": "3/16: only the third of 16 parts of the runs. The others are for machines that share the folder;"
        " the table is batch-3-of-16.csv (docs/fleets.md).",
        "workers": "How many runs at a time.",
        "engine": "Where the runs go: local, ray, dask, or a cluster whose machines share the folder:"
        " ray://host:port, ray:host:port, dask:tcp://host:port.",
    },
}
_DEFAULTS = {"jobs": [], "output_dir": "", "overwrite": False, "shard": "", "workers": 1, "engine": LOCAL}
FLAGS = new_flags(GROUPS, _DEFAULTS, workers=(1, 256))
SUMMARY = (
    "Run tfq-quantize once for every file of settings, each run in a process of its own. A failed run is reported; the"
    " remaining runs continue. A finished run is not repeated, so a batch that was stopped continues where it was."
)
_KILLED = "killed, as by a system that runs out of memory"


def main(values: flags.FlagValues) -> None:
    from tfq.execution.files import write_atomic
    from tfq.execution.progress import Lines
    from tfq.report.table import csv_table, format_table

    output, shard = Path(values.output_dir).absolute(), Shard.read(values.shard)
    jobs = shard.part(find_jobs(values.jobs))
    recipes = {name: recipe_of(path) for name, path in jobs.items()}  # all are read before the first is run
    finished = set() if values.overwrite else {name for name in jobs if is_done(output / name, recipes[name])}
    output.mkdir(parents=True, exist_ok=True)
    calls = {name: (path.absolute(), output / name, values.overwrite) for name, path in jobs.items()}
    journal, table = (output / f"{shard.named('batch')}{suffix}" for suffix in (".jsonl", ".csv"))
    outcomes: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    begun = time.time()

    def state() -> str:
        at = {name: stage_of(output / name, begun) for name in jobs if name not in outcomes}
        stages = ", ".join(f"{name}: {stage}" for name, stage in at.items() if stage)
        return f"runs ({stages})" if stages else "runs"

    with (
        engine(values.engine, values.workers) as executor,
        Lines(sys.stderr).task(state, len(jobs) - len(finished)) as advance,
    ):
        resources = Resources(workers=values.workers, executor=executor)
        options = {"is_done": finished.__contains__, "journal": journal, "resources": resources}
        for name, outcome in worked_off(calls, run_job, **options):
            if name not in finished:
                advance(1)
            if outcome != DONE:
                print(f"{name} failed: {outcome}", file=sys.stderr)
            outcomes[name] = outcome
            rows = [row_of(name, outcomes[name], output / name) for name in jobs if name in outcomes]
            write_atomic(table, csv_table(rows).encode())
    if not rows:
        print(f"shard {values.shard} has none of the runs")
        return
    shown = [row | {"outcome": DONE if row["outcome"] == DONE else "failed"} for row in rows]
    print(format_table(list(rows[0]), [[str(cell) for cell in row.values()] for row in shown], left=2))
    print(f"\ntable: {table}")
    failed = [name for name, outcome in outcomes.items() if outcome != DONE]
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}; logs: {output}")


def find_jobs(patterns: Sequence[str]) -> dict[str, Path]:
    """Files by the names of their runs, in the order given. Raises UserError for what is not there or has one name."""
    found: dict[str, Path] = {}
    for pattern in patterns:
        paths = sorted(map(Path, glob.glob(pattern, recursive=True)))
        if not paths:
            raise UserError(f"--jobs: no file matches {pattern}; give files of flags, recipes, or a pattern of such")
        for path in paths:
            if path.stem in found:
                raise UserError(f"--jobs: {path} and {found[path.stem]} would both be the run {path.stem}; rename one")
            found[path.stem] = path
    if not found:
        raise UserError("--jobs is empty; give files of flags or recipes, as --jobs='jobs/*.flags'")
    return found


def recipe_of(path: Path) -> Recipe:
    """What a file of flags, or a recipe, asks for. Raises UserError, with its name, for what cannot be."""
    values = new_recipe_flags(output="")
    try:
        rest = parsed("tfq-quantize", [_flag_of(path)], values)
        check_numbers(values)
        if rest:
            raise UserError(f"{rest[0]!r} is no flag; write --name=value, one a line")
        return recipe_from_flags(values)
    except (UserError, flags.Error) as error:
        raise UserError(f"{path}: {error}") from error


def is_done(directory: Path, recipe: Recipe) -> bool:
    """Whether this run is there, whole. Raises UserError where another one is, or one that is damaged."""
    from tfq.report.devices import read_report

    path = directory / "recipe.json"
    if not path.exists():
        return False
    if Recipe.read(path, what=str(path)) != recipe:
        raise UserError(f"{directory} holds a run with other settings; give another --output_dir, or --overwrite")
    read_report(directory)  # what is wrong with it is told before anything is run
    return True


def stage_of(directory: Path, begun: float) -> str:
    """What a run is at by the last line of its log; "" where it has not started since then."""
    log = log_of(directory)
    try:
        if log.stat().st_mtime < begun:
            return ""
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "start").partition(":")[0]


def log_of(directory: Path) -> Path:
    """Of the run whose results go there."""
    return directory.with_name(directory.name + ".log")


def run_job(path: Path, directory: Path, overwrite: bool) -> str:
    """Run tfq-quantize with everything it prints in a log beside `directory`; what became of it, in a line."""
    arguments = [_flag_of(path), f"--output_dir={directory}", f"--overwrite={str(overwrite).lower()}"]
    log = log_of(directory)
    command = [sys.executable, "-m", "tfq_tools.quantize", *arguments]
    with _open_log(log) as stream:
        code = _finished(command, stream)
    if code == 0:
        return DONE
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return _KILLED if code < 0 or code == KILLED or not last else last[0].removeprefix("tfq-quantize: error: ")


def _open_log(path: Path) -> TextIO:
    check_file(path)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the log {path}: {error.strerror}; name another --output_dir") from error


def _finished(command: Sequence[str], log: TextIO) -> int:
    """Exit code of a command; where this process is stopped or ends, the command is stopped and cleans up first."""
    begin = functools.partial(die_with_parent, os.getpid(), signal.SIGTERM)
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=begin) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()  # interrupted by a key, the block's own end does not
            raise


def row_of(name: str, outcome: str, directory: Path) -> dict[str, Any]:
    """What the report of a run says of its model and of float; empty where there is none."""
    from tfq.report.devices import read_report

    row: dict[str, Any] = {"run": name, "outcome": outcome}
    models: list[Mapping[str, Any]] = [{}, {}]
    if outcome == DONE:
        models = read_report(directory)["evaluation"]["models"]
    baseline, model = models[0], models[-1]
    for title, field in (("score", "score"), ("against float", "difference"), ("agreement", "agreement")):
        row[title] = _rounded(_of(model, field, "value"))
    for title, field in (("file bytes", "file_bytes"), ("download bytes", "download_bytes")):
        size, before = (_of(found, "size", field) for found in (model, baseline))
        row[title] = _rounded(size)
        row[f"{title} / float"] = _rounded(size / before if size and before else None)
    row["latency / float"] = _rounded(_of(model, "latency", "ratio", "value"))
    return row


def _of(found: Any, *path: str) -> Any:
    """What is at the end of a path of keys; None where the path breaks off."""
    for key in path:
        found = (found or {}).get(key)
    return found


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 3)


def _flag_of(path: Path) -> str:
    return f"--recipe={path}" if path.suffix == ".json" else f"--flagfile={path}"


def run() -> None:
    required = ("jobs", "output_dir")
    # A run that is stopped has its own time to end in.
    run_command("tfq-batch", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required, grace=30.0)


if __name__ == "__main__":
    run()
