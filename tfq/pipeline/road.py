"""The road from a Keras model to a measured .tflite. It holds no algorithm: every line is a stop.

    pipeline     load  prepare  equalise  calibrate  specify  improve  export  verify  evaluate
    int8          x       x        (x)        x         x        x       x       x        x
    light         x       x        (x)        x         x        x       x       x        x
    advanced      x       x        (x)        x         x        x       x       x        x

Improve, as in Hubara et al. 2020 (arXiv:2006.10518), table of the light and the advanced pipeline:

    pipeline     weight scales  reconstruction  batch-norm tuning  network tuning  sequential         distillation
    int8        bias correction alone                                               reconstruction
    light             x        least squares           (x)                                                (x)
    advanced          x            best                (x)             (x)       x, after a parallel one  (x)

With a budget the first two are allocation's: it fits every layer at every precision, chooses, and reconstructs what it
chose in sequence. (x): on request; tunings also where layers are fitted neither by least squares nor by best, and
equalisation also in int8, where much is expected of it.
Every step is kept only where samples gain by it that had no part in it (`tfq.reconstruction.steps`); which samples do
what, `tfq.data.roles` says.
`--precision=dynamic_range` goes the same road without ranges: activations are float, weights are fitted as ever.
`--precision` other than these hands the prepared model to TFLiteConverter's own whole-model exports.
`--activation_bits` below 8 ends in a simulation: nothing is exported or verified, and the simulation is evaluated.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from tfq import __version__
from tfq.allocation.allocate import Allocated
from tfq.allocation.frontier import Frontier, budgets_between, frontier
from tfq.allocation.survey import Survey
from tfq.allocation.wish import LATENCY, WEIGHTS, float_bytes
from tfq.errors import UserError
from tfq.evaluation.diagnosis import Diagnosis
from tfq.evaluation.diagnosis import diagnose as diagnosis
from tfq.evaluation.evaluate import Evaluation, Simulated, evaluate
from tfq.evaluation.layers import layer_errors
from tfq.evaluation.suppression import with_nms
from tfq.evaluation.times import layer_times
from tfq.execution.machine import this_machine
from tfq.execution.progress import SILENT, Progress
from tfq.export.metadata import ModelMetadata, TensorMetadata, add_metadata
from tfq.export.nms import OUTPUTS
from tfq.export.package import export_plain, export_quantized, gzipped, metadata_of
from tfq.export.plain import plain_model
from tfq.export.scales import with_legal_scales
from tfq.inputs import Inputs
from tfq.models.graph import Graph
from tfq.options import check_written
from tfq.pipeline.begin import Run, begin
from tfq.pipeline.budget import contradiction, surveyed, within_budget
from tfq.pipeline.choice import converters_own, in_precision, with_precision
from tfq.pipeline.quantized import Start, setting_of, started, stepped
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.steps import FITTING, TUNING, StepOutcome
from tfq.report.causes import causes
from tfq.report.frontier import BASE, FrontierReport
from tfq.report.howto import howto
from tfq.report.model_card import model_card
from tfq.report.model_explorer import node_data
from tfq.report.page import page
from tfq.report.previews import previews
from tfq.report.report import Report, layer_reports, model_facts, tensor_reports
from tfq.report.verdict import float_outputs, verdict
from tfq.report.words import Spelling
from tfq.result import Result
from tfq.simulate.eager import simulate
from tfq.spec import Specification
from tfq.targets import TARGETS
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.kernels import verify_kernels
from tfq.verify.parity import layer_parity, output_parity, parity_note
from tfq.verify.runtimes import verify_runtimes
from tfq.verify.structure import verify_structure

_LAYERS, _PARITY = 4, 32  # samples by which layers, and outputs, are compared
_DIAGNOSED = 128  # by which a diagnosis is made


def quantize(
    recipe: Recipe,
    inputs: Inputs | None = None,
    *,
    ledger: Path | None = None,
    progress: Progress = SILENT,
    executor: Executor | None = None,
    spelled: Spelling = str,
) -> Result:
    """Run the whole road; nothing is written but the ledger.

    Args:
      recipe: what is wanted.
      inputs: model and samples, by default what the recipe names.
      ledger: file that keeps the sensitivities of allocation as they are measured: a killed run goes on from there.
      progress: where it is shown.
      executor: takes the work on layers.
      spelled: how report.html and HOWTO.md write options.

    Raises:
      UserError: anything the user can put right.
      VerificationError: the exported file is not what was specified.
    """
    asked, run = recipe, with_precision(begin(recipe, inputs or Inputs.of(recipe), progress, executor))
    recipe, journal = run.recipe, run.journal
    fits = recipe.fits and not converters_own(run)
    model, files, measured = _fitted_and_verified(run, ledger) if fits else _plain(run)
    files = {"float.tflite": run.baseline} | files
    with journal.stage("package"):
        told = metadata_of(loaded=run.loaded, samples=run.calibration.samples, labels=run.labels, recipe=asked)
        files = {name: add_metadata(file, told) for name, file in files.items()}
        for name, content in files.items():
            journal.warn(verify_runtimes(content, run.few, name=name))
    if recipe.appends_nms:
        with journal.stage("append NMS"):
            files |= _with_nms(run, files["model.tflite"], told)
    with journal.stage("evaluate"):
        evaluation = _evaluate(run, files, model)
        falls = run.metric.higher_is_better is not False
        journal.warn(contradiction(recipe, evaluation.models[-1].difference, falls=falls))
    if recipe.package == "gzip":
        files["model.tflite.gz"] = gzipped(files["model.tflite"])

    allocated = measured.get("allocation")
    report = Report(
        version=__version__,
        recipe=asked,
        precision=recipe.precision,
        model=model_facts(run.loaded, run.prepared),
        calibration_samples=run.given_samples,
        verdict=verdict(evaluation, recipe, attained=allocated is None or allocated.attained),
        preparation=run.prepared.checks,
        anew=run.prepared.anew,
        evaluation=evaluation,
        package_bytes=len(files["model.tflite.gz"]) if recipe.package == "gzip" else None,
        causes=causes(measured["layers"], measured.get("tensors", ()), recipe),
        stages=tuple(journal.stages),
        warnings=tuple(journal.warnings),
        machine=this_machine(),
        class_names=tuple(run.labels) or run.unseen.class_names,
        previews=previews(run.unseen, _changed(evaluation)),
        distillation_samples=len(run.distillation.samples) if run.distillation else 0,
        **measured,
    )
    texts = {
        "spec.json": Specification.of(model).to_json(),
        "recipe.json": asked.to_json(),
        "report.json": report.to_json(),
    }
    if "model.tflite" in files:
        texts["HOWTO.md"] = howto(files["model.tflite"], told, spelled)
    parsed = json.loads(texts["report.json"])
    texts["report.html"] = page(parsed, spelled)
    if recipe.model_card:
        texts["MODEL_CARD.md"] = model_card(parsed, texts["HOWTO.md"])
    if recipe.model_explorer:
        texts |= node_data(parsed["layers"])
    return Result(files | {name: text.encode() for name, text in texts.items()}, report)


_Made = tuple[QuantizedModel, dict[str, bytes], dict[str, Any]]
"""(model, its file by name where there is one, what the report says of both)."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitted:
    """The model by the pipeline or the budget that is asked for, and what became of it on the way."""

    start: Start
    model: QuantizedModel
    steps: tuple[StepOutcome, ...]
    allocation: Allocated | None


def _fitted(run: Run, ledger: Path | None) -> _Fitted:
    recipe = run.recipe
    start, begun = started(run)
    setting = setting_of(run, start)
    allocated: Allocated | None = None
    fits: tuple[StepOutcome, ...] = ()
    if recipe.allocates:
        fitted, allocated = within_budget(run, start, setting, ledger)
    else:
        fitted, fits = stepped(run, setting, start.model, FITTING[recipe.pipeline])
    model, tunings = stepped(run, setting, fitted, TUNING[recipe.pipeline])
    model = with_legal_scales(model, TARGETS[recipe.target])
    return _Fitted(start, model, begun + fits + tunings, allocated)


def _fitted_and_verified(run: Run, ledger: Path | None) -> _Made:
    """The fitted model, exported and verified."""
    found, recipe = _fitted(run, ledger), run.recipe
    start, model, steps = found.start, found.model, found.steps
    measured: dict[str, Any] = {
        "guard": start.guard,
        "steps": steps,
        "allocation": found.allocation,
        "tensors": tensor_reports(model, start.calibration, start.guard, start.tuned),
        "layers": layer_reports(model, steps=steps),
    }
    run.journal.warn(*float_outputs(model))
    if recipe.simulated:
        return model, {}, measured
    with run.journal.stage("export"):
        content = export_quantized(model, run.representative, progress=run.resources.progress)
    with run.journal.stage("verify"):
        measured["verification"] = verify_structure(content, model)
        run.journal.warn(*verify_kernels(model, TARGETS[recipe.target]))
        measured |= _compare(run, content, model, start.reference, steps)
    return model, {"model.tflite": content}, measured


def _plain(run: Run) -> _Made:
    """One of TFLiteConverter's own whole-model exports."""
    precision = run.recipe.precision
    with run.journal.stage("export"):
        content = export_plain(run.graph, precision, run.representative, progress=run.resources.progress)
        model = plain_model(content, run.graph, precision)
    return model, {"model.tflite": content}, {"layers": layer_reports(model)}


def _with_nms(run: Run, content: bytes, told: ModelMetadata) -> dict[str, bytes]:
    """model_nms.tflite, whose outputs are detections."""
    recipe = run.recipe
    appended, notes = with_nms(content, recipe.decoder, recipe.outputs, run.few)
    run.journal.warn(*notes)
    detections = dataclasses.replace(told, outputs=tuple(TensorMetadata(name) for name in OUTPUTS))
    return {"model_nms.tflite": add_metadata(appended, detections)}


def explore(
    recipe: Recipe,
    inputs: Inputs | None = None,
    *,
    points: int,
    reconstruct: bool = False,
    write: Collection[str] = (),
    ledger: Path | None = None,
    progress: Progress = SILENT,
    executor: Executor | None = None,
) -> FrontierReport:
    """The frontier of accuracy, size and, with a latency table, latency; nothing is written but the ledger.

    Args:
      recipe: of an allocating run; its budgets do not matter.
      points: budgets that are tried, of size, and as many of latency where there is a table.
      reconstruct: every point in sequence, as `quantize` would; otherwise from parallel states, much faster.
      write: points whose files are wanted: "point_3" and the like, or "all".
      inputs, ledger, progress, executor: as in `quantize`.

    Raises:
      UserError: anything the user can put right.
      VerificationError: a file that is wanted is not what was specified.
    """
    check_written(write, points * (2 if recipe.latency_table else 1))
    if recipe.simulated:
        raise UserError(f"{recipe.simulated}, and a frontier is measured on files; leave w4a4 out of `candidates`")
    if recipe.distills:
        raise UserError("`distill` is given, and the points of a frontier are not tuned; leave it out")
    if recipe.precision == "dynamic_range":
        raise UserError("`precision` is dynamic_range, and the points of a frontier are static int8; leave it out")
    run = in_precision(begin(recipe, inputs or Inputs.of(recipe), progress, executor), "int8")
    start, _ = started(run)
    setting = setting_of(run, start)
    with run.journal.stage("survey"):
        found = surveyed(run, start, setting, ledger)
    with run.journal.stage("frontier"):
        costs = [WEIGHTS, *([LATENCY] if run.table else [])]
        units = {WEIGHTS: float_bytes(run.graph, found.units), LATENCY: 1.0}
        budgets = [(c, budget) for c in costs for budget in budgets_between(found.problem, c, points, unit=units[c])]
        made = frontier(found.problem, found.bench, budgets, reconstruct=reconstruct, progress=run.resources.progress)
    with run.journal.stage("evaluate"):
        files = {"float": run.baseline, BASE: found.bench.export(start.model)}
        files |= {name: found.bench.export(point.model) for name, point in made.points.items()}
        options: dict[str, Any] = {"metric": run.metric, "seed": recipe.seed, "resources": run.resources}
        evaluation = evaluate(files, run.unseen, timing=None, **options)
    with run.journal.stage("package"):
        models = _written(run, recipe, made, found, write)
    return FrontierReport.of(
        recipe,
        model_facts(run.loaded, run.prepared),
        made,
        evaluation,
        float_weight_bytes=float_bytes(run.graph, found.units),
        journal=run.journal,
        models=models,
    )


def _written(run: Run, asked: Recipe, made: Frontier, found: Survey, write: Collection[str]) -> dict[str, bytes]:
    """The files of the points that are wanted; each says that a run with its budget made it."""
    wanted = set(made.points) if "all" in write else {name.replace("_", " ") for name in write}
    if missing := wanted - set(made.points):
        run.journal.warn(f"`write` names {', '.join(sorted(missing))}, and there are {', '.join(made.points)}")
    files = {}
    for name, point in made.points.items():
        if name not in wanted:
            continue
        model = with_legal_scales(point.model, TARGETS[run.recipe.target])
        content = found.bench.export(model)
        verify_structure(content, model)
        recipe = dataclasses.replace(asked, **point.wish(float_bytes(run.graph, found.units)))
        told = metadata_of(loaded=run.loaded, samples=run.calibration.samples, labels=run.labels, recipe=recipe)
        files[name] = add_metadata(content, told)
    return files


def diagnose(
    recipe: Recipe, inputs: Inputs | None = None, *, ledger: Path | None = None, progress: Progress = SILENT
) -> tuple[Diagnosis, tuple[StepOutcome, ...]]:
    """Where the model of a run loses, and what its steps did. The model is made once more; nothing is written.

    Arguments as in `quantize`.

    Raises:
      UserError: anything the user can put right.
    """
    if not recipe.may_be_static:
        raise UserError(f"`precision` is {recipe.precision}, which has no ranges to diagnose; expected int8")
    run = with_precision(begin(recipe, inputs or Inputs.of(recipe), progress))
    if run.recipe.precision != "int8":
        raise UserError("dynamic range was chosen for the model, which has no ranges to diagnose")
    found = _fitted(run, ledger)
    fitted, unseen = (samples.head(_DIAGNOSED).arrays for samples in (run.calibration.fit, run.unseen))
    return diagnosis(found.start.reference, found.model, fitted, unseen, resources=run.resources), found.steps


def _compare(
    run: Run, content: bytes, model: QuantizedModel, reference: Graph, steps: Sequence[StepOutcome]
) -> dict[str, Any]:
    """The file against simulation and float model, layer by layer and end to end."""
    few = run.unseen.head(_LAYERS).read()
    observed = observe(content, model, few, progress=run.resources.progress)
    parity = layer_parity(teacher_forced(model, observed, few), observed)
    run.journal.warn(parity_note(parity))
    errors = layer_errors(reference, teacher_forced(reference, observed, few), observed, few)
    times = layer_times(content, [layer.name for layer in model.layers], progress=run.resources.progress)
    return {
        "layers": layer_reports(model, errors, parity, steps, times),
        "parity": output_parity(content, model, run.unseen.head(_PARITY).read()),
    }


def _changed(evaluation: Evaluation) -> list[int]:
    """Samples that get another class than from the float model."""
    changes = evaluation.models[-1].changes
    return [] if changes is None else [change.sample for change in changes.samples]


def _evaluate(run: Run, files: Mapping[str, bytes], quantized: QuantizedModel) -> Evaluation:
    """Float against exported or simulated model."""
    recipe, samples = run.recipe, run.unseen
    model: bytes | Simulated
    if recipe.simulated:
        outputs = simulate(quantized, samples.arrays, resources=run.resources)
        model = Simulated(outputs, recipe.simulated)
    else:
        model = files["model.tflite"]
    models = {"float": files["float.tflite"], recipe.model_name: model}
    return evaluate(models, samples, metric=run.metric, seed=recipe.seed, resources=run.resources)
