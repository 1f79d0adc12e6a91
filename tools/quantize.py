"""tfq-quantize: a Keras model and unlabelled inputs in, a measured .tflite out. Flags -> Recipe -> tfq.pipeline."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from absl import flags
from tfq_tools.arguments import with_flags
from tfq_tools.command import lasting_imports, run_command
from tfq_tools.recipe_flags import ledger_from_flags, new_recipe_flags, recipe_from_flags

from tfq.recipe import Recipe

FLAGS = new_recipe_flags(
    [field.name for field in dataclasses.fields(Recipe)],
    output="model.tflite, float.tflite, spec.json, report.json, report.html and recipe.json",
)
GROUPS = {
    "Model and output": ("model", "output_dir", "overwrite", "allow_unsafe_deserialization"),
    "Calibration data": ("calibration_data", "num_calibration_samples", "selection", "preprocess"),
    "Evaluation": ("evaluation_data", "metric"),
    "Quantisation": (
        "precision",
        "pipeline",
        "reconstruction",
        "mode",
        "granularity",
        "batch_norm_tuning",
        "bias_tuning",
        "equalization",
        "weight_bits",
        "activation_bits",
        "first_last_bits",
        "per_channel",
        "storage",
        "calibration_method",
    ),
    "A precision for every layer, within a budget": (
        "max_accuracy_drop",
        "size_budget",
        "latency_budget",
        "compute_budget",
        "latency_table",
        "objective",
        "candidates",
        "pin",
        "sensitivity",
        "journal",
    ),
    "The .tflite": ("input_type", "output_type", "labels", "package"),
    "Resources": ("memory_limit", "workers"),
    "Reproducibility": ("seed", "recipe"),
}
SUMMARY = (
    "Turn a trained Keras model and a few hundred unlabelled inputs into a verified .tflite, and compare it with the"
    " float model. docs/options.md says which options to use."
)


def main(values: flags.FlagValues) -> None:
    from tfq.models.model_files import check_model_file

    recipe = recipe_from_flags(values)
    # before the libraries are imported, which takes seconds
    check_model_file(Path(recipe.model), trusted=recipe.allow_unsafe_deserialization)

    with lasting_imports():
        from tfq.execution.files import staged_directory
        from tfq.execution.progress import Lines
        from tfq.pipeline import quantize
        from tfq.report.summary import summary

    output, ledger = Path(values.output_dir), ledger_from_flags(values, recipe)
    with staged_directory(output, overwrite=values.overwrite) as directory:
        result = quantize(recipe, ledger=ledger, progress=Lines(sys.stderr))
        result.write(directory)
    print(with_flags(summary(result.report, output)))


def run() -> None:
    required = ("model", "calibration_data", "output_dir")
    run_command("tfq-quantize", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required)


if __name__ == "__main__":
    run()
