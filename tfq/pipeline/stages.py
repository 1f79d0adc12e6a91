"""The stages of a run, for whoever waits: what the journal calls them, their order and their shares of the time.

Shares, in no unit, are guesses from runs of small models; the time that is left is told by them and by the pace of the
run itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tfq.execution.progress import Planned
from tfq.recipe import Recipe
from tfq.reconstruction.network_tuning import DISTILLATION
from tfq.reconstruction.steps import FITTING, TUNING
from tfq.report.words import stage

_BEGIN: dict[str, float] = {
    "load the model": 5,
    "load the samples": 2,
    "prepare the model": 8,
    "export the float baseline": 8,
}
_START: dict[str, float] = {
    "calibrate": 4,
    "specify": 2,
    "equalise": 6,
    "tune ranges": 15,
}
_DISTILLATION = 400  # of as many steps as there are by default
_STEPS: dict[str, float] = {
    "correct all biases": 12,
    "fit weight scales": 2,
    "reconstruct layers": 80,
    "tune batch norms": 10,
    "tune whole network": 60,
    "reconstruct in sequence": 80,
    "distil": _DISTILLATION,
}
_ALLOCATE: dict[str, float] = {"allocate": 200}
_EXPLORE: dict[str, float] = {
    "survey": 150,
    "frontier": 60,
}
_EXPORT: dict[str, float] = {
    "export": 15,
    "verify": 10,
}
_END: dict[str, float] = {
    "package": 1,
    "append NMS": 2,
    "evaluate": 10,
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
        fitting["distil"] = _DISTILLATION * recipe.distillation_steps / DISTILLATION.steps
    export = {} if recipe.simulated else _EXPORT
    plan = _BEGIN | (_START | fitting | export if recipe.fits else {"export": _EXPORT["export"]}) | _END
    return _planned({name: share for name, share in plan.items() if not idle.get(name, False)})


def _named(steps: Iterable[str]) -> dict[str, float]:
    """Of steps of the pipeline, as the journal calls their stages."""
    names = (step.replace("_", " ") for step in steps)
    return {name: _STEPS[name] for name in names}


def _planned(shares: Mapping[str, float]) -> dict[str, Planned]:
    return {name: Planned(stage(name), share) for name, share in shares.items()}


def plan_of_frontier() -> dict[str, Planned]:
    """The stages of `explore`."""
    end = {name: _END[name] for name in ("evaluate", "package")}
    return _planned(_BEGIN | _START | _EXPLORE | end)
