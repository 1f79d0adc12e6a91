"""What a run works on: a model and samples, as paths or as objects of the caller's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq.data.functions import check_option
from tfq.data.labels import read_labels
from tfq.data.location import check_sources
from tfq.data.objects import Data, Given, given
from tfq.errors import UserError
from tfq.evaluation.own_metric import UserMetric
from tfq.execution.inputs import check_regular
from tfq.input_shapes import as_texts
from tfq.options import SYNTHETIC, check_names
from tfq.recipe import Recipe, live_name

_ARGUMENTS = {"calibration_data": "calibration", "evaluation_data": "evaluation"}  # which the library calls otherwise
_LISTS = ("candidates", "outputs", "imports")  # a text holds them with commas between, as a flag does


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """The model and the samples of a run.

    Attributes:
      model: a path, or a live model of Keras 3 or tf_keras.
      calibration, evaluation, distillation: as `tfq.data.loading.load_samples` takes them; None: there are none of the
        last two.
      metric: its name, or a function; see `tfq.evaluation.metrics.find_metric`.
      labels: names of the classes, or the path of a file that holds them; may be empty.
    """

    model: Any
    calibration: str | Given
    evaluation: str | Given | None = None
    distillation: str | Given | None = None
    metric: str | UserMetric = "top1"
    labels: str | Sequence[str] = ()

    @classmethod
    def of(cls, recipe: Recipe) -> Inputs:
        """What the recipe names."""
        evaluation, distillation = recipe.evaluation_data or None, recipe.distillation_data or None
        return cls(Path(recipe.model), recipe.calibration_data, evaluation, distillation, recipe.metric, recipe.labels)


def taken(
    recipe: Recipe | None, model: Any, calibration: Data | None, evaluation: Data | None, options: Mapping[str, Any]
) -> tuple[Recipe, Inputs]:
    """The recipe of this model, these data and options, which go before those of `recipe`; and model and data.

    Raises UserError for what is missing, or cannot be.
    """
    check_names(options, [field.name for field in dataclasses.fields(Recipe)])
    objects = {"model": model, "calibration_data": calibration, "evaluation_data": evaluation}
    objects |= {name: options[name] for name in ("metric", "labels", "distillation_data") if name in options}
    paths = {name: value for name, value in objects.items() if isinstance(value, (str, os.PathLike))}
    live = {name: value for name, value in objects.items() if value is not None and name not in paths}
    settings = {name: _setting(name, value) for name, value in {**options, **paths}.items()}
    if "input_shape" in settings:
        settings["input_shape"] = as_texts(settings["input_shape"])
    settings |= {name: live_name(value) for name, value in live.items()}
    wanted = Recipe(**({"model": ""} | settings)) if recipe is None else dataclasses.replace(recipe, **settings)
    missing = [f"`{_ARGUMENTS.get(name, name)}`" for name in wanted.missing if name not in live]
    if missing:
        raise UserError(f"missing {' and '.join(missing)}; give an object or a path")
    named, further = Inputs.of(wanted), live.get("distillation_data")
    return wanted, Inputs(
        live.get("model", named.model),
        named.calibration if calibration is None else given(calibration, "the calibration data"),
        named.evaluation if evaluation is None else given(evaluation, "the evaluation data"),
        named.distillation if further is None else given(further, "the distillation data"),
        live.get("metric", named.metric),
        live.get("labels", named.labels),
    )


def check_paths(recipe: Recipe, inputs: Inputs) -> None:
    """Raises UserError where nothing is to be read at a path of data, or by the name of a function of the user's.

    It needs no TensorFlow, and runs nothing of the user's. The model's file has a check of its own
    (`tfq.models.model_files`).

    Args:
      recipe, inputs: of one run.
    """
    calibration = None if inputs.calibration == SYNTHETIC else inputs.calibration
    check_sources(calibration, inputs.evaluation, inputs.distillation, annotations=recipe.annotations)
    read_labels(inputs.labels)
    if recipe.latency_table:
        check_regular(Path(recipe.latency_table), f"the latency table {recipe.latency_table}")
    for option, value in (("metric", inputs.metric), ("decoder", recipe.decoder)):
        if isinstance(value, str) and ":" in value.partition(",")[0]:
            check_option(option, value)


def _setting(name: str, value: Any) -> Any:
    """An option as a recipe holds it: paths as texts, numbers of NumPy as Python's, lists as tuples."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) and name in _LISTS:
        return tuple(value.split(","))
    if isinstance(value, str) and name == "pin":
        return (value,)
    return tuple(value) if isinstance(value, list) else value
