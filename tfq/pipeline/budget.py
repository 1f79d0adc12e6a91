"""A precision for every layer, where a budget asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfq.allocation.allocate import Allocated, allocate
from tfq.allocation.survey import At, Survey, survey
from tfq.allocation.wish import goal_of, told_in_options
from tfq.calibration.statistics import Range
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.metric import Metric
from tfq.models.graph import Graph
from tfq.models.grids import grid_groups
from tfq.models.widths import activation_bits, is_weighted, units
from tfq.pipeline.begin import Run
from tfq.pipeline.quantized import Start, recalibrated, specified
from tfq.precision import SIMULATED, Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.steps import Setting


def _narrow_ranges(run: Run, graph: Graph) -> Mapping[str, Range] | None:
    """The 4-bit ranges of what weighted layers read, by group, where a candidate asks for them."""
    if not run.recipe.separates_inputs:
        return None
    nodes = [node.name for node in graph.nodes if is_weighted(node)]
    bits = activation_bits(graph, dict.fromkeys(nodes, SIMULATED))
    ranges = recalibrated(run, graph, bits=bits).ranges
    return {group: ranges[group] for group in bits}


def _at(run: Run, start: Start, narrow: Mapping[str, Range] | None) -> At:
    """What models of other precisions start from."""
    graph = start.reference
    reading: dict[str, list[str]] = {}
    if narrow is not None:
        groups = grid_groups(graph)
        reading = {unit.name: [groups[graph[node].inputs[0]] for node in unit.nodes] for unit in units(graph)}

    def at(chosen: Mapping[str, Precision]) -> QuantizedModel:
        few = [group for unit, precision in chosen.items() if precision.is_simulated for group in reading[unit]]
        ranges = {**start.ranges, **{group: (narrow or {})[group] for group in few}}
        return specified(run, graph, ranges, chosen)

    return at


def surveyed(run: Run, start: Start, setting: Setting, ledger: Path | None) -> Survey:
    """What can be chosen."""
    narrow = _narrow_ranges(run, start.reference)
    at = _at(run, start, narrow)
    return survey(
        setting, start.model, at, run.recipe, metric=run.metric, table=run.table, narrow=narrow, ledger=ledger
    )


def within_budget(run: Run, start: Start, setting: Setting, ledger: Path | None) -> tuple[QuantizedModel, Allocated]:
    """A precision for every layer, checked on the file."""
    with run.journal.stage("allocate"):
        found = surveyed(run, start, setting, ledger)
        goal = goal_of(setting.graph, found.units, run.recipe)
        with told_in_options(setting.graph, found.units, run.recipe):
            model, allocated = allocate(found.problem, goal, found.bench, progress=run.resources.progress)
        if not allocated.attained:
            run.journal.warn(_missed(run.recipe, run.metric, allocated))
        if setting.reconstruction is not None:
            run.journal.warn(left_as_they_were(allocated))
    return model, allocated


def left_as_they_were(allocated: Allocated) -> str:
    """One line where the chosen layers lost by a reconstruction in sequence and are as assembled; else nothing."""
    losses: dict[str, list[float]] = {"assembled": [], "reconstructed": []}
    for made in allocated.rounds:
        if made.candidates == allocated.allocation.candidates:
            losses[made.kind].append(made.measured.loss)
    if not losses["reconstructed"] or losses["reconstructed"][-1] not in losses["assembled"]:
        return ""
    return (
        "the reconstruction in sequence made the outputs of the samples that judge worse and was left out: the layers"
        " are as they were fitted one by one"
    )


def _missed(recipe: Recipe, metric: Metric, allocated: Allocated) -> str:
    least = min(r.measured.points for r in allocated.rounds)
    return (
        f"`max_accuracy_drop={recipe.max_accuracy_drop:g}` is not kept: the best model found loses {least:.2f}"
        f" {_unit(metric.unit)} on the calibration samples (estimate and its standard error); this is that model. Offer"
        " more bits or float layers (`candidates`), or give more calibration samples"
    )


def _unit(unit: str) -> str:
    """What a difference of scores is counted in."""
    return "points" if unit in ("%", "points") else unit or "of the metric"


def contradiction(recipe: Recipe, difference: Estimate | None, *, falls: bool = True) -> str:
    """One line where the evaluation data says that the model loses more than the largest drop; else nothing.

    Args:
      difference: of the model's score to float's, with its interval; None where no score was measured.
      falls: a worse model has a lower score.
    """
    most = recipe.max_accuracy_drop
    if most is None or difference is None:
        return ""
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return ""
    lost, least, largest = (-value, -high, -low) if falls else (value, low, high)
    if least <= most:
        return ""
    return (
        f"`max_accuracy_drop` is {most:g}, and on the evaluation data the model loses {lost:.2f}"
        f" {_unit(difference.unit)} [{least:.2f}, {largest:.2f}]: the calibration samples made the loss look smaller;"
        " calibrate with samples that the model was not trained on, with more of them, or ask for a smaller drop"
    )
