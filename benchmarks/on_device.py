"""tfq-bench on real models: `python -m benchmarks.on_device`.

Every case is quantised to int8 by tfq. On this machine the C++ runner then runs float and int8 model on all test
samples: its outputs must be those of the Python interpreter in every bit, its accuracy that of `tfq-evaluate`, and an
invocation must not take longer. With --arm64_library the int8 model runs on a test device under qemu too, through the
real adb: a few samples, in every bit those of this machine, and no timing.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common
from benchmarks.common import Bar
from tfq.errors import UserError
from tfq.execution.progress import Lines
from tfq.recipe import Recipe

FLAGS = new_flags()
flags.DEFINE_list("cases", list(cases.CASES), "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples at most.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "Runner and Python interpreter are timed in turns so often.", flag_values=FLAGS)
flags.DEFINE_string("arm64_library", "", "libLiteRt.so of the aarch64 wheel of ai-edge-litert.", flag_values=FLAGS)
flags.DEFINE_integer("arm64_samples", 8, "Samples that run under qemu.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of on_device.md and on_device.json.", flag_values=FLAGS)

GROUPS = {
    "Benchmark": ("cases", "num_samples", "rounds", "output"),
    "arm64 under qemu": ("arm64_library", "arm64_samples"),
}
SUMMARY = "The runner of tfq-bench against the Python interpreter, on real models, here and on arm64 under qemu."
MOST_SLOWER = 1.1
MODELS = ("float", "int8")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One case.

    Attributes:
      samples: test samples.
      differing: model -> elements of its outputs that are not the Python interpreter's.
      scores: model -> (the runner's, tfq-evaluate's) top-1, %.
      ratios: model -> the runner's p50 over the Python interpreter's, one for each round.
      p50_us: model -> the runner's, median of the rounds.
      arm64_differing: elements of the int8 outputs that are not this machine's; None where it was not run.
      arm64_timed: whether any time was published of the emulated device; None where it was not run.
    """

    case: str
    samples: int
    differing: dict[str, int]
    scores: dict[str, tuple[float, float]]
    ratios: dict[str, list[float]]
    p50_us: dict[str, float]
    arm64_differing: int | None = None
    arm64_timed: bool | None = None


def measure(case: str, num_samples: int, rounds: int, arm64: Path | None, arm64_samples: int) -> Measured:
    """All of one case; to be called in a fresh process."""
    from tfq_bench.bench import prepare, run_bench
    from tfq_bench.build import find_runner
    from tfq_bench.elf import host_target
    from tfq_bench.host_device import describe_host, run_on_host
    from tfq_bench.job import Settings
    from tfq_bench.library import find_library

    from tfq.data.loading import load_samples
    from tfq.evaluation.evaluate import evaluate, input_signatures
    from tfq.evaluation.latency import measure_latency

    runner, library = find_runner(host_target()), find_library(host_target())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = cases.write_case(case, folder, num_samples)
        recipe = Recipe(str(files.model), str(files.calibration), num_calibration_samples=files.calibration_samples)
        common.run_tfq(recipe, folder / "out")
        paths = {"float": folder / "out/float.tflite", "int8": folder / "out/model.tflite"}
        samples = load_samples(str(files.test), input_signatures(paths["float"]))
        evaluated = evaluate(paths, samples, timing=None)
        single = {name: {key: values[:1] for key, values in samples.arrays.items()} for name in paths}

        settings = Settings(warmup_seconds=0.5, seconds=1.0, rounds=1)
        ratios: dict[str, list[float]] = {name: [] for name in paths}
        times: dict[str, list[float]] = {name: [] for name in paths}
        for turn in range(rounds):
            bench = prepare(paths, samples if turn == 0 else samples.head(8), folder / f"job{turn}", settings=settings)
            host = {"host": (describe_host(), lambda job, own: run_on_host(job, runner, library, own))}
            (report,) = run_bench(bench, host, folder / f"work{turn}")
            if report.failures:
                raise UserError(f"{case}: {report.failures[0].error}")
            if turn == 0:
                whole = report
            python = measure_latency(paths, single)
            for model in report.models:
                (timing,) = model.timings
                assert timing.latency is not None
                times[model.name].append(timing.latency.p50_us.value)
                ratios[model.name].append(timing.latency.p50_us.value / (1e3 * python[model.name].p50_ms))

        found = Measured(
            case,
            len(samples),
            {model.name: sum(d.differing for d in model.against_host) for model in whole.models},
            {model.name: (_score(model), _score(evaluated[model.name])) for model in whole.models},
            ratios,
            {name: statistics.median(values) for name, values in times.items()},
        )
        if arm64 is None:
            return found
        few = prepare({"int8": paths["int8"]}, samples.head(arm64_samples), folder / "arm64", settings=settings)
        differing, timed = _emulated(few, arm64, folder)
        return dataclasses.replace(found, arm64_differing=differing, arm64_timed=timed)


def _score(model: Any) -> float:
    assert model.score is not None
    return float(model.score.value)


def _emulated(bench: Any, library: Path, folder: Path) -> tuple[int, bool]:
    """(elements that differ from this machine's, whether a time was published) on an arm64 test device."""
    from tfq_bench.adb import Adb
    from tfq_bench.android_device import Programs, describe, run_on_android
    from tfq_bench.bench import run_bench
    from tfq_bench.build import find_runner
    from tfq_bench.elf import Target

    from android_bench.testing import TestDevice

    runner = find_runner(Target("arm64-v8a", "linux"))
    with TestDevice(folder / "phone", abi="arm64-v8a") as device:
        adb = Adb(device.serial)
        programs = Programs(Target("arm64-v8a", "linux"), runner, library)

        def run(job: Any, own: Path) -> Any:
            return run_on_android(adb, job, own, find=lambda _: programs)

        (report,) = run_bench(bench, {device.serial: (describe(device.serial, {}, None), run)}, folder / "emulated")
    if report.failures:
        raise UserError(f"arm64: {report.failures[0].error}")
    (model,) = report.models
    return sum(d.differing for d in model.against_host), any(t.latency is not None for t in model.timings)


def bars(found: Measured) -> Iterator[Bar]:
    """What is demanded of one case."""
    for name in MODELS:
        count = found.differing[name]
        yield Bar.at_most(f"{found.case} {name}: output elements that are not Python's", count, 0, "{:.0f}")
        ours, theirs = found.scores[name]
        yield Bar(f"{found.case} {name}: top-1 {ours:.4f} %, bar tfq-evaluate's {theirs:.4f} %", ours == theirs)
        ratio = statistics.median(found.ratios[name])
        yield Bar.at_most(f"{found.case} {name}: p50 of Python's", ratio, MOST_SLOWER, "{:.3f} x")
    # the demo's softmax is no operation of XNNPACK's, and TFLite's own kernels round otherwise on Arm
    if found.arm64_differing is not None and found.case != cases.DEMO:
        what = f"{found.case} int8, arm64 under qemu: output elements that are not this machine's"
        yield Bar.at_most(what, found.arm64_differing, 0, "{:.0f}")
        yield Bar(f"{found.case} int8, arm64 under qemu: no time is published", found.arm64_timed is False)


def page(where: dict[str, Any], results: Sequence[Measured], demands: Sequence[Bar], notes: Sequence[str]) -> str:
    rows = []
    for found in results:
        for name in MODELS:
            spread = found.ratios[name]
            emulated = found.arm64_differing if name == "int8" else None
            rows.append(
                [
                    f"{found.case} {name}",
                    f"{found.samples:,}",
                    str(found.differing[name]),
                    f"{found.scores[name][0]:.2f} %",
                    f"{found.p50_us[name]:,.1f} us",
                    f"{statistics.median(spread):.3f} [{min(spread):.3f}, {max(spread):.3f}]",
                    "" if emulated is None else str(emulated),
                ]
            )
    header = ["model", "samples", "differing", "top-1", "p50", "of Python's [rounds]", "arm64: differing"]
    text = (
        "The C++ runner of `tfq-bench` on this machine against the Python interpreter of ai-edge-litert, both with"
        " XNNPACK and one thread, timed in turns; differing counts elements of all outputs on all samples."
    )
    return common.page_text("On the device", where, [text, common.markdown_table(header, rows)], demands, notes)


def main(values: flags.FlagValues) -> int:
    common.check_choices("cases", values.cases, cases.CASES)
    common.check_num_samples(values.num_samples)
    common.check_positive("rounds", [values.rounds])
    directory, where = common.output_directory(values.output), common.environment("benchmarks.on_device")
    arm64 = Path(values.arm64_library) if values.arm64_library else None
    if arm64 is not None:
        where["command"] = where["command"].replace(str(arm64), arm64.name)
    names, notes = cases.present(values.cases)
    if arm64 is None:
        notes.append("arm64 under qemu was left out: no --arm64_library")
    progress = Lines(sys.stderr)

    def run(name: str) -> Measured:
        options = (values.num_samples, values.rounds, arm64, values.arm64_samples)
        with progress.task(name, 0):
            return common.in_fresh_process(measure, name, *options)

    results, demands = common.judged(names, run, lambda found: list(bars(found)))
    return common.finish(
        directory / "on_device.md",
        page(where, results, demands, notes),
        {**where, "cases": [dataclasses.asdict(found) for found in results]},
        demands,
        notes,
    )


def run() -> None:
    run_command("benchmarks.on_device", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
