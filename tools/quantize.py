"""tfq-quantize: a Keras model and unlabelled inputs in, a measured .tflite out. Flags -> Recipe -> tfq.pipeline."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from tfq.errors import UserError
from tfq.recipe import CHOICES, Recipe

FLAGS = new_flags()
_DEFAULT = {field.name: field.default for field in dataclasses.fields(Recipe)}


def _string(name: str, text: str) -> None:
    flags.DEFINE_string(name, _DEFAULT.get(name, ""), text, flag_values=FLAGS)


def _enum(name: str, text: str) -> None:
    flags.DEFINE_enum(name, _DEFAULT[name], CHOICES[name], text, flag_values=FLAGS)


def _integer(name: str, text: str) -> None:
    flags.DEFINE_integer(name, _DEFAULT[name], text, flag_values=FLAGS)


def _boolean(name: str, text: str) -> None:
    flags.DEFINE_boolean(name, _DEFAULT.get(name, False), text, flag_values=FLAGS)


_string("recipe", "The recipe.json of an earlier run: its settings, where no other flag says otherwise.")
flags.DEFINE_string("model", "", "A .keras or .h5 file, or a SavedModel directory of tf_keras.", flag_values=FLAGS)
_string("output_dir", "Where model.tflite, float.tflite, spec.json, report.json and recipe.json go.")
_boolean("overwrite", "Replace what an earlier run wrote to --output_dir.")
_boolean("allow_unsafe_deserialization", "Run code that the model file holds, such as Lambda layers.")
_string(
    "calibration_data",
    "Inputs without labels: an .npz with the array 'x' (or one array per input name), an .npy, a folder of images,"
    " TFRecords, or module:function.",
)
_integer("num_calibration_samples", "Samples to calibrate on; 100 to 1000 are usual.")
_enum("selection", "Which samples of the calibration data are taken.")
_enum("preprocess", "Scaling of images in 0..255 to what the model was trained on; none: as stored.")
_string("evaluation_data", "Samples with labels 'y' to measure on; the model is never tuned on them.")
_string("metric", "top1, top5, auc, f1, mse, sqnr, or your own module:function.")
_enum("precision", "Number format of the whole model; all but int8 are TFLiteConverter's own exports.")
_enum(
    "pipeline",
    "int8: nearest rounding after calibration. light: batch-norm tuning too, no gradients. advanced: layers are"
    " reconstructed against the float model, then batch norms and biases tuned. Needed for 4 bits and fewer.",
)
_enum(
    "reconstruction",
    "How the weights of each layer are found; by default best in the advanced pipeline and none in the light one."
    " bias_correction and least_squares need no gradients; adaround and adaquant are as published.",
)
_enum("mode", "sequential: each layer makes good what those before it lost. parallel: all at once, faster.")
_enum("granularity", "block: the last layer before a residual addition is fitted to the sum; layer: to its own output.")
_enum("batch_norm_tuning", "Which way of batch-norm tuning; by default the best of all on held-back samples.")
_enum(
    "equalization",
    "Scaling of channels between layers; by default expected where weights have one scale per tensor, else none.",
)
_integer("memory_limit", "MiB of activations that reconstruction keeps in memory; the rest goes to temporary files.")
_integer("workers", "Threads that reconstruct layers in parallel mode.")
_integer("weight_bits", "Grid bits of the weights, 2 to 8.")
_integer(
    "activation_bits",
    "Grid bits of what convolutions and dense layers read. TFLite runs 8; 4 to 7 are simulated for comparison with"
    " the literature, and no model.tflite is written.",
)
_integer("first_last_bits", "8: the first and last convolutions or dense layers stay at 8 bits; 0: no exception.")
flags.DEFINE_float(
    "max_accuracy_drop",
    None,
    "The smallest model (or fastest, --objective) that loses at most so many points of top-1 accuracy, as measured on"
    " calibration samples: every layer gets the bits it can afford.",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "size_budget",
    None,
    "The best model whose weights take at most this share of the float weights' bytes; 0.125 is 4 bits a weight.",
    flag_values=FLAGS,
)
_string("latency_budget", "The best model that takes at most this time, as 1.2ms, by --latency_table.")
_string("latency_table", "What every layer takes at every precision: a file of tfq-profile or tfq-bench.")
_enum("objective", "What --max_accuracy_drop makes small.")
flags.DEFINE_list(
    "candidates", [], "Precisions a layer may get, as w3,w4,w8,float16; by default w2 to w8.", flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "pin", [], "REGEX:PRECISION fixes the precision of these layers; repeatable.", flag_values=FLAGS
)
_enum("sensitivity", "How it is found what a layer loses: measured in the file, or estimated.")
_boolean("per_channel", "One weight scale per output channel; otherwise one per tensor.")
_enum("storage", "How weights are stored: int8 runs fastest; packed stores 4 bits and fewer as INT4 tensors.")
_enum("package", "gzip: write model.tflite.gz too, which an app inflates itself (docs/android.md).")
_enum("calibration_method", "How activation ranges are chosen; auto takes the best of all for each tensor.")
flags.DEFINE_float("percentile", 99.9, "Share of the values in % that the method percentile keeps.", flag_values=FLAGS)
_enum("input_type", "Element type of the model's inputs.")
_enum("output_type", "Element type of the model's outputs.")
_string("labels", "A text file with one class name a line, stored in the model for Android's Task library.")
_integer("seed", "Seed of everything random; the same seed and inputs give the same bytes.")

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
        "equalization",
        "weight_bits",
        "activation_bits",
        "first_last_bits",
        "per_channel",
        "storage",
        "calibration_method",
        "percentile",
    ),
    "Bits by budget": (
        "max_accuracy_drop",
        "size_budget",
        "latency_budget",
        "latency_table",
        "objective",
        "candidates",
        "pin",
        "sensitivity",
    ),
    "The .tflite": ("input_type", "output_type", "labels", "package"),
    "Resources": ("memory_limit", "workers"),
    "Reproducibility": ("seed", "recipe"),
}
SUMMARY = (
    "Turn a trained Keras model and a few hundred unlabelled inputs into a verified .tflite, and measure it against"
    " the float baseline."
)


def recipe_from_flags(values: flags.FlagValues) -> Recipe:
    """The one place where flags become a Recipe."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    if not values.recipe:
        return Recipe(**_values(values, names))
    try:
        earlier = Recipe.from_json(Path(values.recipe).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--recipe={values.recipe} cannot be read ({error}); give the recipe.json of a run") from error
    return dataclasses.replace(earlier, **_values(values, [name for name in names if values[name].present]))


def _values(values: flags.FlagValues, names: Sequence[str]) -> dict[str, Any]:
    found = {name: values[name].value for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def main(values: flags.FlagValues) -> None:
    recipe = recipe_from_flags(values)
    missing = [f"--{name}" for name in ("model", "calibration_data") if not getattr(recipe, name)]
    if missing:
        raise UserError(f"missing {' and '.join(missing)}; tfq-quantize --help lists the flags")

    from tfq.execution.files import staged_directory
    from tfq.execution.progress import Lines
    from tfq.pipeline import quantize
    from tfq.report.summary import summary

    output = Path(values.output_dir)
    with staged_directory(output, overwrite=values.overwrite) as directory:
        product = quantize(recipe, progress=Lines(sys.stderr))
        for name, content in product.files.items():
            (directory / name).write_bytes(content)
    print(summary(product.report, output))


def run() -> None:
    run_command("tfq-quantize", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=("output_dir",))


if __name__ == "__main__":
    run()
