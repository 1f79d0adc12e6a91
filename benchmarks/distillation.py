"""Distillation behind a reconstruction, at 3 and 2 bits: `python -m benchmarks.distillation`.

Each case is quantised twice with the same bits and samples, by the light pipeline and by the same with distillation,
which learns from further inputs without labels where the case has any, and from the calibration samples where it has
none. Figures are kept in the JSON file as they are measured; the page is made of all that are there, with `--cases=`
of nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common
from benchmarks.common import Bar
from benchmarks.figures import HEADER, Figures, as_kept, compared, keep, kept
from tfq.execution.progress import SILENT, Lines
from tfq.pipeline import quantize

BITS = (3, 2)
_PIPELINE = "light"
_LOST = {3: 1.0, 2: 5.0}  # points of top-1, at most

FLAGS = new_flags()
flags.DEFINE_list("cases", list(cases.SHARED), "Which models.", flag_values=FLAGS)
flags.DEFINE_list("bits", list(map(str, BITS)), "Bits of the weights.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples.", flag_values=FLAGS)
flags.DEFINE_integer("steps", 1500, "Of distillation.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_boolean("again", False, "Measure anew what is measured already.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of distillation.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Cell(Figures):
    """A case at some bits, with or without distillation.

    Attributes:
      bits: of the weights.
      steps: of distillation; 0 without.
      learned_from: further samples; 0 where it learned from the calibration samples, or not at all.
      seconds: of the distillation.
      verdict: of its guard: "kept", "rolled back" or "nothing to propose"; "" without.
    """

    bits: int
    steps: int
    learned_from: int
    seconds: float
    verdict: str


def measure(case: str, wanted: Sequence[tuple[int, int]], num_samples: int, seed: int) -> Iterator[Cell]:
    """One cell after the other, of these (bits, steps of distillation). Raises UserError where it cannot be run."""
    with tempfile.TemporaryDirectory() as temporary:
        files = cases.write_case(case, Path(temporary), num_samples)
        further, path = cases.further(case, num_samples), Path(temporary) / "further.npy"
        if further is not None:
            np.save(path, further)
        learned_from = 0 if further is None else len(further)
        data: dict[str, Any] = {"distillation_data": str(path)} if learned_from else {"distill": True}
        del further
        for bits, steps in wanted:
            distils = {**data, "distillation_steps": steps} if steps else {}
            recipe = files.recipe(num_samples, seed, pipeline=_PIPELINE, weight_bits=bits, **distils)
            report = quantize(recipe, progress=SILENT).report
            step = next((step for step in report.steps if step.name == "distillation"), None)
            yield Cell(
                case=case,
                bits=bits,
                steps=steps,
                learned_from=learned_from if steps else 0,
                seconds=sum(stage.seconds for stage in report.stages if stage.name == "distil"),
                verdict="" if step is None else _verdict(step.guards),
                commit=common.commit(),
                **compared(report.evaluation),
            )


def _verdict(guards: Sequence[Any]) -> str:
    if not guards:
        return "nothing to propose"
    return "rolled back" if guards[0].rolled_back else "kept"


def bars(cells: Sequence[Cell]) -> list[Bar]:
    """3 bits lose a point at most, 2 bits five."""
    return [
        Bar.at_most(f"{cell.case}, {cell.bits} bits, points lost", -cell.difference[0], _LOST[cell.bits], "{:.2f}")
        for cell in cells
        if cell.steps
    ]


def page(cells: Sequence[Cell], where: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The figures as Markdown."""
    text = (
        "Weights of 3 and of 2 bits, all layers, activations of 8 bits, by `--pipeline=light`: without distillation and"
        " with it. It learns from further inputs without labels (their number is in the table), or from the calibration"
        " samples where a case has no others. No test sample has a part in it. Seconds: of the distillation, on a"
        " machine that did other work too. Brackets: 95 % intervals of the paired bootstrap. One seed. The JSON"
        " file beside this page has the commit of every figure."
    )
    rows = [
        [
            cell.case,
            f"{cell.samples:,}",
            f"{cell.float_score:.2f} %",
            str(cell.bits),
            f"{cell.steps:,} steps" if cell.steps else "none",
            (f"{cell.learned_from:,} further" if cell.learned_from else "calibration") if cell.steps else "",
            cell.verdict,
            *cell.cells(),
            f"{cell.seconds:.0f}" if cell.steps else "",
        ]
        for cell in sorted(cells, key=lambda cell: (cell.case, -cell.bits, cell.steps))
    ]
    header = ["case", "n", "float", "bits", "distillation", "samples", "guard", *HEADER, "seconds"]
    parts = [text, common.markdown_table(header, rows)]
    return common.page_text("Distillation at 3 and 2 bits", where, parts, bars(cells), notes)


def main(values: flags.FlagValues) -> int:
    common.check_choices("cases", values.cases, cases.CASES)
    common.check_choices("bits", values.bits, tuple(map(str, BITS)))
    common.check_num_samples(values.num_samples)
    file = common.output_directory(values.output) / "distillation.json"
    where, progress = common.environment("benchmarks.distillation"), Lines(sys.stderr)
    cells = {(cell.case, cell.bits, bool(cell.steps)): cell for cell in kept(file, Cell)}
    present, notes = cases.present(values.cases)
    for case in present:
        every = [(int(bits), steps) for bits in values.bits for steps in (0, values.steps)]
        wanted = [(b, s) for b, s in every if values.again or (case, b, bool(s)) not in cells]
        with progress.task(case, len(wanted)) as advance:
            for cell in measure(case, wanted, values.num_samples, values.seed) if wanted else ():
                cells[case, cell.bits, bool(cell.steps)] = cell
                keep(file, where, cells.values())
                advance(1)
    for case in cases.SHARED:
        missing = [f"{b} bits" for b in BITS if (case, b, True) not in cells]
        notes += [f"{case} is not measured yet at {', '.join(missing)}"] * bool(missing)
    found = list(cells.values())
    return common.finish(file.with_suffix(".md"), page(found, where, notes), as_kept(where, found), bars(found), notes)


def run() -> None:
    run_command(
        "benchmarks.distillation",
        main,
        FLAGS,
        summary="Measure distillation at 3 and 2 bits; the exit code is 1 where a bar is missed.",
        groups={"Benchmark": ("cases", "bits", "num_samples", "steps", "seed", "again", "output")},
    )


if __name__ == "__main__":
    run()
