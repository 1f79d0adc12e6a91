"""From the prepared graph to a quantised model: calibrate, specify, equalise, then one improvement after another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.calibration.calibrate import UNCALIBRATED, Calibration, calibrate, edge_tensors
from tfq.calibration.choose import Choice
from tfq.calibration.collect import decides_on_grid
from tfq.calibration.specify import centred_groups, specify
from tfq.calibration.statistics import Range
from tfq.data.preprocess import normalizations
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.execution.resources import Resources
from tfq.export.scales import with_legal_scales
from tfq.models.graph import Graph
from tfq.models.refusals import short_cause
from tfq.models.rewrite import unmoved
from tfq.models.widths import activation_bits, dynamic_units, is_weighted, units
from tfq.pipeline.begin import Run
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.bias_correction import correct_biases
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.equalize import equalize, equalize_published, measured_tensors
from tfq.reconstruction.range_tuning import Candidates, tune_ranges
from tfq.reconstruction.steps import Setting, Step, StepOutcome, wanted
from tfq.simulate.divergence import ends
from tfq.simulate.judge import Judge, Verdict
from tfq.targets import TARGETS

BATCH = 32  # samples that run through a model at once
_BOUNDED = ("Sigmoid", "FloatSigmoid", "Tanh")
_MEASURED = 64  # samples that the channels' statistics are of
_WORTHWHILE = 0.75  # of the expected error: what is equalised has to be calibrated anew


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A float graph, its calibration, and the model rounded to the nearest that both give.

    Attributes:
      judge: of models made from the graph, for the rest of the run.
      trial: the model with ranges fitted without the samples that judge.
      tuned: groups whose range was chosen by what the end of the network loses.
    """

    reference: Graph
    judge: Judge
    calibration: Calibration
    ranges: Mapping[str, Range]
    guard: Verdict | None
    model: QuantizedModel
    trial: QuantizedModel
    tuned: Collection[str] = ()


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
        known=_pixels(run),
        resources=resources or run.resources,
    )


def _pixels(run: Run) -> dict[str, Range]:
    """Of the inputs whose bytes are to be the pixels themselves, as image libraries give them."""
    if run.recipe.input_type != "uint8":
        return {}
    found = normalizations(input_signatures(run.loaded.graph), run.recipe.preprocess)
    return {name: Range(*n(np.array([0, 255])).tolist()) for name, n in found.items() if len(n.mean) == 1}


def specified(
    run: Run, graph: Graph, ranges: Mapping[str, Range], chosen: Mapping[str, Precision] | None = None
) -> QuantizedModel:
    """In the recipe's precisions, or with these of the nodes of each unit."""
    recipe, precisions = run.recipe, run.precisions
    is_dynamic = recipe.precision == "dynamic_range"
    if chosen is not None:
        found = dynamic_units(graph) if is_dynamic else units(graph)
        precisions = {**precisions, **{node: chosen[unit.name] for unit in found for node in unit.nodes}}
    model = specify(
        graph,
        ranges,
        precisions,
        per_channel=recipe.per_channel,
        input_type="float32" if is_dynamic else recipe.input_type,
        output_type="float32" if is_dynamic else recipe.output_type,
    )
    return with_legal_scales(model, TARGETS[recipe.target])


def quantized(run: Run, graph: Graph) -> Start:
    """Calibrated and specified; ranges that lose to min-max at the model's outputs are rolled back."""
    method, samples = run.recipe.calibration_method, run.calibration
    judge = Judge(graph, samples.judging.arrays, resources=run.resources)
    if run.recipe.precision == "dynamic_range":  # no tensor has a range
        model = specified(run, graph, {})
        return Start(graph, judge, UNCALIBRATED, {}, None, model, model)
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
    with run.journal.stage("equalise"):
        proposed = ("equalised", _corrected(run, candidate)), ("nearest", _corrected(run, start))
        _, guard = start.judge.keep_better(*proposed, tolerance=0.0)
    return start if guard.rolled_back else candidate, (StepOutcome("equalisation", (guard,)),)


def _corrected(run: Run, start: Start) -> QuantizedModel:
    """The trial as equalisation is judged: with corrected biases, where the steps behind it will correct them.

    The mean errors of nearest rounding may be larger than all that equalisation takes away.
    """
    if run.recipe.pipeline != "int8" and run.recipe.reconstruction == "none":
        return start.trial
    return correct_biases(start.reference, start.trial, run.calibration.fit, resources=run.resources)


def with_tuned_ranges(run: Run, start: Start) -> tuple[Start, tuple[StepOutcome, ...]]:
    """The start with ranges chosen by what the end of the network loses, where that is wanted and a gain.

    By default where a softmax reads every end, or a layer with weights makes it, as it makes logits, or what bounds
    these. Of an exponential, say, a rare large number counts for much, and few samples do not show it.
    """
    recipe, calibration = run.recipe, start.calibration
    decides = all(end.logits or _is_tame(start.reference, end.tensor) for end in ends(start.reference))
    if not recipe.tunes_ranges or (recipe.range_tuning == "default" and not decides):
        return start, ()
    rolled_back = start.guard is not None and start.guard.rolled_back
    present = calibration.minmax_trial_ranges if rolled_back else calibration.trial_ranges

    def tuned(samples: Samples, choices: Mapping[str, Choice], ranges: Mapping[str, Range]) -> dict[str, Range]:
        candidates = _candidates(start, choices, ranges)
        return tune_ranges(start.reference, samples, candidates, seed=recipe.seed, resources=run.resources)

    with run.journal.stage("tune ranges"):
        try:
            tried = tuned(run.calibration.seen, calibration.trials, present)
        except LookupError as error:
            run.journal.warn(f"ranges are not tuned: {short_cause(error)}")
            return start, ()
        if not tried:
            return start, (StepOutcome("range tuning", ()),)
        trial = specified(run, start.reference, {**present, **tried})
        proposed = ("tuned", with_float_weights(trial)), ("before", with_float_weights(start.trial))
        _, guard = start.judge.keep_better(*proposed, tolerance=0.0)
        if not guard.rolled_back:
            found = tuned(run.calibration.samples, calibration.choices, start.ranges)
            ranges = {**start.ranges, **found}
            model = specified(run, start.reference, ranges)
            start = dataclasses.replace(start, ranges=ranges, model=model, trial=trial, tuned=found)
    return start, (StepOutcome("range tuning", (guard,)),)


def _is_tame(graph: Graph, name: str) -> bool:
    """Whether a layer with weights makes a tensor, or what is only moved to it, or a sigmoid bounds what one makes."""
    node = graph[unmoved(graph, name)[-1]]
    if node.kind in _BOUNDED:
        node = graph[unmoved(graph, node.inputs[0])[-1]]
    return is_weighted(node)


def with_float_weights(model: QuantizedModel) -> QuantizedModel:
    """The same ranges alone: what weights of few bits lose, before they are fitted, would hide the difference."""
    return model.with_nodes(*(node.replace(weight_grids={}) for node in model.layers if node.weight_grids))


def _candidates(start: Start, choices: Mapping[str, Choice], present: Mapping[str, Range]) -> dict[str, Candidates]:
    """What range tuning chooses among, by group of tensors, beside their `present` ranges."""
    graph, model, groups = start.reference, start.model, start.calibration.groups
    left = {groups[name] for name in edge_tensors(graph) if name in groups}
    left |= {groups[node.name] for node in graph.nodes if node.kind == "Embedding" and node.name in groups}
    centred, found = centred_groups(graph), {}
    for group, choice in choices.items():
        members = [n for n, grid in model.grids.items() if groups[n] == group and decides_on_grid(graph[n])]
        if group in left or not members:
            continue
        widest, kept = choice.minmax, present[group]
        if group in centred:
            widest, kept = (Range(-reach, reach) for reach in (max(-r.low, r.high) for r in (widest, kept)))
        found[group] = Candidates(tuple(members), widest, kept, model.grids[members[0]].bits, group in centred)
    return found


def started(run: Run) -> tuple[Start, tuple[StepOutcome, ...]]:
    """Calibrated, equalised and with tuned ranges, each as far as it is wanted."""
    start, equalisation = equalized(run, quantized(run, run.graph))
    start, tuning = with_tuned_ranges(run, start)
    return start, equalisation + tuning


def setting_of(run: Run, start: Start) -> Setting:
    """What the steps and allocation work with."""

    def recalibrate(graph: Graph) -> Mapping[str, Range]:
        return _kept_ranges(recalibrated(run, graph, resources=run.resources.silent()), start.guard)

    options: dict[str, Any] = {"recalibrate": recalibrate, "resources": run.resources}
    return Setting.of(run.recipe, run.calibration, start.judge, distillation=run.distillation, **options)


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
