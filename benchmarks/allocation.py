"""Bits by integer programming against other ways to spend them: `python -m benchmarks.allocation`.

Parts, of which any can be run alone (`--parts`):

    curve      at every budget of size: the program, greedy, the best uniform width and chance, put together from the
               states of one survey; with `--reconstruct` the program's allocation reconstructed in sequence too
    average    whole runs of the advanced pipeline with weights of 4 and of 3 bits on average, over seeds
    drop       whole runs with --max_accuracy_drop=0.5, beside plain int8; of larger networks in the light pipeline
    latency    what the latency table predicts of whole models against what they take
    speed      budgets of latency from the fastest model to float, every model timed
    cost       time of survey, program and frontier, and how they grow

Results are kept in allocation.json one by one as they are measured: what is there is not measured again (unless
`--again`), and page and bars are made from all of it. A bar whose measurements are not there is not judged, and the
page says so. Nothing is tuned on test data.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import allocation_cost, allocation_runs, cases, common
from benchmarks.allocation_bars import BUDGET_OF_BITS, COST_CASE, COST_SAMPLES, GROWTH, judge
from benchmarks.allocation_figures import draw_accuracy, draw_degradation, draw_speed
from benchmarks.allocation_page import page
from benchmarks.cases import CaseFiles
from benchmarks.cells import Results
from benchmarks.common import Bar
from benchmarks.reconstruction import run_once
from tfq.execution.progress import Lines

PARTS = ("curve", "average", "drop", "latency", "speed", "cost")
BUDGETS = ("0.09", "0.10", "0.11", "0.125", "0.14", "0.16", "0.18", "0.20", "0.22", "0.25")  # of the paper's curve
FLAGS = new_flags()
flags.DEFINE_list("parts", list(PARTS), "Which parts to run.", flag_values=FLAGS)
flags.DEFINE_list("cases", list(cases.CASES), "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_list("budgets", list(BUDGETS), "Curve: shares of the float weights' bytes.", flag_values=FLAGS)
flags.DEFINE_list(
    "reconstruct", [], "Curve: budgets at which the program's allocation is reconstructed too; slow.", flag_values=FLAGS
)
flags.DEFINE_integer("seeds", 3, "Average: seeds 0, 1, ...", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples at most; kws_dscnn has 200.", flag_values=FLAGS)
flags.DEFINE_bool("again", False, "Measure also what has been measured.", flag_values=FLAGS)
flags.DEFINE_string(
    "output", "docs/benchmarks", "Directory of allocation.md and .json; the figures in ../images.", flag_values=FLAGS
)

GROUPS = {
    "Benchmark": ("parts", "cases", "seeds", "num_samples", "again", "output"),
    "Curve": ("budgets", "reconstruct"),
}
Measure = Callable[[], dict[str, Any]]


def _curve(files: CaseFiles, num_samples: int, budget: float) -> dict[str, Any]:
    """In another process: TensorFlow must not be imported in this one (see `common.fresh_process`)."""
    from benchmarks import allocation_curve

    return allocation_curve.measure(files, num_samples, budget)


def _reconstructed(files: CaseFiles, num_samples: int, budget: float) -> dict[str, Any]:
    """Likewise."""
    from benchmarks import allocation_curve

    return allocation_curve.measure_reconstructed(files, num_samples, budget)


def _speed(files: CaseFiles, num_samples: int) -> dict[str, Any]:
    """Likewise."""
    from benchmarks import allocation_curve

    return allocation_curve.measure_speed(files, num_samples)


def case_measurements(
    values: flags.FlagValues, case: str, files: CaseFiles, call: Callable[..., Any]
) -> Iterator[tuple[dict[str, Any], Measure]]:
    """What the flags ask for of one case: (what it is about, how it is measured).

    Args:
      call: calls a function in the process that keeps the survey of the case.
    """
    count = values.num_samples
    if "curve" in values.parts:
        for part, budgets, measure in (
            ("curve", values.budgets, _curve),
            ("reconstructed", values.reconstruct, _reconstructed),
        ):
            for budget in map(float, budgets):
                about = {"part": part, "case": case, "budget": budget}
                yield about, functools.partial(call, measure, files, count, budget)
    if "average" in values.parts:
        for bits, budget in BUDGET_OF_BITS.items():
            for seed in range(values.seeds):
                about = {"part": "average", "case": case, "bits": bits, "seed": seed}
                yield about, functools.partial(allocation_runs.run_budget, files, count, budget, seed)
    if "drop" in values.parts:
        about = {"part": "drop", "case": case, "seed": 0}
        pipeline = "light" if case in cases.LARGER else "advanced"
        yield about, functools.partial(allocation_runs.run_drop, files, count, 0, pipeline)
    if "latency" in values.parts:
        yield {"part": "latency", "case": case}, functools.partial(allocation_cost.profile_case, files)
    if "speed" in values.parts:
        yield {"part": "speed", "case": case}, functools.partial(common.in_fresh_process, _speed, files, count)


def cost_measurements(present: Sequence[str]) -> Iterator[tuple[dict[str, Any], Measure]]:
    """The part cost: (what it is about, how it is measured)."""
    about: dict[str, Any]
    if COST_CASE in present:
        about = {"part": "survey", "case": COST_CASE}
        yield about, functools.partial(allocation_cost.survey_case, COST_CASE, COST_SAMPLES)
    for layers, samples in GROWTH:
        about = {"part": "growth", "layers": layers, "samples": samples}
        yield about, functools.partial(allocation_cost.survey_net, layers, samples)
    for (layers, candidates), budgets in itertools.product(allocation_cost.PROGRAMS, allocation_cost.BUDGETS):
        about = {"part": "solve", "layers": layers, "candidates": candidates, "costs": budgets}
        yield about, functools.partial(allocation_cost.solve, layers, candidates, budgets)


def name_of(about: dict[str, Any]) -> str:
    """Under which a measurement is stored: "curve resnet8_cifar10, budget 0.125"."""
    first = " ".join(str(about[name]) for name in ("part", "case") if name in about)
    return ", ".join([first, *(f"{name} {value}" for name, value in about.items() if name not in ("part", "case"))])


def main(values: flags.FlagValues) -> int:
    _check(values)
    output = common.output_directory(values.output)
    path, progress = output / "allocation.json", Lines(sys.stderr)
    where = common.environment("benchmarks.allocation")
    Results.read(path)  # a file of another kind is refused before anything is measured
    present, notes = cases.present(values.cases)
    missed: list[Bar] = []

    def store(about: dict[str, Any], measure: Measure) -> None:
        def described() -> dict[str, Any]:
            return about | measure()

        missed.extend(run_once(name_of(about), described, path, where, again=values.again, progress=progress))

    for case in present if set(values.parts) - {"cost"} else ():
        with tempfile.TemporaryDirectory() as temporary, common.fresh_process() as call:
            with progress.task(f"{case}: data", 0):
                files = call(cases.write_case, case, Path(temporary), None)
            for about, measure in case_measurements(values, case, files, call):
                store(about, measure)
    for about, measure in cost_measurements(present) if "cost" in values.parts else ():
        store(about, measure)

    results = Results.read(path)
    draw_accuracy(results, output.parent / "images" / "allocation_accuracy.png")
    draw_degradation(results, output.parent / "images" / "allocation_degradation.png")
    draw_speed(results, output.parent / "images" / "allocation_latency.png")
    judgement = judge(results)
    judgement = dataclasses.replace(judgement, bars=[*missed, *judgement.bars])
    written = page(results, judgement, notes, where)
    latest = Results.read(path).figures()  # another process may have added its own meanwhile
    return common.finish(output / "allocation.md", written, {**where, **latest}, judgement.bars, notes)


def _check(values: flags.FlagValues) -> None:
    """Raises UserError for wrong flags, before anything is measured."""
    common.check_choices("parts", values.parts, PARTS)
    common.check_choices("cases", values.cases, (*cases.CASES, *cases.LARGER))
    common.check_num_samples(values.num_samples)
    common.check_positive("seeds", [values.seeds])
    common.check_shares("budgets", values.budgets)
    common.check_shares("reconstruct", values.reconstruct)


def run() -> None:
    run_command(
        "benchmarks.allocation",
        main,
        FLAGS,
        summary="Measure the integer program against greedy, uniform and random allocations of the same size, whole"
        " runs with budgets, predicted latency, and what it all costs; the exit code is 1 where a bar is missed.",
        groups=GROUPS,
    )


if __name__ == "__main__":
    run()
