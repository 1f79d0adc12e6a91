"""Runs of the whole road: `tfq.quantize` and `tfq.explore`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from tfq import pipeline
from tfq.data.objects import Data
from tfq.errors import UserError
from tfq.evaluation.own_metric import UserMetric
from tfq.execution.ledger import check_journal
from tfq.execution.progress import Progress, shown
from tfq.inputs import taken
from tfq.models.settings import standard_settings
from tfq.options import check_engine_acts, check_journal_acts
from tfq.recipe import UNBOUND, Recipe
from tfq.report.frontier import FrontierReport
from tfq.result import Result

if TYPE_CHECKING:
    import keras
    import tf_keras
    from typing_extensions import Unpack

    Model: TypeAlias = keras.Model | tf_keras.Model | str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The options of a run: those of `Recipe` but model and data."""

    precision: str
    pipeline: str
    reconstruction: str
    mode: str
    granularity: str
    range_tuning: str
    batch_norm_tuning: str
    network_tuning: str
    equalization: str
    distill: bool
    distillation_data: Data
    distillation_steps: int
    weight_bits: int
    activation_bits: int
    first_last_bits: int
    weight_clusters: int
    max_accuracy_drop: float | None
    size_budget: float | None
    latency_budget: str
    latency_table: str | os.PathLike[str]
    compute_budget: float | None
    objective: str
    candidates: Sequence[str]
    pin: Sequence[str]
    sensitivity: str
    per_channel: bool
    calibration_method: str
    num_calibration_samples: int
    selection: str
    preprocess: str
    storage: str
    package: str
    model_card: bool
    model_explorer: bool
    input_type: str
    output_type: str
    metric: str | UserMetric
    outputs: Sequence[str]
    decoder: str
    nms: str
    annotations: str | os.PathLike[str]
    labels: str | os.PathLike[str] | Sequence[str]
    target: str
    memory_limit: int
    workers: int
    seed: int
    allow_unsafe_deserialization: bool
    imports: Sequence[str]
    input_shape: Sequence[int] | Mapping[str, Sequence[int]]


class FrontierOptions(Options, total=False):
    """The options of a frontier: those of a run, and which of its points are written."""

    write: Collection[str]


def quantize(
    model: Model | None = None,
    calibration: Data | None = None,
    *,
    evaluation: Data | None = None,
    recipe: Recipe | None = None,
    journal: str | os.PathLike[str] | None = None,
    progress: Progress | bool = False,
    executor: Executor | None = None,
    **options: Unpack[Options],
) -> Result:
    """Quantise a model, verify the .tflite, and measure it against the float model.

        result = tfq.quantize(model, x, evaluation=(x_test, y_test), weight_bits=4, pipeline="advanced")
        result.save("out")

    Args:
      model: a live Keras 3 or tf_keras model, or the path of a .keras or .h5 file, a SavedModel folder or a float
        .tflite.
      calibration: a few hundred inputs in the units that the model expects; labels are not needed. An array [n, ...],
        a dict of arrays by input name, (x, y), an iterable of samples or batches, a function that gives one, a
        `tf.data.Dataset`, or what the commands take: the path of an .npz, .npy, TFRecord file or folder of images, or
        "module:function". `tfq.data.objects` says exactly what. Of an endless one no more than
        `num_calibration_samples` are taken. "synthetic" makes them from the model (`tfq.data.synthetic`).
      evaluation: samples to measure on, of the same forms, for accuracy as (x, y). The model is never tuned on them.
        Without any, agreement with the float model is measured on calibration samples that are used for nothing else.
      recipe: settings of an earlier run, as `result.report.recipe`; what is given beside it goes first.
      journal: file that keeps the measurements of layers for a budget; a run that was killed continues from it.
      progress: True shows it on standard error.
      executor: takes the work on layers in parallel mode and for a budget: any of `concurrent.futures`, or that of
        `tfq.engine`. The bytes do not depend on it. Whoever made it shuts it down.
      options: fields of `Recipe`, which says what they mean; `tfq-quantize --help` explains each. `metric` may be a
        function of (outputs, labels) or (outputs, labels, inputs) too, `labels` a list of names, `distillation_data`
        of the forms of `calibration`.

    Raises:
      UserError: anything the caller can put right: what was got, what is expected, what to do.
      VerificationError: the exported file is not what was specified.
    """
    wanted, inputs = taken(recipe, model, calibration, evaluation, options)
    ledger = _ledger(journal, wanted)
    if executor is not None:
        check_engine_acts(wanted)
    with standard_settings():
        told = shown(progress, pipeline.plan_of(wanted))
        return pipeline.quantize(wanted, inputs, ledger=ledger, progress=told, executor=executor)


def explore(
    model: Model | None = None,
    calibration: Data | None = None,
    *,
    evaluation: Data | None = None,
    recipe: Recipe | None = None,
    points: int = 12,
    reconstruct: bool = False,
    journal: str | os.PathLike[str] | None = None,
    progress: Progress | bool = False,
    **options: Unpack[FrontierOptions],
) -> FrontierReport:
    """What accuracy every size of the model costs and, with `latency_table`, every latency.

    Args:
      model, calibration, evaluation, recipe, journal, progress: as in `quantize`; the pipeline is "advanced" where no
        recipe is given, and budgets are not taken.
      points: how many size budgets, from the smallest model to the best; with a latency table as many of latency too.
      reconstruct: reconstruct every point in sequence, as `quantize` does with its budget: better models, but each
        takes as long as a run.
      options: as in `quantize`, and `write`: points whose files are wanted, as ["point_1", "point_3"] or ["all"];
        `save` writes point_1.tflite and so on.

    Raises:
      UserError: as `quantize` does.
    """
    write = options.pop("write", ())
    if not isinstance(points, int) or points < 2:
        raise UserError(f"`points` is {points!r}; it must be a whole number of at least 2")
    for name in options:
        if name in UNBOUND:
            raise UserError(f"`{name}` is given, and a frontier has models of every size and accuracy; leave it out")
    start: dict[str, Any] = {} if recipe is not None else {"pipeline": "advanced"}
    wanted, inputs = taken(recipe, model, calibration, evaluation, start | options | UNBOUND)
    ledger = _ledger(journal, wanted)
    with standard_settings():
        return pipeline.explore(
            wanted,
            inputs,
            points=points,
            reconstruct=reconstruct,
            write=write,
            ledger=ledger,
            progress=shown(progress, pipeline.plan_of_frontier()),
        )


def _ledger(journal: str | os.PathLike[str] | None, recipe: Recipe) -> Path | None:
    """The journal's path. Raises UserError where it would hold nothing or cannot be written."""
    if journal is None:
        return None
    check_journal_acts(recipe)
    check_journal(Path(journal))
    return Path(journal)
