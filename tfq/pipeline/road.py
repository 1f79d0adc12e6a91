"""The road from a Keras model to a measured .tflite. It holds no algorithm: every line is a stop.

    pipeline     load  prepare  equalise  calibrate  specify  improve  export  verify  evaluate
    int8          x       x        (x)        x         x                x       x        x
    light         x       x        (x)        x         x        x       x       x        x
    advanced      x       x        (x)        x         x        x       x       x        x

Improve, as in Hubara et al. 2020 (arXiv:2006.10518), table of the light and the advanced pipeline:

    pipeline     weight scales  reconstruction  batch-norm tuning  bias tuning  sequential reconstruction
    light             x        least squares           (x)
    advanced          x            best                (x)             (x)       x, after a parallel one

With a budget the first two are allocation's: it fits every layer at every precision, chooses, and reconstructs what it
chose in sequence. (x): on request; tunings also where layers are fitted neither by least squares nor by best.
Every step is kept only where samples gain by it that had no part in it (`tfq.reconstruction.steps`); which samples do
what, `tfq.data.roles` says.
`--precision` other than int8 hands the prepared model to TFLiteConverter's own whole-model exports.
`--activation_bits` below 8 ends in a simulation: nothing is exported or verified, and the simulation is evaluated.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfq import __version__
from tfq.allocation.allocate import Allocated
from tfq.allocation.frontier import budgets_between, frontier
from tfq.allocation.wish import LATENCY, WEIGHTS, float_bytes
from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import Evaluation, Simulated, evaluate
from tfq.evaluation.layers import layer_errors
from tfq.execution.journal import Journal
from tfq.execution.progress import Progress, Silent
from tfq.export.package import describe, export_plain, export_quantized, gzipped
from tfq.export.plain import plain_model
from tfq.inputs import Inputs
from tfq.models.graph import Graph
from tfq.pipeline.begin import Begun, begin
from tfq.pipeline.budget import contradiction, surveyed, within_budget
from tfq.pipeline.quantized import BATCH, Run, equalized, quantized, setting_of, stepped
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.steps import FITTING, TUNING, StepOutcome
from tfq.report.frontier import BASE, FrontierReport
from tfq.report.page import page
from tfq.report.report import Report, layer_reports, model_facts, tensor_reports
from tfq.result import Result
from tfq.simulate.wrap import simulate
from tfq.spec import Specification
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity, output_parity, parity_note
from tfq.verify.runtimes import verify_runtimes
from tfq.verify.structure import verify_structure

_LAYERS, _PARITY = 4, 32  # samples by which layers, and outputs, are compared


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
    begun = begin(recipe, inputs or Inputs.of(recipe), journal, progress)
    loaded, prepared, graph, files = begun.loaded, begun.prepared, begun.graph, {"float.tflite": begun.baseline}
    representative = begun.representative

    if recipe.precision == "int8":
        run = Run.of(begun)
        start, equalisation = equalized(run, quantized(run, graph))
        setting = setting_of(run, start)
        allocated: Allocated | None = None
        fits: tuple[StepOutcome, ...] = ()
        if recipe.allocates:
            fitted, allocated = within_budget(run, start, setting, begun.table, ledger)
        else:
            fitted, fits = stepped(run, setting, start.model, FITTING[recipe.pipeline])
        model, tunings = stepped(run, setting, fitted, TUNING[recipe.pipeline])
        steps = equalisation + fits + tunings
        measured: dict[str, Any] = {
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
        journal.warn(contradiction(recipe, evaluation.models[-1].difference))
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
    begun = begin(recipe, inputs or Inputs.of(recipe), journal, progress)
    run = Run.of(begun)
    start, _ = equalized(run, quantized(run, begun.graph))
    setting = setting_of(run, start)
    with journal.stage("survey"):
        found = surveyed(run, start, setting, begun.table, ledger)
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
        journal=journal,
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


def _evaluate(begun: Begun, files: Mapping[str, bytes], quantized: QuantizedModel) -> Evaluation:
    """Float against exported or simulated model."""
    recipe, samples, progress = begun.recipe, begun.unseen, begun.progress
    model: bytes | Simulated
    if recipe.simulated:
        outputs = simulate(quantized, samples.batches(BATCH), total=len(samples), progress=progress)
        model = Simulated(outputs, recipe.simulated)
    else:
        model = files["model.tflite"]
    models = {"float": files["float.tflite"], recipe.model_name: model}
    return evaluate(models, samples, metric=begun.metric, seed=recipe.seed, progress=progress)
