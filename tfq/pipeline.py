"""The road from a Keras model to a measured .tflite. It holds no algorithm: every line is a stop.

int8        load, prepare, calibrate, specify, export, verify, evaluate
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfq import __version__
from tfq.calibration.calibrate import Calibration, calibrate
from tfq.calibration.collect import HELD_BACK_EVERY
from tfq.calibration.minmax import minmax_range
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range, merge_statistics
from tfq.data.checks import compare_ranges
from tfq.data.loading import load_samples
from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import Evaluation, evaluate
from tfq.evaluation.layers import layer_errors
from tfq.evaluation.metrics import find_metric
from tfq.execution.progress import Progress, Silent
from tfq.export.package import describe, export_plain, export_quantized
from tfq.export.plain import plain_spec
from tfq.models.graph import Graph
from tfq.models.load import LoadedModel, load_model
from tfq.models.prepare import Prepared, prepare
from tfq.recipe import Recipe
from tfq.report.report import Report, Stage, layer_reports, tensor_reports
from tfq.simulate.guard import compare_specs
from tfq.spec import QuantizationSpec
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity, output_parity
from tfq.verify.runtimes import verify_runtimes
from tfq.verify.structure import verify_structure

_BATCH = 32
_PREPARATION_SAMPLES = 8
_GUARD_SAMPLES = 64
_REPRESENTATIVE_SAMPLES = 100
_LAYER_SAMPLES = 8
_PARITY_SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Product:
    """What a run gives: the files by name, and the report that is one of them."""

    files: Mapping[str, bytes]
    report: Report


class _Journal:
    """Stages and warnings of the run in progress."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.warnings: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        self.stages.append(Stage(name, round(time.monotonic() - start, 3), round(peak, 1)))


def quantize(recipe: Recipe, *, progress: Progress | None = None) -> Product:
    """Run the whole road.

    Raises:
      UserError: anything the user can put right; nothing has been written.
      VerificationError: the exported file is not what was specified.
    """
    progress = progress or Silent()
    journal = _Journal()
    find_metric(recipe.metric)
    if recipe.pipeline != "int8":
        raise UserError(f"--pipeline={recipe.pipeline} is not part of this version of tfq; use --pipeline=int8")
    with journal.stage("load the model"):
        loaded = load_model(Path(recipe.model), allow_unsafe_deserialization=recipe.allow_unsafe_deserialization)
        signatures = input_signatures(loaded.graph)
        labels = read_labels(recipe)
    with journal.stage("load the samples"):
        calibration_samples, evaluation_samples = _load_samples(recipe, signatures, journal, progress)
    with journal.stage("prepare the model"):
        few = calibration_samples.take(range(min(len(calibration_samples), _PREPARATION_SAMPLES)))
        prepared = prepare(loaded.graph, few.arrays, seed=recipe.seed, progress=progress)
        graph = prepared.graph
    representative = calibration_samples.take(range(min(len(calibration_samples), _REPRESENTATIVE_SAMPLES)))
    with journal.stage("export the float baseline"):
        float_file = export_plain(graph, "float32", representative.representative_dataset())

    measured: dict[str, Any] = {"calibration_cost": {}, "guard": {}, "tensors": (), "verification": None, "parity": ()}
    if recipe.precision == "int8":
        with journal.stage("calibrate"):
            calibration = _calibrate(recipe, graph, calibration_samples, progress)
            measured["calibration_cost"] = dataclasses.asdict(calibration.cost) | {"ratio": calibration.cost.ratio}
        with journal.stage("specify"):
            spec, measured["guard"] = _specify(recipe, graph, calibration, calibration_samples, journal)
            measured["tensors"] = tensor_reports(spec, calibration)
        with journal.stage("export"):
            quantized_file = export_quantized(graph, spec, representative.representative_dataset())
        with journal.stage("verify"):
            measured["verification"] = verify_structure(quantized_file, graph, spec)
            errors, parity, measured["parity"] = _compare(
                quantized_file, graph, spec, calibration_samples, journal, progress
            )
        measured["layers"] = layer_reports(graph, spec, errors, parity)
    else:
        with journal.stage("export"):
            quantized_file = export_plain(graph, recipe.precision, representative.representative_dataset())
            spec = plain_spec(quantized_file, graph, recipe.precision)
        measured["layers"] = layer_reports(graph, spec, (), ())
    with journal.stage("add metadata"):
        files = {
            name: _with_metadata(content, recipe, loaded, signatures, graph, calibration_samples, labels)
            for name, content in (("float.tflite", float_file), ("model.tflite", quantized_file))
        }
        for name, content in files.items():
            verify_runtimes(content, few.arrays, name=name)
    with journal.stage("evaluate"):
        evaluation = _evaluate(recipe, files, evaluation_samples or calibration_samples, journal, progress)

    report = Report(
        version=__version__,
        recipe=recipe,
        model=_model_facts(loaded, prepared),
        calibration_samples=len(calibration_samples),
        preparation=prepared.checks,
        evaluation=evaluation,
        stages=tuple(journal.stages),
        warnings=tuple(journal.warnings),
        **measured,
    )
    files |= {
        "spec.json": spec.to_json().encode(),
        "recipe.json": recipe.to_json().encode(),
        "report.json": report.to_json().encode(),
    }
    return Product(files, report)


def input_signatures(graph: Graph) -> tuple[InputSignature, ...]:
    """The inputs of the model, as the data has to serve them."""
    inputs = (graph[name] for name in graph.inputs)
    return tuple(InputSignature(n.name, tuple(n.config["shape"]), str(n.config["dtype"])) for n in inputs)


def read_labels(recipe: Recipe) -> tuple[str, ...]:
    """Class names from the file of --labels, one a line."""
    if not recipe.labels:
        return ()
    try:
        return tuple(Path(recipe.labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--labels={recipe.labels} cannot be read ({error}); give a text file, one name a line"
        ) from error


def _load_samples(
    recipe: Recipe, signatures: tuple[InputSignature, ...], journal: _Journal, progress: Progress
) -> tuple[Samples, Samples | None]:
    if not recipe.calibration_data:
        raise UserError("--calibration_data is missing; give an .npz, a folder of images, TFRecords or module:function")
    options: dict[str, Any] = {"preprocess": recipe.preprocess, "seed": recipe.seed, "progress": progress}
    calibration = load_samples(
        recipe.calibration_data,
        signatures,
        limit=recipe.num_calibration_samples,
        selection=recipe.selection,
        **options,
    )
    journal.warnings += [f"calibration data: {w}" for w in calibration.warnings]
    if not recipe.evaluation_data:
        return calibration, None
    evaluation = load_samples(recipe.evaluation_data, signatures, limit=None, **options)
    journal.warnings += [f"evaluation data: {w}" for w in evaluation.warnings]
    journal.warnings += compare_ranges(calibration, evaluation)
    return calibration, evaluation


def _calibrate(recipe: Recipe, graph: Graph, samples: Samples, progress: Progress) -> Calibration:
    return calibrate(
        graph,
        samples.batches(_BATCH),
        method=recipe.calibration_method,
        percentile=recipe.percentile,
        total=len(samples),
        progress=progress,
    )


def _specify(
    recipe: Recipe, graph: Graph, calibration: Calibration, samples: Samples, journal: _Journal
) -> tuple[QuantizationSpec, dict[str, Any]]:
    """The specification; ranges that lose to min-max on the whole model's held-back outputs are rolled back."""

    def with_ranges(ranges: Mapping[str, Range]) -> QuantizationSpec:
        return specify(
            graph,
            ranges,
            weight_bits=recipe.weight_bits,
            per_channel=recipe.per_channel,
            storage=recipe.storage,
            input_type=recipe.input_type,
            output_type=recipe.output_type,
        )

    chosen = with_ranges({group: choice.range for group, choice in calibration.choices.items()})
    rolled_back = [group for group, choice in calibration.choices.items() if choice.rolled_back]
    if rolled_back:
        journal.warnings.append(
            f"calibration by {recipe.calibration_method} lost to min-max on held-back samples and was rolled back for"
            f" {len(rolled_back)} of {len(calibration.choices)} ranges: {', '.join(rolled_back[:5])}"
            + (" ..." if len(rolled_back) > 5 else "")
        )
    if recipe.calibration_method == "minmax":
        return chosen, {}
    members: dict[str, list[str]] = {}
    for tensor, group in calibration.groups.items():
        members.setdefault(group, []).append(tensor)
    minmax = {
        g: minmax_range(merge_statistics(*(calibration.statistics[t] for t in members[g]))) for g in calibration.choices
    }
    candidates = {recipe.calibration_method: chosen, "minmax": with_ranges(minmax)}
    held_back = samples.take(held_back_positions(len(samples))[:_GUARD_SAMPLES])
    divergences = compare_specs(graph, candidates, held_back.arrays)
    kept = min(candidates, key=lambda name: divergences[name])
    if kept == "minmax":
        journal.warnings.append(
            f"calibration by {recipe.calibration_method} lost to min-max on the outputs of {len(held_back)} held-back"
            f" samples (divergence {divergences[recipe.calibration_method]:.3g} against {divergences['minmax']:.3g});"
            " min-max ranges were kept for the whole model"
        )
    return candidates[kept], {"divergence": divergences, "kept": kept, "samples": len(held_back)}


def held_back_positions(count: int) -> np.ndarray:
    """Positions of the calibration samples that no range is fitted to before ranges are compared."""
    positions = np.arange(HELD_BACK_EVERY - 1, count, HELD_BACK_EVERY)
    return positions if len(positions) else np.arange(count)


def _compare(
    content: bytes, graph: Graph, spec: QuantizationSpec, samples: Samples, journal: _Journal, progress: Progress
) -> tuple[Any, Any, Any]:
    """Errors and parity of the layers, and parity of the outputs, on held-back samples."""
    positions = held_back_positions(len(samples))
    few, more = (dict(samples.take(positions[:n]).arrays) for n in (_LAYER_SAMPLES, _PARITY_SAMPLES))
    observed = observe(content, graph, spec, few, progress=progress)
    forced = teacher_forced(graph, spec, observed, few)
    parity = layer_parity(forced, observed)
    off = [p for p in parity if p.max_steps > 1]
    if off:
        worst = max(off, key=lambda p: p.max_steps)
        journal.warnings.append(
            f"{len(off)} layers differ from the simulation by more than one step on their own inputs;"
            f" {worst.name!r} by {worst.max_steps}"
        )
    return layer_errors(graph, forced, observed, few), parity, output_parity(content, graph, spec, more)


def _with_metadata(
    content: bytes,
    recipe: Recipe,
    loaded: LoadedModel,
    signatures: tuple[InputSignature, ...],
    graph: Graph,
    samples: Samples,
    labels: tuple[str, ...],
) -> bytes:
    floats = [n for n, array in samples.arrays.items() if array.dtype.kind == "f"]
    return describe(
        content,
        name=loaded.name,
        description=f"{loaded.name} ({loaded.framework}), exported by tfq {__version__}",
        signatures=signatures,
        outputs=graph.output_names,
        preprocess=recipe.preprocess,
        ranges={n: (float(samples.arrays[n].min()), float(samples.arrays[n].max())) for n in floats},
        labels=labels or samples.class_names,
        recipe=recipe.to_json(),
    )


def _evaluate(
    recipe: Recipe, files: Mapping[str, bytes], samples: Samples, journal: _Journal, progress: Progress
) -> Evaluation:
    if not recipe.evaluation_data:
        journal.warnings.append(
            "no --evaluation_data: agreement with float is measured on the calibration samples, accuracy is not"
        )
        samples = dataclasses.replace(samples, labels=None)
    models = {"float": files["float.tflite"], recipe.precision: files["model.tflite"]}
    if recipe.precision == "float32":
        models = {"float": files["float.tflite"]}
    return evaluate(models, samples, metric=recipe.metric, seed=recipe.seed, progress=progress)


def _model_facts(loaded: LoadedModel, prepared: Prepared) -> dict[str, Any]:
    parameters = {id(w): w.size for node in loaded.graph.nodes for w in node.weights.values()}
    return {
        "name": loaded.name,
        "framework": loaded.framework,
        "parameters": int(sum(parameters.values())),
        "nodes_loaded": len(loaded.graph.nodes),
        "nodes_prepared": len(prepared.graph.nodes),
    }
