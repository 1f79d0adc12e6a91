"""Weight clusters beside plain and coarse grids of as many bits: `python -m benchmarks.clustering`.

A model is loaded, prepared and calibrated once. Its layers are then fitted as in the light pipeline, at each of
`PRECISIONS`, exported, and judged on the test data. Figures are kept in the JSON file as they are measured, so that the
benchmark can run in pieces; the page is made of all that are there, with `--cases=` of nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common
from benchmarks.figures import HEADER, Figures, as_kept, compared, keep, kept
from tfq.evaluation.evaluate import evaluate
from tfq.execution.progress import SILENT, Lines
from tfq.export.package import export_quantized
from tfq.export.scales import with_legal_scales
from tfq.inputs import Inputs
from tfq.models.widths import units
from tfq.pipeline.begin import begin
from tfq.pipeline.choice import in_precision
from tfq.pipeline.quantized import setting_of, specified, started, stepped
from tfq.precision import precision_of
from tfq.reconstruction.steps import FITTING
from tfq.targets import TARGETS

PRECISIONS = {"3 bits": ("w3", "e3", "c8"), "2 bits": ("w2", "e2", "c4")}
WORDS = {"w": "plain grid", "e": "coarse grid", "c": "clusters"}
_NAMES = tuple(name for names in PRECISIONS.values() for name in names)
_PIPELINE = "light"

FLAGS = new_flags()
flags.DEFINE_list("cases", list(cases.SHARED), "Which models.", flag_values=FLAGS)
flags.DEFINE_list("precisions", list(_NAMES), "Which precisions.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_boolean("again", False, "Measure anew what is measured already.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of clustering.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Cell(Figures):
    """A case at one precision, which all layers have."""

    precision: str


def measure(case: str, precisions: Sequence[str], num_samples: int, seed: int) -> Iterator[Cell]:
    """One cell after the other. Raises UserError where the case cannot be run."""
    with tempfile.TemporaryDirectory() as temporary:
        files = cases.write_case(case, Path(temporary), num_samples)
        recipe = files.recipe(num_samples, seed, pipeline=_PIPELINE)
        run = in_precision(begin(recipe, Inputs.of(recipe), SILENT), "int8")
        start, _ = started(run)
        setting = setting_of(run, start)
        for name in precisions:
            chosen = {unit.name: precision_of(name) for unit in units(start.reference)}
            model = specified(run, start.reference, start.ranges, chosen)
            model, _ = stepped(run, setting, model, FITTING[_PIPELINE])
            content = export_quantized(with_legal_scales(model, TARGETS[recipe.target]), run.representative)
            made = {"float": run.baseline, name: content}
            evaluation = evaluate(made, run.unseen, metric=run.metric, seed=seed, timing=None, resources=run.resources)
            yield Cell(case=case, precision=name, commit=common.commit(), **compared(evaluation))


def page(cells: Sequence[Cell], where: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The figures as Markdown: a table for each number of bits."""
    text = (
        "Every layer of a model has the same precision. `w3` and `w2`: plain grids of so many bits, a scale for each"
        " channel. `e3` and `e2`: coarse 8-bit grids whose codes have so many bits of entropy, one scale for the layer."
        " `c8` and `c4`: that many clusters, a codebook for the layer, a scale for each channel. `--pipeline=light`,"
        " all fitted by least squares. Download: bytes of the .tflite, deflated, without metadata. Brackets: 95 %"
        " intervals of the paired bootstrap. The JSON file beside this page has the commit of every figure."
    )
    parts = [text]
    header = ["case", "n", "float", "weights", *HEADER, "bytes against w"]
    for bits, names in PRECISIONS.items():
        rows = []
        for case in dict.fromkeys(cell.case for cell in cells):
            found = {cell.precision: cell for cell in cells if cell.case == case}
            plain = found.get(names[0])
            for name in names:
                if name in found:
                    rows.append(_row(found[name], plain))
        parts += [f"## {bits}", common.markdown_table(header, rows)]
    return common.page_text("Weight clusters, plain grids and coarse grids", where, parts, [], notes)


def _row(cell: Cell, plain: Cell | None) -> list[str]:
    less = "" if plain is None or plain is cell else f"{100 * (cell.download_bytes / plain.download_bytes - 1):+.1f} %"
    first = [
        cell.case,
        f"{cell.samples:,}",
        f"{cell.float_score:.2f} %",
        f"{WORDS[cell.precision[0]]}, {cell.precision}",
    ]
    return [*first, *cell.cells(), less]


def main(values: flags.FlagValues) -> int:
    common.check_choices("cases", values.cases, cases.CASES)
    common.check_choices("precisions", values.precisions, _NAMES)
    common.check_num_samples(values.num_samples)
    file = common.output_directory(values.output) / "clustering.json"
    where, progress = common.environment("benchmarks.clustering"), Lines(sys.stderr)
    cells = {(cell.case, cell.precision): cell for cell in kept(file, Cell)}
    present, notes = cases.present(values.cases)
    for case in present:
        wanted = [name for name in values.precisions if values.again or (case, name) not in cells]
        with progress.task(case, len(wanted)) as advance:
            for cell in measure(case, wanted, values.num_samples, values.seed) if wanted else ():
                cells[case, cell.precision] = cell
                keep(file, where, cells.values())
                advance(1)
    for case in cases.SHARED:
        missing = [name for name in _NAMES if (case, name) not in cells]
        notes += [f"{case} is not measured yet at {', '.join(missing)}"] * bool(missing)
    text = page(list(cells.values()), where, notes)
    return common.finish(file.with_suffix(".md"), text, as_kept(where, cells.values()), [], notes)


def run() -> None:
    run_command(
        "benchmarks.clustering",
        main,
        FLAGS,
        summary="Measure weight clusters beside plain and coarse grids of as many bits.",
        groups={"Benchmark": ("cases", "precisions", "num_samples", "seed", "again", "output")},
    )


if __name__ == "__main__":
    run()
