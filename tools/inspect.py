"""tfq-inspect: a result of tfq-quantize, or any .tflite, layer by layer."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.arguments import check_idle, with_flags
from tfq_tools.command import lasting_imports, new_flags, run_command
from tfq_tools.recipe_flags import check_files

GROUPS = {
    "What to show": {
        "result": "The output directory of a tfq-quantize run: shows what its report measured.",
        "model": "Any .tflite: shows what is in the file.",
        "layers": "Show only layers whose name matches this regular expression.",
        "diagnose": "With --result: make its model once more and show what weights and activations lose by themselves,"
        " how the error grows from layer to layer, and what was rolled back. Takes as long as the run.",
        "sort": "order: as the model runs. error: the worst own SQNR first (of a .tflite: the worst SQNR).",
    },
    "SQNR of a .tflite": {
        "float_model": "With --model and --data: a float .tflite; each layer's SQNR is measured against it.",
        "data": "Inputs to run, in any form that tfq-quantize takes.",
        "num_samples": "How many samples of --data to run.",
        "preprocess": "As in tfq-quantize.",
    },
}
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("result", "model", "layers", "float_model", "data"), ""),
    **{"diagnose": False, "sort": ("order", "error"), "num_samples": 8, "preprocess": "none"},
}
FLAGS = new_flags(GROUPS, _DEFAULTS, num_samples=(1, None))
SUMMARY = (
    "Show a quantised model layer by layer: precision, range, error against float, and parity with the simulation."
)


def main(values: flags.FlagValues) -> None:
    from tfq.data.location import check_sources
    from tfq.errors import UserError
    from tfq.execution.inputs import check_regular

    try:
        wanted = re.compile(values.layers)
    except re.error as error:
        raise UserError(f"--layers={values.layers} is no regular expression: {error}") from error
    if bool(values.result) == bool(values.model):
        raise UserError("give either --result=DIRECTORY (of tfq-quantize) or --model=FILE.tflite")
    with_model = {name: bool(values.model) for name in ("float_model", "data")}
    check_idle(values, with_model, "--result shows what its report measured; leave one of the two out")
    if bool(values.float_model) != bool(values.data):
        raise UserError("--float_model and --data go together; give both, or leave both out")
    with_data = {name: bool(values.data) for name in ("num_samples", "preprocess")}
    check_idle(values, with_data, "no --data is given; add --float_model and --data, or leave it out")
    sorts = {"sort": values.sort == "order" or (bool(values.result or values.data) and not values.diagnose)}
    unsorted = "nothing measures errors; add --float_model and --data"
    check_idle(values, sorts, f"{'--diagnose shows layers in order' if values.diagnose else unsorted}, or leave it out")
    check_idle(values, {"diagnose": bool(values.result)}, "--diagnose needs --result=DIRECTORY (of tfq-quantize)")
    for name in ("model", "float_model"):
        if values[name].value:
            check_regular(Path(values[name].value), f"the model {values[name].value}")
    check_sources(values.data or None)
    if values.diagnose:
        print(with_flags(_diagnosis(values, wanted)))
    else:
        print(with_flags(_result(values, wanted)) if values.result else _model(values, wanted))


def _result(values: flags.FlagValues, wanted: re.Pattern[str]) -> str:
    """The layers of report.json, and how the run went."""
    from tfq.report.devices import read_report
    from tfq.report.layers import layer_table, stage_table

    report = read_report(Path(values.result))
    return "\n\n".join([layer_table(report, wanted, values.sort), stage_table(report)])


def _diagnosis(values: flags.FlagValues, wanted: re.Pattern[str]) -> str:
    """Where the model of the run loses."""
    from tfq.recipe import Recipe
    from tfq.report.devices import read_report

    result = Path(values.result)
    read_report(result)  # the recipe is one of a run
    recipe = Recipe.read(result / "recipe.json", what=str(result / "recipe.json"))
    check_files(recipe)
    with lasting_imports():
        from tfq.execution.progress import Lines
        from tfq.pipeline import diagnose
        from tfq.report.diagnosis import diagnosis_text

    found, steps = diagnose(recipe, progress=Lines(sys.stderr))
    return diagnosis_text(found, steps, wanted)


def _model(values: flags.FlagValues, wanted: re.Pattern[str]) -> str:
    """The operations of a .tflite, with their errors where a float model and data are given."""
    from tfq.library.inspection import inspect

    samples = {"data": values.data or None, "preprocess": values.preprocess, "num_samples": values.num_samples}
    return inspect(values.model, float_model=values.float_model or None, **samples).table(wanted, sort=values.sort)


def run() -> None:
    run_command("tfq-inspect", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
