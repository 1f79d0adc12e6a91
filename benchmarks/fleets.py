"""Engines and shards: the same bytes, nothing lost where a node dies, and how fast: `python -m benchmarks.fleets`.

Three parts. `engines`: one run of the advanced pipeline at 4 bits by one process, by two, by a Ray cluster of three
node processes on 127.0.0.1, by the same while a node is killed with SIGKILL, and by two workers of Dask. `batch`: six
runs of tfq-batch here, and on a Ray cluster one of whose nodes is killed. `shards`: a thousand jobs of some hundredths
of a second over four shards, each killed twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command
from tfq_tools.shards import DONE, Shard, worked_off

from benchmarks import cases, common
from benchmarks.common import Bar
from benchmarks.ray_nodes import ray_cluster
from tfq.execution.files import write_atomic
from tfq.execution.resources import Resources

PARTS = ("engines", "batch", "shards")
ONE, TWO, RAY, RAY_KILLED, DASK = (
    "1 process",
    "2 processes",
    "Ray, 3 nodes",
    "Ray, 3 nodes, 1 killed",
    "Dask, 2 workers",
)
LEAST_SPEEDUP = 1.6
JOBS, SHARDS, KILLS = 1000, 4, 2
_JOB_SECONDS = 0.02
_STAGE = "reconstruct"
_NONE: Mapping[str, str] = {}
FLAGS = new_flags()
flags.DEFINE_list("parts", list(PARTS), "What to measure; the page keeps the other parts.", flag_values=FLAGS)
flags.DEFINE_string("case", "resnet20_cifar10", "The network of `engines`.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples of `engines`.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of fleets.md and fleets.json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
      seconds, stage: of the whole, and of the layers' reconstruction; 0 where there is none.
      load: average of the machine over the minute at the end, this run included.
      digest: of the model, or of those of all runs of a batch.
    """

    name: str
    seconds: float
    stage: float
    load: float
    digest: str


def called(
    name: str,
    command: str,
    arguments: Sequence[str],
    output: Path,
    *,
    environment: Mapping[str, str] = _NONE,
    once: tuple[str, Callable[[], None]] | None = None,
) -> Run:
    """Run a command of tfq.

    Args:
      environment: beside this process's.
      once: what is done the first time that its log holds a text.
    """
    start, log = time.monotonic(), output.with_suffix(".log")
    line = [sys.executable, "-m", f"tfq_tools.{command}", *arguments, f"--output_dir={output}"]
    options: dict[str, Any] = {"stderr": subprocess.STDOUT, "env": {**os.environ, **environment}}
    with log.open("w") as stream, subprocess.Popen(line, stdout=stream, **options) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if once is not None and once[0] in log.read_text():
                once[1]()
                once = None
    seconds = time.monotonic() - start
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with {process.returncode}: {log.read_text()[-2000:]}")
    if once is not None:
        raise RuntimeError(f"{name} never said {once[0]!r}: {log.read_text()[-2000:]}")
    models = sorted(output.rglob("model.tflite"))
    found = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in models)).hexdigest()
    stages = [json.loads(path.read_text())["stages"] for path in output.glob("report.json")]
    stage = sum(found["seconds"] for report in stages for found in report if _STAGE in found["name"])
    return Run(name, seconds, stage, os.getloadavg()[0], found)


def engines(case: str, num_samples: int, folder: Path) -> list[Run]:
    files = common.in_fresh_process(cases.write_case, case, folder, num_samples)
    shared = [
        f"--model={files.model}",
        f"--calibration_data={files.calibration}",
        f"--num_calibration_samples={num_samples}",
        "--pipeline=advanced",
        "--weight_bits=4",
        "--mode=parallel",
    ]

    def run(name: str, *more: str, **options: Any) -> Run:
        return called(name, "quantize", [*shared, *more], folder / name.replace(" ", "_").replace(",", ""), **options)

    runs = [run(ONE), run(TWO, "--workers=2")]
    with ray_cluster(3) as cluster:
        there = {"environment": cluster.environment}
        runs.append(run(RAY, f"--engine={cluster.engine}", **there))
        kill = ("reconstruct the layers", cluster.nodes[-1].kill)
        runs.append(run(RAY_KILLED, f"--engine={cluster.engine}", once=kill, **there))
    return [*runs, run(DASK, "--engine=dask", "--workers=2")]


def batch(folder: Path) -> list[Run]:
    demo = common.ROOT / "demo"
    for seed in range(6):
        lines = [f"--model={demo / 'digits.keras'}", f"--calibration_data={demo / 'calibration.npz'}"]
        lines += ["--preprocess=raw", "--num_calibration_samples=64", f"--seed={seed}"]
        (folder / f"run{seed}.flags").write_text("\n".join(lines) + "\n")
    jobs = [f"--jobs={folder / '*.flags'}"]
    runs = [called(ONE, "batch", jobs, folder / "here")]
    with ray_cluster(3) as cluster:
        there: dict[str, Any] = {"environment": cluster.environment, "once": ("calibrate", cluster.nodes[-1].kill)}
        runs.append(called(RAY_KILLED, "batch", [*jobs, f"--engine={cluster.engine}"], folder / "ray", **there))
    return runs


def work(folder: str, name: str) -> str:
    """A job of `shards`: what it gives appears at its end."""
    with (Path(folder) / "begun").open("a") as file:
        print(name, file=file)
    time.sleep(_JOB_SECONDS)
    write_atomic(Path(folder) / f"{name}.out", name.encode())
    return DONE


def run_shard(folder: str, text: str) -> None:
    shard = Shard.read(text)
    done = {path.stem for path in Path(folder).glob("*.out")}
    calls = {name: (folder, name) for name in shard.part({f"job{number:04}": None for number in range(JOBS)})}
    journal = Path(folder) / f"{shard.named('batch')}.jsonl"
    list(worked_off(calls, work, is_done=done.__contains__, journal=journal, resources=Resources()))


def shards(folder: Path, seed: int = 0) -> dict[str, int]:
    """Jobs done, noted and begun, after each shard was killed at moments left to chance and started again."""
    chance, code = random.Random(seed), "import sys; from benchmarks.fleets import run_shard; run_shard(*sys.argv[1:])"

    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(folder), f"{number}/{SHARDS}"], cwd=common.ROOT)

    def progressed(number: int) -> int:
        return len((folder / f"batch-{number}-of-{SHARDS}.jsonl").read_bytes().splitlines())

    running = {number: start(number) for number in range(1, SHARDS + 1)}
    kills = [(number, jobs) for jobs in (60, 150) for number in running]
    for number, jobs in kills:
        at = jobs + chance.randrange(40)
        while not (folder / f"batch-{number}-of-{SHARDS}.jsonl").exists() or progressed(number) < at:
            time.sleep(0.005)
        running[number].kill()
        running[number].wait()
        running[number] = start(number)
    if any(process.wait() for process in running.values()):
        raise RuntimeError("a shard failed")
    noted = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines() if '"key"' in line]
    begun = Counter((folder / "begun").read_text().split())
    return {
        "kills": len(kills),
        "done": len(list(folder.glob("*.out"))),
        "noted": len({json.loads(line)["key"][0] for line in noted}),
        "noted twice": len(noted) - len({json.loads(line)["key"][0] for line in noted}),
        "begun again": sum(begun.values()) - len(begun),
    }


def bars(part: str, found: Any) -> list[Bar]:
    if part == "shards":
        done = f"{found['done']} of {JOBS} jobs done, {found['noted twice']} twice, after {found['kills']} kills"
        once = found["done"] == found["noted"] == JOBS and found["noted twice"] == 0
        again = Bar.at_most("jobs begun again, each by a kill", found["begun again"], found["kills"], "{:.0f}")
        return [Bar(done, once), again]
    same = Bar(f"{part}: the same bytes by {', '.join(run.name for run in found)}", len({r.digest for r in found}) == 1)
    if part == "batch":
        return [same]
    stage = {run.name: run.stage for run in found}
    speedup = Bar.at_least("reconstruction, 2 processes over 1", stage[ONE] / stage[TWO], LEAST_SPEEDUP, "{:.2f} x")
    return [same, speedup]


def page(measured: Mapping[str, Mapping[str, Any]], demands: Sequence[Bar], where: Mapping[str, Any]) -> str:
    """What was measured of each part, with what measured it."""
    parts, origins = [], {}
    for part, entry in measured.items():
        found, origins[part] = entry["found"], common.Origin.of(entry["where"])
        if part == "shards":
            rows = [[name, f"{value}"] for name, value in found.items()]
            text = f"{JOBS} jobs of {_JOB_SECONDS} s, {SHARDS} shards, each killed {KILLS} times and started again."
            parts += ["## Shards", text, common.markdown_table(["jobs", "number"], rows)]
            continue
        title = {
            "engines": f"One run: {entry['case']}, advanced pipeline, W4, parallel mode",
            "batch": "Six runs (demo)",
        }
        header = ["who", "seconds", "of these, reconstruction", "load average at the end"]
        rows = [[r.name, f"{r.seconds:.0f}", f"{r.stage:.1f}" if r.stage else "", f"{r.load:.1f}"] for r in found]
        parts += [f"## {title[part]}", common.markdown_table(header, rows)]
    parts.append("A load above the number of cores means that other programs took part of the machine.")
    return common.page_text("Fleets", where, parts, demands, origins=origins)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The parts that were measured before."""
    if not path.exists():
        return {}
    parts: dict[str, dict[str, Any]] = json.loads(path.read_text())["parts"]
    for entry in parts.values():
        if isinstance(entry["found"], list):
            entry["found"] = [Run(**run) for run in entry["found"]]
    return parts


def main(values: flags.FlagValues) -> int:
    common.check_choices("parts", values.parts, PARTS)
    output, where = common.output_directory(values.output), common.environment("benchmarks.fleets")
    work: dict[str, Callable[[Path], Any]] = {
        "engines": lambda folder: engines(values.case, values.num_samples, folder),
        "batch": batch,
        "shards": shards,
    }
    measured = read(output / "fleets.json")
    for part in values.parts:
        with tempfile.TemporaryDirectory() as folder:
            measured[part] = {"where": where, "case": values.case, "found": work[part](Path(folder))}
    demands = [bar for part, entry in measured.items() for bar in bars(part, entry["found"])]
    kept = {
        part: {**entry, "found": [dataclasses.asdict(run) for run in entry["found"]]} if part != "shards" else entry
        for part, entry in measured.items()
    }
    return common.finish(output / "fleets.md", page(measured, demands, where), {**where, "parts": kept}, demands)


def run() -> None:
    run_command(
        "benchmarks.fleets",
        main,
        FLAGS,
        summary="Measure engines and shards; the exit code is 1 where a bar is missed.",
        groups={"Benchmark": ("parts", "case", "num_samples", "output")},
    )


if __name__ == "__main__":
    run()
