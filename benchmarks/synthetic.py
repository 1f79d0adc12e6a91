"""Calibration data that is made from the model, beside real data: `python -m benchmarks.synthetic`.

The inputs of a case are made once (`tfq.data.synthetic`), as `--calibration_data=synthetic` makes them, and serve all
of `VARIANTS`. All files are judged on the real test data. Figures are kept in the JSON file as they are measured; the
page is made of all that are there, with `--cases=` of nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common
from benchmarks.common import Bar
from benchmarks.figures import HEADER, Figures, as_kept, compared, keep, kept
from tfq.data.synthetic import MOST, synthetic_samples
from tfq.execution.progress import SILENT, Lines
from tfq.models.load import load_model
from tfq.pipeline import quantize

CASES = ("resnet20_cifar10", "mobilenet_v2_035_imagenette")
VARIANTS: Mapping[str, Mapping[str, Any]] = {"int8": {}, "W4 light": {"weight_bits": 4, "pipeline": "light"}}
DATA = ("synthetic", "real")
_LOST = {"int8": 1.0, "W4 light": 3.0}  # points of top-1, at most, with made data

FLAGS = new_flags()
flags.DEFINE_list("cases", list(CASES), "Which models.", flag_values=FLAGS)
flags.DEFINE_list("data", list(DATA), "Which calibration data.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of the data, of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_boolean("again", False, "Measure anew what is measured already.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of synthetic.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Cell(Figures):
    """A case with one kind of calibration data.

    Attributes:
      data: of `DATA`.
      variant: of `VARIANTS`.
      seconds: of processor time that making the data took; 0 for real data.
    """

    data: str
    variant: str
    seconds: float


def measure(case: str, data: str, variants: Sequence[str], seed: int) -> Iterator[Cell]:
    """One cell after the other."""
    with tempfile.TemporaryDirectory() as temporary:
        files, seconds = cases.write_case(case, Path(temporary), MOST), 0.0
        if data == "synthetic":
            start = time.process_time()
            made = synthetic_samples(load_model(files.model).graph, MOST, seed=seed)
            seconds = time.process_time() - start
            arrays: dict[str, Any] = dict(made.arrays)
            np.savez(files.calibration, **arrays)
        for variant in variants:
            recipe = files.recipe(MOST, seed, **VARIANTS[variant])
            evaluation = quantize(recipe, progress=SILENT).report.evaluation
            yield Cell(
                case=case, data=data, variant=variant, seconds=seconds, commit=common.commit(), **compared(evaluation)
            )


def bars(cells: Sequence[Cell]) -> list[Bar]:
    """With made data a model is nearly as good as float."""
    return [
        Bar(
            f"{c.case}, {c.variant}: {c.difference[0]:+.2f} points >= -{_LOST[c.variant]:g}",
            c.difference[0] >= -_LOST[c.variant],
        )
        for c in cells
        if c.data == "synthetic"
    ]


def page(cells: Sequence[Cell], where: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The figures as Markdown."""
    text = (
        f"{MOST} inputs made from the model, or the first {MOST} real ones, calibrate each model; the test data are"
        " real. Seconds: processor time that making the inputs took. Brackets: 95 % intervals of the paired bootstrap."
        " The JSON file beside this page has the commit of every figure."
    )
    rows = [
        [
            cell.case,
            f"{cell.samples:,}",
            f"{cell.float_score:.2f} %",
            cell.variant,
            cell.data,
            *cell.cells(),
            f"{cell.seconds:.0f}" if cell.seconds else "",
        ]
        for cell in sorted(cells, key=lambda cell: (cell.case, cell.variant, cell.data))
    ]
    header = ["case", "n", "float", "model", "calibration data", *HEADER, "seconds"]
    parts = [text, common.markdown_table(header, rows)]
    return common.page_text("Calibration data made from the model", where, parts, bars(cells), notes)


def main(values: flags.FlagValues) -> int:
    common.check_choices("cases", values.cases, cases.CASES)
    common.check_choices("data", values.data, DATA)
    file = common.output_directory(values.output) / "synthetic.json"
    where, progress = common.environment("benchmarks.synthetic"), Lines(sys.stderr)
    cells = {(cell.case, cell.data, cell.variant): cell for cell in kept(file, Cell)}
    present, notes = cases.present(values.cases)
    for case in present:
        for data in values.data:
            wanted = [name for name in VARIANTS if values.again or (case, data, name) not in cells]
            with progress.task(f"{case}, {data}", len(wanted)) as advance:
                for cell in measure(case, data, wanted, values.seed) if wanted else ():
                    cells[case, data, cell.variant] = cell
                    keep(file, where, cells.values())
                    advance(1)
    for case in CASES:
        missing = [f"{name} by {data} data" for data in DATA for name in VARIANTS if (case, data, name) not in cells]
        notes += [f"{case} is not measured yet: {', '.join(missing)}"] * bool(missing)
    found = list(cells.values())
    return common.finish(file.with_suffix(".md"), page(found, where, notes), as_kept(where, found), bars(found), notes)


def run() -> None:
    run_command(
        "benchmarks.synthetic",
        main,
        FLAGS,
        summary="Measure calibration data that is made from the model beside real data; the exit code is 1 where a bar"
        " is missed.",
        groups={"Benchmark": ("cases", "data", "seed", "again", "output")},
    )


if __name__ == "__main__":
    run()
