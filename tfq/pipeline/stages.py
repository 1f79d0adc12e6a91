"""The stages of a run in plain words, for whoever waits: what the journal calls them, their order and their shares.

Shares are guesses from runs of small models; the time that is left is told by them and by the pace of the run itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tfq.execution.progress import Planned
from tfq.recipe import Recipe
from tfq.reconstruction.network_tuning import DISTILLATION
from tfq.reconstruction.steps import FITTING, TUNING

_BEGIN = {
    "load the model": Planned("load the model", 5),
    "load the samples": Planned("load the samples", 2),
    "prepare the model": Planned("simplify the model", 8),
    "export the float baseline": Planned("write the float model", 8),
}
_START = {
    "calibrate": Planned("measure what values tensors have", 4),
    "specify": Planned("give every tensor a grid", 2),
    "equalise": Planned("see whether channels can be evened out", 6),
    "tune ranges": Planned("tune the ranges", 15),
}
_DISTILLATION = 400  # of as many steps as there are by default
_STEPS = {
    "correct_all_biases": Planned("correct the biases", 12),
    "fit_weight_scales": Planned("fit the scales of weights", 2),
    "reconstruct_layers": Planned("fit the weights, layer by layer", 80),
    "tune_batch_norms": Planned("tune the batch norms", 10),
    "tune_whole_network": Planned("tune the whole network", 60),
    "reconstruct_in_sequence": Planned("fit the weights once more, in sequence", 80),
    "distil": Planned("learn from the float model", _DISTILLATION),
}
_ALLOCATE = {"allocate": Planned("choose a precision for every layer", 200)}
_EXPLORE = {
    "survey": Planned("measure what every layer loses", 150),
    "frontier": Planned("put models of every size together", 60),
}
_EXPORT = {
    "export": Planned("write the .tflite", 15),
    "verify": Planned("verify the .tflite", 10),
}
_END = {
    "package": Planned("describe the .tflite", 1),
    "append NMS": Planned("append the suppression of doubles", 2),
    "evaluate": Planned("compare with the float model", 10),
}


def plan_of(recipe: Recipe) -> dict[str, Planned]:
    """The stages of `quantize`, as far as the recipe tells them; ones that turn out to be needless are passed over."""
    idle = {
        "append NMS": not recipe.appends_nms,
        "tune ranges": not recipe.tunes_ranges,
        "equalise": recipe.equalization_method == "none",
        "reconstruct in sequence": recipe.mode == "sequential",
        "tune whole network": recipe.network_tuning != "always",
        "tune batch norms": recipe.batch_norm_tuning != "always",
        "distil": not recipe.distills,
    }
    fitting = _ALLOCATE if recipe.allocates else _named(step.__name__ for step in FITTING[recipe.pipeline])
    fitting = fitting | _named(step.__name__ for step in TUNING[recipe.pipeline])
    if recipe.distills:
        share = _DISTILLATION * recipe.distillation_steps / DISTILLATION.steps
        fitting["distil"] = dataclasses.replace(fitting["distil"], share=share)
    export = {} if recipe.simulated else _EXPORT
    plan = _BEGIN | (_START | fitting | export if recipe.fits else {"export": _EXPORT["export"]}) | _END
    return {name: stage for name, stage in plan.items() if not idle.get(name, False)}


def _named(steps: Iterable[str]) -> dict[str, Planned]:
    """Of steps of the pipeline, as the journal calls their stages."""
    return {name.replace("_", " "): _STEPS[name] for name in steps}


def plan_of_frontier() -> dict[str, Planned]:
    """The stages of `explore`."""
    end = {name: _END[name] for name in ("evaluate", "package")}
    return _BEGIN | _START | _EXPLORE | end
