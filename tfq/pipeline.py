"""The road from a Keras model to a measured .tflite. It holds no algorithm: every line is a stop.

    pipeline     load  prepare  equalise  calibrate  specify  improve  export  verify  evaluate
    int8          x       x        (x)        x         x                x       x        x
    light         x       x        (x)        x         x        x       x       x        x
    advanced      x       x        (x)        x         x        x       x       x        x

Improve, as in Hubara et al. 2020 (arXiv:2006.10518), table of the light and the advanced pipeline:

    pipeline     weight scales  reconstruction  batch-norm tuning  bias tuning  sequential reconstruction
    light             x              (x)                x
    advanced          x               x                 x               x        x, after a parallel one

With a budget the first two are allocation's: it fits every layer at every precision, chooses, and reconstructs what it
chose in sequence. (x): on request. Every step is kept only where samples gain by it that had no part in it
(`tfq.reconstruction.steps`); which samples do what, `tfq.data.roles` says.
`--precision` other than int8 hands the prepared model to TFLiteConverter's own whole-model exports.
`--activation_bits` below 8 ends in a simulation: nothing is exported or verified, and the simulation is evaluated.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq import __version__
from tfq.allocation.allocate import Allocated, allocate
from tfq.allocation.frontier import budgets_between, frontier
from tfq.allocation.latency_table import LatencyTable, read_table
from tfq.allocation.survey import At, Survey, survey
from tfq.allocation.wish import LATENCY, WEIGHTS, Wish, float_bytes, goal_of
from tfq.calibration.calibrate import Calibration, calibrate
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.data.checks import compare_ranges
from tfq.data.labels import label_notes, read_labels
from tfq.data.loading import load_samples
from tfq.data.roles import Roles
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.errors import UserError
from tfq.evaluation.evaluate import Evaluation, Simulated, check_metric, evaluate
from tfq.evaluation.layers import layer_errors
from tfq.evaluation.metrics import UserMetric, find_metric
from tfq.execution.journal import Journal
from tfq.execution.progress import Progress, Silent
from tfq.export.convert import RepresentativeDataset
from tfq.export.package import describe, export_plain, export_quantized, gzipped
from tfq.export.plain import plain_model
from tfq.inputs import Inputs
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph
from tfq.models.grids import grid_groups
from tfq.models.load import LoadedModel, load_model
from tfq.models.prepare import Prepared, prepare
from tfq.models.wide import find_wide
from tfq.models.widths import activation_bits, assign_precisions, is_weighted, separate_inputs, units
from tfq.precision import SIMULATED, Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.equalize import equalize, equalize_published, measured_tensors
from tfq.reconstruction.steps import FITTING, TUNING, Setting, Step, StepOutcome, judging
from tfq.report.frontier import BASE, FrontierReport
from tfq.report.page import page
from tfq.report.report import Report, layer_reports, model_facts, tensor_reports
from tfq.result import Result
from tfq.simulate.judge import Judge, Verdict
from tfq.simulate.wrap import simulate
from tfq.spec import Specification
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity, output_parity, parity_note
from tfq.verify.runtimes import verify_runtimes
from tfq.verify.structure import verify_structure

_BATCH = 32
# Samples that the stops take where not all are needed.
_PREPARATION, _SPREAD, _REPRESENTATIVE, _LAYERS, _PARITY = 8, 64, 100, 4, 32


def quantize(
    recipe: Recipe, inputs: Inputs | None = None, *, ledger: Path | None = None, progress: Progress | None = None
) -> Result:
    """Run the whole road; nothing is written but the ledger.

    Args:
      recipe: what is wanted.
      inputs: model and samples, by default what the recipe names.
      ledger: file that keeps the sensitivities of allocation as they are measured: a killed run goes on from there.
      progress: where it is shown.

    Raises:
      UserError: anything the user can put right.
      VerificationError: the exported file is not what was specified.
    """
    progress, journal = progress or Silent(), Journal()
    begun = _begun(recipe, inputs or Inputs.of(recipe), journal, progress)
    loaded, prepared, graph, files = begun.loaded, begun.prepared, begun.graph, {"float.tflite": begun.baseline}
    representative = begun.representative

    if recipe.precision == "int8":
        run = begun.run
        start, equalisation = _equalized(run, _quantized(run, graph))
        setting = _setting(run, start)
        allocated: Allocated | None = None
        fits: tuple[StepOutcome, ...] = ()
        if recipe.allocates:
            fitted, allocated = _allocated(run, start, setting, begun.table, ledger)
        else:
            fitted, fits = _stepped(run, setting, start.model, FITTING[recipe.pipeline])
        model, tunings = _stepped(run, setting, fitted, TUNING[recipe.pipeline])
        steps = equalisation + fits + tunings
        measured: dict[str, Any] = {
            "calibration_cost": start.calibration.cost,
            "guard": start.guard,
            "steps": steps,
            "allocation": allocated,
            "tensors": tensor_reports(model, start.calibration, start.guard),
            "layers": layer_reports(model, steps=steps),
        }
        if not recipe.simulated:
            with journal.stage("export"):
                content = files["model.tflite"] = export_quantized(model, representative, progress=progress)
            with journal.stage("verify"):
                measured["verification"] = verify_structure(content, model)
                measured |= _compare(content, model, start.reference, steps, begun.unseen, journal, progress)
    else:
        with journal.stage("export"):
            content = files["model.tflite"] = export_plain(graph, recipe.precision, representative, progress=progress)
            model = plain_model(content, graph, recipe.precision)
            measured = {"layers": layer_reports(model)}

    with journal.stage("package"):
        described = functools.partial(
            describe, loaded=loaded, samples=begun.samples, labels=begun.labels, recipe=recipe
        )
        files = {name: described(content) for name, content in files.items()}
        for name, content in files.items():
            verify_runtimes(content, begun.few.arrays, name=name)
    with journal.stage("evaluate"):
        evaluation = _evaluate(begun, files, model)
    if recipe.package == "gzip":
        files["model.tflite.gz"] = gzipped(files["model.tflite"])

    report = Report(
        version=__version__,
        recipe=recipe,
        model=model_facts(loaded, prepared),
        calibration_samples=begun.calibration_samples,
        preparation=prepared.checks,
        evaluation=evaluation,
        package_bytes=len(files["model.tflite.gz"]) if recipe.package == "gzip" else None,
        stages=tuple(journal.stages),
        warnings=tuple(journal.warnings),
        **measured,
    )
    texts = {
        "spec.json": Specification.of(model).to_json(),
        "recipe.json": recipe.to_json(),
        "report.json": report.to_json(),
    }
    texts["report.html"] = page(json.loads(texts["report.json"]))
    return Result(files | {name: text.encode() for name, text in texts.items()}, report)


@dataclasses.dataclass(frozen=True, eq=False)
class _Begun:
    """What every road begins with: model and samples loaded and checked, the model prepared, the float baseline.

    Attributes:
      samples, roles: the calibration samples but those of the report, and what each is for.
      unseen: what models are judged by in the end: evaluation data, or those of the report without their labels.
    """

    recipe: Recipe
    metric: str | UserMetric
    loaded: LoadedModel
    labels: Sequence[str]
    table: LatencyTable | None
    samples: Samples
    roles: Roles
    unseen: Samples
    calibration_samples: int
    prepared: Prepared
    graph: Graph
    precisions: Mapping[str, Precision]
    baseline: bytes
    journal: Journal
    progress: Progress

    @property
    def few(self) -> Samples:
        return self.samples.head(_PREPARATION)

    @property
    def representative(self) -> RepresentativeDataset:
        return self.samples.head(_REPRESENTATIVE).representative_dataset()

    @property
    def run(self) -> _Run:
        return _Run(self.recipe, self.precisions, self.samples, self.roles, self.journal, self.progress)


def _begun(recipe: Recipe, inputs: Inputs, journal: Journal, progress: Progress) -> _Begun:
    find_metric(inputs.metric)  # what can be told before the model is read
    table = read_table(Path(recipe.latency_table)) if recipe.latency_table else None
    with journal.stage("load the model"):
        loaded = load_model(inputs.model, allow_unsafe_deserialization=recipe.allow_unsafe_deserialization)
        labels = read_labels(inputs.labels)
    with journal.stage("load the samples"):
        given, evaluation_samples = _samples(recipe, inputs, loaded.graph, labels, journal, progress)
        samples, roles, unseen = _by_role(given, evaluation_samples, journal)
    with journal.stage("prepare the model"):
        few = samples.head(_PREPARATION).arrays
        wide = find_wide(loaded.graph, samples.head(_SPREAD).arrays) if recipe.precision == "int8" else None
        prepared = prepare(loaded.graph, few, original=loaded, seed=recipe.seed, progress=progress, wide=wide)
        journal.warn(*prepared.notes)
        output = tensor_shapes(prepared.graph)[prepared.graph.outputs[0]]
        for found in (samples, evaluation_samples):
            journal.warn(*label_notes(labels, () if labels or found is None else found.class_names, output))
        wanted = Precision("int8", recipe.weight_bits, recipe.storage, recipe.activation_bits)
        graph, precisions = assign_precisions(prepared.graph, wanted, first_last_bits=recipe.first_last_bits)
        if recipe.separates_inputs:
            graph = separate_inputs(graph, [node.name for node in graph.nodes if is_weighted(node)], apart=True)
    with journal.stage("export the float baseline"):
        representative = samples.head(_REPRESENTATIVE).representative_dataset()
        baseline = export_plain(prepared.graph, "float32", representative, progress=progress)
        if evaluation_samples is not None:
            check_metric(inputs.metric, baseline, evaluation_samples)
    return _Begun(
        recipe,
        inputs.metric,
        loaded,
        labels,
        table,
        samples,
        roles,
        unseen,
        len(given),
        prepared,
        graph,
        precisions,
        baseline,
        journal,
        progress,
    )


def _samples(
    recipe: Recipe, inputs: Inputs, graph: Graph, labels: Sequence[str], journal: Journal, progress: Progress
) -> tuple[Samples, Samples | None]:
    """(calibration samples, evaluation samples)."""
    signatures = input_signatures(graph)
    options: dict[str, Any] = {"preprocess": recipe.preprocess, "seed": recipe.seed, "progress": progress}
    options["class_names"] = labels
    samples = load_samples(
        inputs.calibration,
        signatures,
        limit=recipe.num_calibration_samples,
        selection=recipe.selection,
        **options,
    )
    journal.warn(*samples.warnings)
    if inputs.evaluation is None:
        return samples, None
    evaluation_samples = load_samples(inputs.evaluation, signatures, limit=None, **options)
    journal.warn(*evaluation_samples.warnings, *compare_ranges(samples, evaluation_samples))
    return samples, evaluation_samples


def _by_role(samples: Samples, evaluation_samples: Samples | None, journal: Journal) -> tuple[Samples, Roles, Samples]:
    """(samples that may have a part in the model, their roles, samples that may not, by which it is judged)."""
    roles = Roles.of(len(samples), report=evaluation_samples is None)
    shortage = roles.shortage(report=evaluation_samples is None)
    if shortage:
        journal.warn(shortage)
    if evaluation_samples is not None:
        return samples, roles, evaluation_samples
    journal.warn(
        f"no `evaluation`: agreement with float is measured on {len(roles.reporting)} of the {len(samples)}"
        " calibration samples, which are used for nothing else; accuracy is not measured"
        if len(roles.report)
        else "no `evaluation`: agreement with float is measured on a calibration sample, accuracy is not"
    )
    unseen = dataclasses.replace(samples.take(roles.reporting), labels=None)
    if len(roles.report):
        samples = samples.take(np.setdiff1d(np.arange(len(samples)), roles.report))
    return samples, roles.without_report(), unseen


@dataclasses.dataclass(frozen=True, eq=False)
class _Start:
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
class _Run:
    """What all stops between preparation and export work with."""

    recipe: Recipe
    precisions: Mapping[str, Precision]
    samples: Samples
    roles: Roles
    journal: Journal
    progress: Progress

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
            self.samples.batches(_BATCH, positions),
            method=self.recipe.calibration_method,
            percentile=self.recipe.percentile,
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


def _quantized(run: _Run, graph: Graph) -> _Start:
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
        return _Start(graph, calibration, ranges, guard, run.specified(graph, ranges), trial)


def _equalized(run: _Run, start: _Start) -> tuple[_Start, tuple[StepOutcome, ...]]:
    """The start from the equalised graph where that is asked for, and is a gain."""
    graph, recipe = start.reference, run.recipe
    if recipe.equalization_method == "none":
        return start, ()
    with run.journal.stage("equalise"):
        seen, tensors = run.roles.seen, measured_tensors(graph)
        batches = run.samples.batches(_BATCH, seen)
        found = channel_statistics(graph, batches, tensors, total=len(seen), progress=run.progress)
        equal = (
            equalize_published(graph, found)
            if recipe.equalization_method == "published"
            else equalize(graph, found, weight_bits=recipe.weight_bits, per_channel=recipe.per_channel)
        )
    candidate = _quantized(run, equal)
    proposed = ("equalised", candidate.trial), ("nearest", start.trial)
    _, guard = run.judge(graph).keep_better(*proposed, tolerance=0.0)
    return start if guard.rolled_back else candidate, (StepOutcome("equalisation", (guard,)),)


def _setting(run: _Run, start: _Start) -> Setting:
    """What the steps and allocation work with."""

    def recalibrate(graph: Graph) -> Mapping[str, Range]:
        return _kept_ranges(run.recalibrated(graph, progress=Silent()), start.guard)

    options: dict[str, Any] = {"roles": run.roles, "progress": run.progress}
    return Setting.of(run.recipe, start.reference, run.samples.arrays, recalibrate, **options)


def _stepped(
    run: _Run, setting: Setting, model: QuantizedModel, steps: Sequence[Step]
) -> tuple[QuantizedModel, tuple[StepOutcome, ...]]:
    """One step after the other."""
    outcomes = []
    for step in steps:
        with run.journal.stage(step.__name__.replace("_", " ")):
            model, outcome = step(setting, model)
        outcomes.append(outcome)
    return model, tuple(outcomes)


def _wish(recipe: Recipe) -> Wish:
    return Wish(
        max_drop=recipe.max_accuracy_drop,
        size_budget=recipe.size_budget,
        latency_budget=recipe.latency_budget_ms,
        compute_budget=recipe.compute_budget,
        objective=recipe.objective,
        candidates=recipe.candidates,
        pins=recipe.pins,
        storage=recipe.storage,
        sensitivity=recipe.sensitivity,
    )


def _narrow_ranges(run: _Run, graph: Graph) -> Mapping[str, Range] | None:
    """The 4-bit ranges of what weighted layers read, by group, where a candidate asks for them."""
    if not run.recipe.separates_inputs:
        return None
    nodes = [node.name for node in graph.nodes if is_weighted(node)]
    bits = activation_bits(graph, dict.fromkeys(nodes, SIMULATED))
    ranges = run.recalibrated(graph, bits=bits).ranges
    return {group: ranges[group] for group in bits}


def _at(run: _Run, start: _Start, narrow: Mapping[str, Range] | None) -> At:
    """What models of other precisions start from."""
    graph, groups = start.reference, grid_groups(start.reference)
    reading = {unit.name: [groups[graph[node].inputs[0]] for node in unit.nodes] for unit in units(graph)}

    def at(chosen: Mapping[str, Precision]) -> QuantizedModel:
        few = [group for unit, precision in chosen.items() if precision.is_simulated for group in reading[unit]]
        ranges = {**start.ranges, **{group: (narrow or {})[group] for group in few}}
        return run.specified(graph, ranges, chosen)

    return at


def _surveyed(run: _Run, start: _Start, setting: Setting, table: LatencyTable | None, ledger: Path | None) -> Survey:
    """What can be chosen."""
    narrow = _narrow_ranges(run, start.reference)
    options: dict[str, Any] = {"labels": run.samples.labels, "table": table, "narrow": narrow, "ledger": ledger}
    return survey(setting, start.model, _at(run, start, narrow), _wish(run.recipe), **options)


def _allocated(
    run: _Run, start: _Start, setting: Setting, table: LatencyTable | None, ledger: Path | None
) -> tuple[QuantizedModel, Allocated]:
    """A precision for every layer, checked on the file."""
    with run.journal.stage("allocate"):
        found = _surveyed(run, start, setting, table, ledger)
        goal = goal_of(setting.graph, found.units, _wish(run.recipe))
        model, allocated = allocate(found.problem, goal, found.bench, progress=run.progress)
        if not allocated.attained:
            run.journal.warn(_missed(run.recipe, allocated))
    return model, allocated


def _missed(recipe: Recipe, allocated: Allocated) -> str:
    least = min(r.measured.points for r in allocated.rounds)
    return (
        f"`max_accuracy_drop={recipe.max_accuracy_drop:g}` is not kept: the best model found loses {least:.2f} points"
        " on the calibration samples (estimate and its standard error); this is that model. Offer more bits or float"
        " layers (`candidates`), or give more calibration samples"
    )


def _compare(
    content: bytes,
    model: QuantizedModel,
    reference: Graph,
    steps: Sequence[StepOutcome],
    unseen: Samples,
    journal: Journal,
    progress: Progress,
) -> dict[str, Any]:
    """The file against simulation and float model, layer by layer and end to end."""
    few = unseen.head(_LAYERS).arrays
    observed = observe(content, model, few, progress=progress)
    parity = layer_parity(teacher_forced(model, observed, few), observed)
    journal.warn(parity_note(parity))
    errors = layer_errors(reference, teacher_forced(reference, observed, few), observed, few)
    return {
        "layers": layer_reports(model, errors, parity, steps),
        "parity": output_parity(content, model, unseen.head(_PARITY).arrays),
    }


def explore(
    recipe: Recipe,
    inputs: Inputs | None = None,
    *,
    points: int,
    reconstruct: bool = False,
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> FrontierReport:
    """The frontier of accuracy, size and, with a latency table, latency; nothing is written but the ledger.

    Args:
      recipe: of an allocating run; its budgets do not matter.
      points: budgets that are tried, of size, and as many of latency where there is a table.
      reconstruct: every point in sequence, as `quantize` would; otherwise from parallel states, much faster.
      inputs, ledger, progress: as in `quantize`.

    Raises:
      UserError: anything the user can put right.
    """
    if recipe.simulated:
        raise UserError(f"{recipe.simulated}, and a frontier is measured on files; leave w4a4 out of `candidates`")
    progress, journal = progress or Silent(), Journal()
    begun = _begun(recipe, inputs or Inputs.of(recipe), journal, progress)
    run = begun.run
    start, _ = _equalized(run, _quantized(run, begun.graph))
    setting = _setting(run, start)
    with journal.stage("survey"):
        found = _surveyed(run, start, setting, begun.table, ledger)
    with journal.stage("frontier"):
        costs = [WEIGHTS, *([LATENCY] if begun.table else [])]
        budgets = [(cost, budget) for cost in costs for budget in budgets_between(found.problem, cost, points)]
        models = frontier(found.problem, found.bench, budgets, reconstruct=reconstruct, progress=progress)
    with journal.stage("evaluate"):
        files = {"float": begun.baseline, BASE: found.bench.export(start.model)}
        names = [f"point {number}" for number in range(1, len(models) + 1)]
        files |= {name: found.bench.export(point.model) for name, point in zip(names, models, strict=True)}
        options: dict[str, Any] = {"metric": begun.metric, "seed": recipe.seed, "progress": progress}
        evaluation = evaluate(files, begun.unseen, latency_runs=0, **options)
    return FrontierReport.of(
        recipe,
        model_facts(begun.loaded, begun.prepared),
        dict(zip(names, models, strict=True)),
        found.problem,
        evaluation,
        float_weight_bytes=float_bytes(begun.graph, found.units),
        reconstructed=reconstruct,
        stages=tuple(journal.stages),
        warnings=tuple(journal.warnings),
    )


def _evaluate(begun: _Begun, files: Mapping[str, bytes], quantized: QuantizedModel) -> Evaluation:
    """Float against exported or simulated model."""
    recipe, samples, progress = begun.recipe, begun.unseen, begun.progress
    model: bytes | Simulated
    if recipe.simulated:
        outputs = simulate(quantized, samples.batches(_BATCH), total=len(samples), progress=progress)
        model = Simulated(outputs, recipe.simulated)
    else:
        model = files["model.tflite"]
    models = {"float": files["float.tflite"], recipe.model_name: model}
    return evaluate(models, samples, metric=begun.metric, seed=recipe.seed, progress=progress)
