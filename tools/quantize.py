"""tfq-quantize: a float model and unlabelled inputs in, a measured .tflite out. Flags -> Recipe -> tfq.pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from tfq_tools.arguments import as_flag, with_flags
from tfq_tools.command import lasting_imports, run_command
from tfq_tools.recipe_flags import (
    HELP,
    check_files,
    groups_of,
    ledger_from_flags,
    new_recipe_flags,
    recipe_from_flags,
)
from tfq_tools.supervise import FAILED

FLAGS = new_recipe_flags(
    output="model.tflite, HOWTO.md, float.tflite, spec.json, report.json, report.html and recipe.json"
)
flags.DEFINE_boolean("explain", False, HELP["Evaluation"]["explain"], flag_values=FLAGS)
flags.DEFINE_string("fail_if", "", HELP["Evaluation"]["fail_if"], flag_values=FLAGS)
flags.DEFINE_string("mlflow", "", HELP["Evaluation"]["mlflow"], flag_values=FLAGS)
SUMMARY = (
    "Turn a trained model and a few hundred unlabelled inputs into a verified .tflite, and compare it with the"
    " float model. docs/options.md says which options to use."
)


def main(values: flags.FlagValues) -> int:
    from tfq_tools.conditions import conditions, failures
    from tfq_tools.tracking import load_mlflow, log_run

    recipe = recipe_from_flags(values)
    output, ledger = Path(values.output_dir), ledger_from_flags(values, recipe)
    wanted = conditions(values.fail_if)
    check_files(recipe)
    mlflow = load_mlflow() if values.mlflow else None

    with lasting_imports():
        from tfq.execution.engines import engine
        from tfq.execution.files import staged_directory
        from tfq.execution.progress import Course, Lines
        from tfq.pipeline import explain, plan_of, quantize
        from tfq.report.summary import summary
        from tfq.report.trials import trial_table

    with staged_directory(output, overwrite=values.overwrite) as directory:
        with engine(values.engine, recipe.workers) as executor:
            progress = Course(sys.stderr, plan_of(recipe))
            result = quantize(recipe, ledger=ledger, progress=progress, executor=executor, spelled=as_flag)
        result.write(directory)
    print(with_flags(summary(result.report, output, result.files)))
    if mlflow is not None:
        log_run(mlflow, values.mlflow, output.name, result)
    if values.explain:
        trials = explain(result.report, progress=Lines(sys.stderr))
        print(f"\n{trial_table(result.report.evaluation, trials)}")
    found = failures(wanted, result.report.evaluation)
    for line in found:
        print(f"failed, {line}", file=sys.stderr)
    return FAILED if found else 0


def run() -> None:
    required = ("model", "calibration_data", "output_dir")
    run_command("tfq-quantize", main, FLAGS, summary=SUMMARY, groups=groups_of(FLAGS), required=required)


if __name__ == "__main__":
    run()
