"""From the prepared graph to a quantised model: calibrate, specify, equalise, then one improvement after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.calibration.calibrate import Calibration, calibrate
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.data.roles import Roles
from tfq.data.samples import Samples
from tfq.execution.journal import Journal
from tfq.execution.progress import Progress, Silent
from tfq.models.graph import Graph
from tfq.models.widths import activation_bits, units
from tfq.pipeline.begin import Begun
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.equalize import equalize, equalize_published, measured_tensors
from tfq.reconstruction.steps import Setting, Step, StepOutcome, judging
from tfq.simulate.judge import Judge, Verdict

BATCH = 32  # samples that run through a model at once


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A float graph, its calibration, and the model rounded to the nearest that both give.

    Attributes:
      trial: the model with ranges fitted without the samples that judge.
    """

    reference: Graph
    calibration: Calibration
    ranges: Mapping[str, Range]
    guard: Verdict | None
    model: QuantizedModel
    trial: QuantizedModel


def _kept_ranges(calibration: Calibration, guard: Verdict | None) -> Mapping[str, Range]:
    """Those of the method asked for, or min-max where the guard rolled them back."""
    return calibration.minmax_ranges if guard is not None and guard.rolled_back else calibration.ranges


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What all stops between preparation and export work with."""

    recipe: Recipe
    precisions: Mapping[str, Precision]
    samples: Samples
    roles: Roles
    journal: Journal
    progress: Progress

    @classmethod
    def of(cls, begun: Begun) -> Run:
        return cls(begun.recipe, begun.precisions, begun.samples, begun.roles, begun.journal, begun.progress)

    def judge(self, graph: Graph) -> Judge:
        return Judge(graph, judging(self.samples.arrays, self.roles))

    def calibrated(self, graph: Graph) -> Calibration:
        """By the recipe's method, on all samples, and for comparisons without those that judge."""
        return self._calibrated(graph, None, judges=self.roles.judge, bits=None, progress=self.progress)

    def recalibrated(
        self, graph: Graph, *, bits: Mapping[str, int] | None = None, progress: Progress | None = None
    ) -> Calibration:
        """Without the samples that judge: for versions that they compare, and for other bits of groups of tensors."""
        return self._calibrated(graph, self.roles.seen, judges=(), bits=bits, progress=progress or self.progress)

    def _calibrated(
        self,
        graph: Graph,
        positions: np.ndarray | None,
        *,
        judges: Collection[int],
        bits: Mapping[str, int] | None,
        progress: Progress,
    ) -> Calibration:
        return calibrate(
            graph,
            self.samples.batches(BATCH, positions),
            method=self.recipe.calibration_method,
            total=len(self.samples if positions is None else positions),
            judges=judges,
            bits=activation_bits(graph, self.precisions) if bits is None else bits,
            progress=progress,
        )

    def specified(
        self, graph: Graph, ranges: Mapping[str, Range], chosen: Mapping[str, Precision] | None = None
    ) -> QuantizedModel:
        """In the recipe's precisions, or with these of the nodes of each unit."""
        recipe, precisions = self.recipe, self.precisions
        if chosen is not None:
            precisions = {node: chosen[unit.name] for unit in units(graph) for node in unit.nodes}
        return specify(
            graph,
            ranges,
            precisions,
            per_channel=recipe.per_channel,
            input_type=recipe.input_type,
            output_type=recipe.output_type,
        )


def quantized(run: Run, graph: Graph) -> Start:
    """Calibrated and specified; ranges that lose to min-max at the model's outputs are rolled back."""
    method = run.recipe.calibration_method
    with run.journal.stage("calibrate"):
        calibration = run.calibrated(graph)
        run.journal.warn(calibration.rollback_note(method))

    with run.journal.stage("specify"):
        guard, trial = None, run.specified(graph, calibration.minmax_trial_ranges)
        if method != "minmax":
            candidate = run.specified(graph, calibration.trial_ranges)
            trial, guard = run.judge(graph).keep_better((method, candidate), ("minmax", trial))
            run.journal.warn(guard.note(f"calibration by {method}"))
        ranges = _kept_ranges(calibration, guard)
        return Start(graph, calibration, ranges, guard, run.specified(graph, ranges), trial)


def equalized(run: Run, start: Start) -> tuple[Start, tuple[StepOutcome, ...]]:
    """The start from the equalised graph where that is asked for, and is a gain."""
    graph, recipe = start.reference, run.recipe
    if recipe.equalization_method == "none":
        return start, ()
    with run.journal.stage("equalise"):
        seen, tensors = run.roles.seen, measured_tensors(graph)
        batches = run.samples.batches(BATCH, seen)
        found = channel_statistics(graph, batches, tensors, total=len(seen), progress=run.progress)
        equal = (
            equalize_published(graph, found)
            if recipe.equalization_method == "published"
            else equalize(graph, found, weight_bits=recipe.weight_bits, per_channel=recipe.per_channel)
        )
    candidate = quantized(run, equal)
    proposed = ("equalised", candidate.trial), ("nearest", start.trial)
    _, guard = run.judge(graph).keep_better(*proposed, tolerance=0.0)
    return start if guard.rolled_back else candidate, (StepOutcome("equalisation", (guard,)),)


def setting_of(run: Run, start: Start) -> Setting:
    """What the steps and allocation work with."""

    def recalibrate(graph: Graph) -> Mapping[str, Range]:
        return _kept_ranges(run.recalibrated(graph, progress=Silent()), start.guard)

    options: dict[str, Any] = {"roles": run.roles, "progress": run.progress}
    return Setting.of(run.recipe, start.reference, run.samples.arrays, recalibrate, **options)


def stepped(
    run: Run, setting: Setting, model: QuantizedModel, steps: Sequence[Step]
) -> tuple[QuantizedModel, tuple[StepOutcome, ...]]:
    """One step after the other."""
    outcomes = []
    for step in steps:
        with run.journal.stage(step.__name__.replace("_", " ")):
            model, outcome = step(setting, model)
        outcomes.append(outcome)
    return model, tuple(outcomes)
