"""Reconstruction at 8 bits and fewer: `python -m benchmarks.reconstruction`.

Four parts, of which any can be run alone (`--parts`):

    ablation   every method at every width on every case, over seeds; the pipelines and the peers in the same run
    samples    score against the number of calibration samples, drawn anew for every seed
    products   plain int8 and the advanced pipeline at W4A8: size, latency, time, memory
    cost       nets of 10, 20 and 40 layers; parallel mode with one and two workers

Results are kept in reconstruction.json, cell by cell as they are measured: what is there is not measured again
(unless `--again`), and page and bars are made from all of it. A bar whose cells are not there is not judged, and
the page says so. Nothing is tuned on test data.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import aeq, cases, common, cost
from benchmarks.cases import CaseFiles
from benchmarks.cells import METHODS, WIDTHS, Cell, Key, Outcome, Results, Width, record
from benchmarks.common import Bar
from benchmarks.reconstruction_bars import (
    NETS,
    PARALLEL_CASE,
    PARALLEL_METHODS,
    PRODUCTS,
    judge,
    net_name,
    parallel_name,
    product_name,
)
from benchmarks.reconstruction_page import draw_curves, page
from tfq.errors import VerificationError
from tfq.execution.progress import Lines, Progress

PARTS = ("ablation", "samples", "products", "cost")
# Peers and the one width at which each is measured.
PEERS = {"tflite": "W8A8", "aeq": "W4A8"}
# Nothing in these depends on the seed, as long as the samples do not.
SEEDLESS = ("nearest", "mse", *PEERS)
FLAGS = new_flags()
flags.DEFINE_list("parts", list(PARTS), "Which parts to run.", flag_values=FLAGS)
flags.DEFINE_list("cases", list(cases.CASES), "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_list("widths", list(WIDTHS), "Ablation: widths of weights and activations.", flag_values=FLAGS)
flags.DEFINE_list("methods", list(METHODS), "Ablation: rows of the table.", flag_values=FLAGS)
flags.DEFINE_list(
    "curve_methods", ["nearest", "adaround", "adaquant", "best"], "Samples: lines of the figure.", flag_values=FLAGS
)
flags.DEFINE_list("curve_samples", ["1", "4", "16", "64", "256", "1024"], "Samples: how many.", flag_values=FLAGS)
flags.DEFINE_string("curve_width", "W4A8", "Samples: width of weights and activations.", flag_values=FLAGS)
flags.DEFINE_integer("seeds", 3, "Seeds 0, 1, ... of ablation and samples.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples at most; kws_dscnn has 200.", flag_values=FLAGS)
flags.DEFINE_bool("again", False, "Measure also what has been measured.", flag_values=FLAGS)
flags.DEFINE_string(
    "output", "docs/benchmarks", "Directory of reconstruction.md and .json; the figure in ../images.", flag_values=FLAGS
)

GROUPS = {
    "Benchmark": ("parts", "cases", "seeds", "num_samples", "again", "output"),
    "Ablation": ("widths", "methods"),
    "Samples": ("curve_methods", "curve_samples", "curve_width"),
}


def ablation_keys(
    case: str, available: int, *, widths: Sequence[str], methods: Sequence[str], seeds: int, num_samples: int
) -> Iterator[Key]:
    """The cells of one case, in the order in which they share most."""
    count = min(num_samples, available)
    chosen = [method for method in METHODS if method in methods]  # a stage comes after the one it goes on from
    for width, seed, method in itertools.product([w for w in WIDTHS if w in widths], range(seeds), chosen):
        if PEERS.get(method, width) == width and (seed == 0 or method not in SEEDLESS):
            yield Key(case, width, method, count, "first", seed)


def curve_keys(
    case: str, available: int, *, width: str, methods: Sequence[str], seeds: int, counts: Sequence[int]
) -> Iterator[Key]:
    """The same of the samples' curve; of a case with fewer samples than asked for, all are taken."""
    chosen = sorted({min(count, available) for count in counts})
    for count, seed, method in itertools.product(chosen, range(seeds), methods):
        yield Key(case, width, method, count, "random", seed)


def _measure(files: CaseFiles, key: Key, width: Width) -> Outcome:
    """In another process: TensorFlow must not be imported in this one (see `common.fresh_process`)."""
    from benchmarks import ablation

    return ablation.measure(files, key, width)


def run_cells(
    case: str,
    keys_of: Callable[[int], Sequence[Key]],
    path: Path,
    where: Mapping[str, Any],
    *,
    again: bool,
    progress: Progress,
) -> list[Bar]:
    """Measure the cells of one case that are not there, and store each; the missed bars among them.

    Args:
      keys_of: the cells wanted, by the number of calibration samples that the case has.
      path: of the results file.
      where: from `common.environment`.
    """
    missed = []
    with tempfile.TemporaryDirectory() as temporary, common.fresh_process() as call:
        with progress.task(f"{case}: data", 0):
            files = call(cases.write_case, case, Path(temporary), None)
        measured = Results.read(path).cells
        wanted = [key for key in keys_of(files.calibration_samples) if again or key not in measured]
        for number, key in enumerate(wanted, 1):
            title = (
                f"{case}: {number} of {len(wanted)}, {key.width} {key.method}, {key.samples} samples, seed {key.seed}"
            )
            with progress.task(title, 0):
                try:
                    outcome = call(_measure, files, key, WIDTHS[key.width])
                except VerificationError as error:
                    missed.append(Bar(f"{case} {key.width} {key.method}: not verified: {error}", False))
                else:
                    record(path, cells=[Cell(key, outcome, where["date"], where["command"], where["commit"])])
    return missed


def run_once(
    name: str,
    measure: Callable[[], dict[str, Any]],
    path: Path,
    where: Mapping[str, Any],
    *,
    again: bool,
    progress: Progress,
) -> list[Bar]:
    """Measure and store under a name what is not there; the missed bars."""
    if name in Results.read(path).runs and not again:
        return []
    with progress.task(name, 0):
        try:
            found = measure()
        except VerificationError as error:
            return [Bar(f"{name}: not verified: {error}", False)]
    origin = {field: where[field] for field in ("date", "command", "commit", "machine", "load_average")}
    record(path, runs={name: {**found, **origin}})
    return []


def main(values: flags.FlagValues) -> int:
    _check(values)
    output = common.output_directory(values.output)
    path, progress = output / "reconstruction.json", Lines(sys.stderr)
    where = common.environment("benchmarks.reconstruction")
    Results.read(path)  # a file of another kind is refused before anything is measured
    store = functools.partial(run_once, path=path, where=where, again=values.again, progress=progress)
    present, notes = cases.present(values.cases)
    missed: list[Bar] = []

    for case in present if {"ablation", "samples"} & set(values.parts) else ():
        missed += run_cells(case, _keys_of(values, case), path, where, again=values.again, progress=progress)
    if "products" in values.parts:
        for case in [c for c in PRODUCTS if c in present]:
            missed += store(product_name(case), functools.partial(cost.run_product, case, values.num_samples, 0))
    if "cost" in values.parts:
        for layers in NETS:
            missed += store(net_name(layers), functools.partial(cost.time_net, layers, values.num_samples, 0))
        for method, workers in itertools.product(PARALLEL_METHODS, (1, 2)) if PARALLEL_CASE in present else ():
            measure = functools.partial(cost.time_workers, PARALLEL_CASE, method, workers, values.num_samples, 0)
            missed += store(parallel_name(method, workers), measure)

    results = Results.read(path)
    if any(key.selection == "random" for key in results.cells):
        draw_curves(results, output.parent / "images" / "calibration_samples.png")
    judgement = judge(results)
    judgement = dataclasses.replace(judgement, bars=[*missed, *judgement.bars])
    written = page(results, judgement, notes, where)
    latest = Results.read(path).figures()  # another process may have added cells meanwhile
    return common.finish(output / "reconstruction.md", written, {**where, **latest}, judgement.bars, notes)


def _check(values: flags.FlagValues) -> None:
    """Raises UserError for wrong flags, before anything is measured."""
    common.check_choices("parts", values.parts, PARTS)
    common.check_choices("cases", values.cases, (*cases.CASES, *cases.LARGER))
    common.check_choices("widths", values.widths, tuple(WIDTHS))
    common.check_choices("methods", values.methods, tuple(METHODS))
    common.check_choices("curve_methods", values.curve_methods, [m for m in METHODS if m not in PEERS])
    common.check_choices("curve_width", [values.curve_width], tuple(WIDTHS))
    common.check_num_samples(values.num_samples)
    common.check_positive("seeds", [values.seeds])
    common.check_positive("curve_samples", values.curve_samples)
    if "ablation" in values.parts and "aeq" in values.methods and PEERS["aeq"] in values.widths:
        aeq.check_installed()


def _keys_of(values: flags.FlagValues, case: str) -> Callable[[int], list[Key]]:
    """The cells that the flags ask for, by the number of calibration samples of the case."""

    def keys(available: int) -> list[Key]:
        found: list[Key] = []
        if "ablation" in values.parts:
            found += ablation_keys(
                case,
                available,
                widths=values.widths,
                methods=values.methods,
                seeds=values.seeds,
                num_samples=values.num_samples,
            )
        if "samples" in values.parts:
            found += curve_keys(
                case,
                available,
                width=values.curve_width,
                methods=values.curve_methods,
                seeds=values.seeds,
                counts=[int(count) for count in values.curve_samples],
            )
        return found

    return keys


def run() -> None:
    run_command(
        "benchmarks.reconstruction",
        main,
        FLAGS,
        summary="Measure the methods of reconstruction at 8 bits and fewer, the pipelines and their peers on the same"
        " samples, the size of the calibration set, and what it all costs; the exit code is 1 where a bar is missed.",
        groups=GROUPS,
    )


if __name__ == "__main__":
    run()
