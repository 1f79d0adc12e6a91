"""The fields of a Recipe as flags: what the commands that quantise have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import DEFINE, METRIC_HELP, READING_HELP, new_flags
from tfq_tools.supervise import FAILED

from tfq.errors import UserError
from tfq.evaluation.metrics import find_metric
from tfq.execution.engines import LOCAL, check_engine
from tfq.options import check_engine_acts, check_journal_acts
from tfq.recipe import CHOICES, Recipe

_FILES = {"output_dir": "", "overwrite": False, "recipe": "", "journal": "", "engine": LOCAL}
HELP = {
    "Model and output": {
        "model": "The trained model: a .keras or .h5 file, a SavedModel directory of tf_keras, or a float .tflite.",
        "output_dir": "Folder for the results.",
        "overwrite": "Replace what an earlier run wrote to --output_dir.",
        "import": "Python modules that you trust, as my_package.layers: they are imported, and the model file may name"
        " their layers and models.",
        "input_shape": "Sizes of one sample for an input that the model leaves open: image:224,224,3, or 224,224,3"
        " where there is one input. Give the flag once for each input.",
        "allow_unsafe_deserialization": "Run code that the model file holds, such as Lambda layers. Only for files"
        " whose author you trust.",
    },
    "Calibration data": {
        "calibration_data": "Inputs without labels: an .npz with the array 'x' (or one array per input name), an .npy,"
        " a folder of images, TFRecords, or module:function. synthetic: made from the model's batch normalisations,"
        " where there is no data.",
        "num_calibration_samples": "How many samples to calibrate on; 100 to 1000 are usual.",
        "selection": "Which of the calibration samples to use. first: the first ones. random: any. balanced: as many"
        " of each class, which needs labels. coverage: those that differ most from each other.",
        "preprocess": "How to scale images with values 0..255 for the model. zero_one: x / 255. minus_one_one: x /"
        " 127.5 - 1. imagenet: ImageNet's mean and deviation. raw: not at all, for a model that scales by itself."
        " none: the data are stored as the model expects them.",
    },
    "Evaluation": {
        "evaluation_data": "Test samples with labels 'y'. The models are measured on them, and never tuned on them.",
        "metric": METRIC_HELP,
        **READING_HELP,
        "explain": "Try the remedies of the worst layers, each in a run of its own, and show what each gains.",
        "fail_if": f"Exit with {FAILED} if any of these holds, after all files are written: drop>0.5,latency>1.0. drop:"
        " of the score against float. agreement in %. sqnr in dB. latency, size, download: times float's.",
        "mlflow": "Log settings, figures and the model to the MLflow server, or the folder, at this address.",
    },
    "Quantisation": {
        "precision": "Number format of the whole model. int8: activations on fixed grids. dynamic_range: integer"
        " weights, float activations. auto: the better of the two. The others are plain exports of TFLiteConverter.",
        "pipeline": "How much work goes into the weights. int8: rounded to the nearest level. light: every layer is"
        " fitted to the float model by least squares. advanced: the same with a longer search. Use advanced for 4 bits"
        " and fewer.",
        "reconstruction": "How the weights of each layer are fitted to the float model. default: best in the advanced"
        " pipeline, least_squares in the light one. Both, and bias_correction, need no gradients. adaround and adaquant"
        " are published methods; docs/reconstruction.md says what differs here.",
        "mode": "sequential: each layer also corrects the error of the layers before it. parallel: every layer by"
        " itself, which is faster.",
        "granularity": "What the last layer before a residual addition is fitted to. block: the sum. layer: its own"
        " output.",
        "range_tuning": "Whether the ranges of activations are chosen once more, by what the outputs lose. default:"
        " where calibration_method is auto and the model ends in a softmax or in a layer with weights.",
        "batch_norm_tuning": "Whether to try batch-norm tuning. default: where layers are not fitted by least_squares"
        " or best, which leave it nothing to gain.",
        "network_tuning": "Whether the advanced pipeline tries network tuning: biases, weight scales and weights of all"
        " layers learn together. default: as for batch norms.",
        "distill": "The whole network learns the float model's outputs in the end: weights, scales and biases of all"
        " layers together. For 3 bits and fewer.",
        "distillation_data": "Further inputs without labels for --distill, some thousands, in any form that"
        " --calibration_data takes. Without them it learns from the calibration data.",
        "distillation_steps": "Steps of 64 samples in which --distill learns; its time grows with them.",
        "equalization": "Rescale channels between layers, so that they share a scale well. default: expected where"
        " weights have one scale per tensor, and in the int8 pipeline where much is to be gained; else none.",
        "weight_bits": "Bits of a weight, 2 to 8.",
        "weight_clusters": "How many different integers the weights of a layer become: 2, 4, 8, 16 or 32. They are"
        " stored as int8 and compress to 1 to 5 bits. 0: no clusters.",
        "activation_bits": "Bits of the values that convolutions and dense layers read. TFLite runs 8. With 4 to 7 tfq"
        " only simulates the model, for comparison with published results, and writes no model.tflite.",
        "first_last_bits": "8: the first and the last convolution or dense layer keep 8 bits. 0: they get what the"
        " others get.",
        "per_channel": "One scale for each output channel of the weights; otherwise one for the whole tensor.",
        "storage": "How weights are stored. int8: runs fastest. packed: 4 bits and fewer become INT4 tensors, which"
        " make the file smaller and convolutions slower.",
        "calibration_method": "How the range of each activation is chosen: minmax, moving_average, percentile, kl, mse,"
        " deviations. auto: the best for each tensor. Some take a number, as percentile=99.99 (% of the values that the"
        " range keeps) or deviations=3.5 (standard deviations from the mean).",
    },
    "A precision for every layer, within a budget": {
        "max_accuracy_drop": "Find the smallest model (with --objective=latency the fastest) that loses at most this"
        " much by --metric, in its unit: points of top-1 accuracy by default. The loss is estimated on calibration"
        " samples. Every layer gets its own number of bits.",
        "size_budget": "Find the most accurate model whose weights take at most this share of the float weights'"
        " bytes; 0.125 is 4 bits a weight.",
        "latency_budget": "Find the most accurate model that takes at most this time, for example 1.2ms, according to"
        " --latency_table.",
        "compute_budget": "Find the most accurate model whose bit operations are at most this share of the 8-bit"
        " model's. Bit operations are multiply-accumulates x bits of weights x bits of activations.",
        "latency_table": "How long every layer takes at every precision: a file that tfq-profile or tfq-bench wrote.",
        "objective": "What --max_accuracy_drop makes as small as it can: the download, or the latency.",
        "candidates": "Which precisions a layer may get, for example w3,w8,e2,float16. w3: 3-bit weights. e2: 8-bit"
        " weights on few levels, which compress to about 2 bits, for small downloads. c16: 16 clusters. d8: 8-bit"
        " weights, float activations. w8a16: 16-bit activations, for --target=npu and micro. float16, float32: the"
        " layer stays float. w4a4: 4-bit activations too; TFLite cannot run them, so the model is only simulated.",
        "pin": "REGEX:PRECISION fixes the precision of the layers whose names match; can be given several times.",
        "sensitivity": "How the loss that each layer causes is found. measured: in the exported file. gradient,"
        " output_error: estimated, which is faster.",
        "journal": "With a budget: a file that keeps the measurements of layers. A run that was stopped continues from"
        " it.",
    },
    "The .tflite": {
        "target": "What an int8 model is to run on. cpu: LiteRT with XNNPACK, on a phone or a computer. micro: TFLite"
        " Micro. npu: an accelerator of integers. Operations that it runs slowly, such as hard-swish on a CPU, are"
        " written in others that it runs fast.",
        "input_type": "Type of the values that the app gives to the model.",
        "output_type": "Type of the values that the app gets from the model.",
        "labels": "A text file with one class name per line; the names are stored in the model for Android's Task"
        " library.",
        "nms": "append: also write model_nms.tflite, a detector whose outputs are the boxes that --decoder finds (ssd,"
        " yolo or yolov8), by TFLite's operator for non-maximum suppression. app: that is left to the app.",
        "package": "gzip: also write model.tflite.gz, which an app unpacks itself (docs/android.md).",
        "model_card": "Also write MODEL_CARD.md, which is the README.md of a repository on the Hugging Face Hub.",
        "model_explorer": "Also write error, bits and time of each layer for Google's Model Explorer.",
    },
    "Resources": {
        "memory_limit": "MiB of samples and activations that a step keeps in memory; the rest goes to temporary files.",
        "workers": "Number of processes that reconstruct layers in parallel mode.",
        "engine": "Who works on layers in parallel mode and for a budget: local (processes of tfq), ray or dask"
        " (--workers processes of theirs), or a cluster: ray://host:port, ray:host:port, dask:tcp://host:port. The"
        " result is the same (docs/fleets.md).",
    },
    "Reproducibility": {
        "seed": "Seed of everything random. The same seed and files give the same bytes.",
        "recipe": "The recipe.json of an earlier run. Its settings are used, unless a flag here says otherwise.",
    },
}
"""Heading -> flag -> its help: the fields of a Recipe, and where files go."""


def new_recipe_flags(*, output: str, without: Collection[str] = ()) -> flags.FlagValues:
    """Flags of a command: the fields of a Recipe, save those it is `without`, and where its files (`output`) go."""
    helps = {name: text for group in HELP.values() for name, text in group.items()}
    helps["output_dir"] = f"Folder for {output}."
    values = new_flags({"": {name: helps[name] for name in _FILES}}, _FILES)
    for field in dataclasses.fields(Recipe):
        name, default = _flag(field.name), field.default
        if name in without:
            continue
        if name in CHOICES:
            flags.DEFINE_enum(name, str(default), CHOICES[name], helps[name], flag_values=values)
        elif name in ("input_shape", "pin"):
            flags.DEFINE_multi_string(name, [], helps[name], flag_values=values)
        else:
            kind = str(field.type).removesuffix(" | None")
            start = "" if default is dataclasses.MISSING else [] if default == () else default
            DEFINE[kind](name, start, helps[name], flag_values=values)
    return values


def groups_of(values: flags.FlagValues) -> dict[str, list[str]]:
    """Heading -> those of its flags that the command has."""
    return {heading: [name for name in group if name in values] for heading, group in HELP.items()}


def ledger_from_flags(values: flags.FlagValues, recipe: Recipe) -> Path | None:
    """The journal. Raises UserError where nothing would be written to it."""
    if not values.journal:
        return None
    check_journal_acts(recipe)
    return Path(values.journal)


def recipe_from_flags(values: flags.FlagValues, **fixed: Any) -> Recipe:
    """The one place where flags become a Recipe; the command decides the fields that are `fixed`.

    Raises UserError for what cannot be, or is missing.
    """
    names = [field.name for field in dataclasses.fields(Recipe) if _flag(field.name) in values]
    if not values.recipe:
        recipe = Recipe(**_values(values, names), **fixed)
    else:
        earlier = Recipe.read(Path(values.recipe), what=f"--recipe={values.recipe}")
        given = _values(values, [name for name in names if values[_flag(name)].present])
        recipe = dataclasses.replace(earlier, **given, **fixed)
    missing = [f"--{name}" for name in recipe.missing]
    if missing:
        raise UserError(f"missing {' and '.join(missing)}; tfq-quantize --help lists the flags")
    if values.engine != LOCAL:
        check_engine(values.engine, recipe.workers)
        check_engine_acts(recipe)
    if ":" not in recipe.metric + recipe.decoder:  # the user's own are imported with the libraries
        find_metric(recipe.metric, outputs=recipe.outputs, decoder=recipe.decoder, for_file=recipe.appends_nms)
    return recipe


def check_files(recipe: Recipe) -> None:
    """Raises UserError for a file that the recipe names and that cannot serve, before the libraries are imported.

    That takes seconds, which nobody with a misspelt path should wait.
    """
    from tfq.inputs import Inputs, check_paths
    from tfq.models.model_files import check_model_file

    check_model_file(Path(recipe.model), trusted=recipe.allow_unsafe_deserialization, imports=recipe.imports)
    check_paths(recipe, Inputs.of(recipe))


def _flag(field: str) -> str:
    """The flag of a field of Recipe; no field can be called `import`."""
    return "import" if field == "imports" else field


def _values(values: flags.FlagValues, names: Sequence[str]) -> dict[str, Any]:
    found = {name: values[_flag(name)].value for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
