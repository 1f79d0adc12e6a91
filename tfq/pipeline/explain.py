"""What would mend a model: the remedies of its worst layers, each tried in a run of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfq.errors import UserError
from tfq.execution.progress import SILENT, Progress
from tfq.inputs import Inputs
from tfq.pipeline.road import quantize
from tfq.recipe import Recipe
from tfq.report.report import Report
from tfq.report.trials import Trial
from tfq.report.verdict import more_accurate

# Of another precision of the whole model, which the options of int8 do not concern; and where weights are fitted too.
_KEPT = (
    *("model", "calibration_data", "evaluation_data", "num_calibration_samples", "selection", "preprocess"),
    *(
        "metric",
        "outputs",
        "decoder",
        "nms",
        "annotations",
        "labels",
        "input_shape",
        "memory_limit",
        "seed",
        "imports",
        "allow_unsafe_deserialization",
    ),
)
_FITTED = ("weight_bits", "first_last_bits", "pipeline", "reconstruction", "mode", "granularity", "workers")


def explain(report: Report, inputs: Inputs | None = None, *, progress: Progress = SILENT) -> tuple[Trial, ...]:
    """Run again with each remedy of the report's causes, and with the one that its verdict would name.

    Args:
      report: of a run; its recipe is the one that is changed.
      inputs: as in `quantize`.
      progress: where it is shown.
    """
    recipe = dataclasses.replace(report.recipe, precision=report.precision)
    wanted: dict[tuple[tuple[str, Any], ...], dict[str, str]] = {}  # changes -> cause -> the worst layer that has it
    for cause in report.causes:
        if cause.changes:
            wanted.setdefault(tuple(cause.changes.items()), {}).setdefault(cause.cause, cause.layer)
    if general := more_accurate(recipe):
        wanted.setdefault(tuple(general.items()), {"the verdict's remedy": "all layers"})
    return tuple(
        _tried(recipe, dict(changes), tuple(f"{layer}: {cause}" for cause, layer in why.items()), inputs, progress)
        for changes, why in wanted.items()
    )


def _tried(
    recipe: Recipe, changes: Mapping[str, Any], causes: tuple[str, ...], inputs: Inputs | None, progress: Progress
) -> Trial:
    try:
        if "precision" in changes:
            kept = _KEPT + _FITTED if changes["precision"] == "dynamic_range" else _KEPT
            changed = Recipe(**{name: getattr(recipe, name) for name in kept}, **changes)
        else:
            changed = dataclasses.replace(recipe, **changes)
        return Trial(causes, changes, quantize(changed, inputs, progress=progress).report.evaluation)
    except UserError as error:
        return Trial(causes, changes, None, str(error))
