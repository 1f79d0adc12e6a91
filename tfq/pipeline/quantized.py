"""From the prepared graph to a quantised model: calibrate, specify, equalise, then one improvement after another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from tfq.calibration.calibrate import Calibration, calibrate
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.data.samples import Samples
from tfq.execution.resources import Resources
from tfq.export.scales import with_legal_scales
from tfq.models.graph import Graph
from tfq.models.widths import activation_bits, units
from tfq.pipeline.begin import Run
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.equalize import equalize, equalize_published, measured_tensors
from tfq.reconstruction.steps import Setting, Step, StepOutcome, wanted
from tfq.simulate.judge import Judge, Verdict
from tfq.targets import TARGETS

BATCH = 32  # samples that run through a model at once
_MEASURED = 64  # samples that the channels' statistics are of
_WORTHWHILE = 0.75  # of the expected error: what is equalised has to be calibrated anew


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A float graph, its calibration, and the model rounded to the nearest that both give.

    Attributes:
      judge: of models made from the graph, for the rest of the run.
      trial: the model with ranges fitted without the samples that judge.
    """

    reference: Graph
    judge: Judge
    calibration: Calibration
    ranges: Mapping[str, Range]
    guard: Verdict | None
    model: QuantizedModel
    trial: QuantizedModel


def _kept_ranges(calibration: Calibration, guard: Verdict | None) -> Mapping[str, Range]:
    """Those of the method asked for, or min-max where the guard rolled them back."""
    return calibration.minmax_ranges if guard is not None and guard.rolled_back else calibration.ranges


def recalibrated(
    run: Run, graph: Graph, *, bits: Mapping[str, int] | None = None, resources: Resources | None = None
) -> Calibration:
    """Without the samples that judge: for versions that they compare, and for other bits of groups of tensors."""
    return _calibrated(run, graph, run.calibration.seen, bits=bits, resources=resources)


def _calibrated(
    run: Run,
    graph: Graph,
    samples: Samples,
    *,
    judges: Collection[int] = (),
    bits: Mapping[str, int] | None = None,
    resources: Resources | None = None,
) -> Calibration:
    """By the recipe's method; judges: their positions in `samples`."""
    return calibrate(
        graph,
        samples.batches(BATCH),
        method=run.recipe.calibration_method,
        total=len(samples),
        judges=judges,
        bits=activation_bits(graph, run.precisions) if bits is None else bits,
        resources=resources or run.resources,
    )


def specified(
    run: Run, graph: Graph, ranges: Mapping[str, Range], chosen: Mapping[str, Precision] | None = None
) -> QuantizedModel:
    """In the recipe's precisions, or with these of the nodes of each unit."""
    recipe, precisions = run.recipe, run.precisions
    if chosen is not None:
        precisions = {node: chosen[unit.name] for unit in units(graph) for node in unit.nodes}
    model = specify(
        graph,
        ranges,
        precisions,
        per_channel=recipe.per_channel,
        input_type=recipe.input_type,
        output_type=recipe.output_type,
    )
    return with_legal_scales(model, TARGETS[recipe.target])


def quantized(run: Run, graph: Graph) -> Start:
    """Calibrated and specified; ranges that lose to min-max at the model's outputs are rolled back."""
    method, samples = run.recipe.calibration_method, run.calibration
    judge = Judge(graph, samples.judging.arrays, resources=run.resources)
    with run.journal.stage("calibrate"):
        calibration = _calibrated(run, graph, samples.samples, judges=samples.roles.judge)
        run.journal.warn(calibration.rollback_note(method))

    with run.journal.stage("specify"):
        guard, trial = None, specified(run, graph, calibration.minmax_trial_ranges)
        if method != "minmax":
            candidate = specified(run, graph, calibration.trial_ranges)
            trial, guard = judge.keep_better((method, candidate), ("minmax", trial))
            if method != "auto":  # which leaves the choice to tfq; the table of steps has it either way
                run.journal.warn(guard.note(f"calibration by {method}"))
        ranges = _kept_ranges(calibration, guard)
        return Start(graph, judge, calibration, ranges, guard, specified(run, graph, ranges), trial)


def equalized(run: Run, start: Start) -> tuple[Start, tuple[StepOutcome, ...]]:
    """The start from the equalised graph where that is asked for, or much is expected of it, and is a gain."""
    graph, recipe = start.reference, run.recipe
    if recipe.equalization_method == "none":
        return start, ()
    with run.journal.stage("equalise"):
        samples = run.calibration.seen.spread(_MEASURED)
        found = channel_statistics(graph, samples, measured_tensors(graph), resources=run.resources)
        if recipe.equalization_method == "published":
            equal = equalize_published(graph, found)
        else:
            asked = recipe.equalization != "default" or not recipe.per_channel
            equal = equalize(
                graph,
                found,
                weight_bits=recipe.weight_bits,
                per_channel=recipe.per_channel,
                worthwhile=math.inf if asked else _WORTHWHILE,
            )
    if equal is graph:
        return start, ()
    candidate = quantized(run, equal)
    proposed = ("equalised", candidate.trial), ("nearest", start.trial)
    _, guard = start.judge.keep_better(*proposed, tolerance=0.0)
    return start if guard.rolled_back else candidate, (StepOutcome("equalisation", (guard,)),)


def setting_of(run: Run, start: Start) -> Setting:
    """What the steps and allocation work with."""

    def recalibrate(graph: Graph) -> Mapping[str, Range]:
        return _kept_ranges(recalibrated(run, graph, resources=run.resources.silent()), start.guard)

    return Setting.of(run.recipe, run.calibration, start.judge, recalibrate, run.resources)


def stepped(
    run: Run, setting: Setting, model: QuantizedModel, steps: Sequence[Step]
) -> tuple[QuantizedModel, tuple[StepOutcome, ...]]:
    """One step after the other, of those that are wanted."""
    outcomes = []
    for step in wanted(steps, setting):
        with run.journal.stage(step.__name__.replace("_", " ")):
            model, outcome = step(setting, model)
        outcomes.append(outcome)
    return model, tuple(outcomes)
