"""The fields of a Recipe as flags: what the commands that quantise have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags

from tfq.errors import UserError
from tfq.options import check_journal_acts
from tfq.recipe import CHOICES, Recipe

HELP = {
    "model": "A .keras or .h5 file, or a SavedModel directory of tf_keras.",
    "allow_unsafe_deserialization": "Run code that the model file holds, such as Lambda layers.",
    "calibration_data": "Inputs without labels: an .npz with the array 'x' (or one array per input name), an .npy, a"
    " folder of images, TFRecords, or module:function.",
    "num_calibration_samples": "Samples to calibrate on; 100 to 1000 are usual.",
    "selection": "Which samples of the calibration data are taken.",
    "preprocess": "Scaling of images in 0..255 to what the model was trained on; none: as stored.",
    "evaluation_data": "Samples with labels 'y' to measure on; the model is never tuned on them.",
    "metric": "top1, top5, auc, f1, mse, sqnr, or your own module:function.",
    "precision": "Number format of the whole model; all but int8 are TFLiteConverter's own exports.",
    "pipeline": "int8: nearest rounding after calibration. light: batch-norm tuning too, no gradients. advanced: layers"
    " are reconstructed against the float model, then batch norms and biases tuned; the one for 4 bits and fewer.",
    "reconstruction": "How the weights of each layer are found; by default best in the advanced pipeline and none in"
    " the light one. bias_correction and least_squares need no gradients; adaround and adaquant follow their"
    " papers except where docs/reconstruction.md says otherwise.",
    "mode": "sequential: each layer also corrects the error of the layers before it. parallel: every layer by itself,"
    " faster.",
    "granularity": "block: the last layer before a residual addition is fitted to the sum; layer: to its own output.",
    "batch_norm_tuning": "Which way of batch-norm tuning; by default the best of all on samples it has not seen.",
    "equalization": "Scaling of channels between layers; by default expected where weights have one scale per tensor,"
    " else none.",
    "memory_limit": "MiB of activations that reconstruction keeps in memory; the rest goes to temporary files.",
    "workers": "Processes that reconstruct layers in parallel mode.",
    "weight_bits": "Grid bits of the weights, 2 to 8.",
    "activation_bits": "Grid bits of what convolutions and dense layers read. TFLite runs 8; 4 to 7 are simulated for"
    " comparison with the literature, and no model.tflite is written.",
    "first_last_bits": "8: the first and last convolutions or dense layers stay at 8 bits; 0: no exception.",
    "max_accuracy_drop": "The smallest model (with --objective=latency the fastest) that loses at most this many"
    " points of top-1 accuracy, estimated on calibration samples. Every layer gets its own number of bits.",
    "size_budget": "The best model whose weights take at most this share of the float weights' bytes; 0.125 is 4 bits a"
    " weight.",
    "latency_budget": "The best model that takes at most this time, for example 1.2ms, according to --latency_table.",
    "compute_budget": "The best model whose bit operations (multiply-accumulates x bits of weights x bits of"
    " activations) are at most this share of the 8-bit model's.",
    "latency_table": "What every layer takes at every precision: a file of tfq-profile or tfq-bench.",
    "objective": "What --max_accuracy_drop minimises.",
    "candidates": "Precisions that a layer may get, for example w3,w8,e2,float16. w3: a grid of 3 bits. e2: a coarse"
    " 8-bit grid whose codes have 2 bits of entropy, for small downloads. float16, float32: the layer stays float. With"
    " w4a4 the result is only simulated, since TFLite cannot run it.",
    "pin": "REGEX:PRECISION fixes the precision of the layers that match; can be given several times.",
    "sensitivity": "How the loss of each layer is found: measured in the file, or estimated.",
    "per_channel": "One weight scale per output channel; otherwise one per tensor.",
    "storage": "How weights are stored: int8 runs fastest; packed stores 4 bits and fewer as INT4 tensors.",
    "package": "gzip: write model.tflite.gz too, which an app inflates itself (docs/android.md).",
    "calibration_method": "How activation ranges are chosen; auto takes the best of all for each tensor.",
    "percentile": "Share of the values, in %, that the method percentile keeps.",
    "input_type": "Element type of the model's inputs.",
    "output_type": "Element type of the model's outputs.",
    "labels": "A text file with one class name per line; the names are stored in the model for Android's Task library.",
    "seed": "Seed of everything random; the same seed and inputs give the same bytes.",
}
_FLOATS = ("max_accuracy_drop", "size_budget", "compute_budget", "percentile")
_REPEATED = ("pin",)


def new_recipe_flags(names: Collection[str], *, output: str) -> flags.FlagValues:
    """Flags of a command: these fields of a Recipe, and where its files go.

    Args:
      names: of fields of a Recipe.
      output: which files go to --output_dir.
    """
    values = new_flags()
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for name in (field.name for field in dataclasses.fields(Recipe) if field.name in names):
        default, text = defaults[name], HELP[name]
        if name in CHOICES:
            flags.DEFINE_enum(name, default, CHOICES[name], text, flag_values=values)
        elif name in _FLOATS:
            flags.DEFINE_float(name, default, text, flag_values=values)
        elif name in _REPEATED:
            flags.DEFINE_multi_string(name, [], text, flag_values=values)
        elif isinstance(default, tuple):
            flags.DEFINE_list(name, [], text, flag_values=values)
        elif isinstance(default, bool):
            flags.DEFINE_boolean(name, default, text, flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, text, flag_values=values)
        else:  # the model has no default
            flags.DEFINE_string(name, default if isinstance(default, str) else "", text, flag_values=values)
    flags.DEFINE_string("output_dir", "", f"Where {output} go.", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "Replace what an earlier run wrote to --output_dir.", flag_values=values)
    flags.DEFINE_string(
        "recipe",
        "",
        "The recipe.json of an earlier run, whose settings are used; flags given beside it go first.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "journal",
        "",
        "File that keeps the measurements of layers for a budget; a run that was killed continues from it.",
        flag_values=values,
    )
    return values


def ledger_from_flags(values: flags.FlagValues, recipe: Recipe) -> Path | None:
    """The journal. Raises UserError where nothing would be written to it."""
    if not values.journal:
        return None
    check_journal_acts(recipe)
    return Path(values.journal)


def recipe_from_flags(values: flags.FlagValues, **fixed: Any) -> Recipe:
    """The one place where flags become a Recipe.

    Args:
      values: flags that were parsed.
      fixed: fields that the command decides.

    Raises UserError for what cannot be, or is missing.
    """
    names = [field.name for field in dataclasses.fields(Recipe) if field.name in values]
    if not values.recipe:
        recipe = Recipe(**_values(values, names), **fixed)
    else:
        earlier = Recipe.read(Path(values.recipe), what=f"--recipe={values.recipe}")
        given = _values(values, [name for name in names if values[name].present])
        recipe = dataclasses.replace(earlier, **given, **fixed)
    missing = [f"--{name}" for name in recipe.missing]
    if missing:
        raise UserError(f"missing {' and '.join(missing)}; tfq-quantize --help lists the flags")
    return recipe


def _values(values: flags.FlagValues, names: Sequence[str]) -> dict[str, Any]:
    found = {name: values[name].value for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
