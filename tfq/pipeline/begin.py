"""The start of every road: model and samples loaded and checked, the model prepared, the float baseline exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from tfq.allocation.latency_table import LatencyTable, read_table
from tfq.allocation.metric_drop import check_drop
from tfq.allocation.wish import check_pins, check_within_reach
from tfq.calibration.choose import find_method
from tfq.data.calibration_set import CalibrationSet
from tfq.data.checks import compare_ranges, compare_samples, without
from tfq.data.labels import label_notes, read_labels
from tfq.data.loading import Selection, load_samples
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.data.synthetic import synthetic_samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import check_metric
from tfq.evaluation.metric import Metric
from tfq.evaluation.metrics import find_metric
from tfq.execution.journal import Journal
from tfq.execution.predict import predict
from tfq.execution.progress import Progress
from tfq.execution.resources import Resources
from tfq.execution.tflite import parse_tflite
from tfq.export.convert import RepresentativeDataset
from tfq.export.package import export_plain
from tfq.input_shapes import InputShapes
from tfq.inputs import Inputs, check_paths
from tfq.models.equality import relative_error, run_graph, tensor_shapes
from tfq.models.floats import for_dynamic_range
from tfq.models.graph import Graph
from tfq.models.load import LoadedModel, load_model
from tfq.models.prepare import Prepared, outlines, prepare
from tfq.models.singular import zero_notes
from tfq.models.wide import find_wide
from tfq.models.widths import assign_precisions, dynamic_units, is_weighted, separate_inputs, units
from tfq.options import SYNTHETIC, needs_int8
from tfq.precision import Precision
from tfq.recipe import AUTO, Recipe
from tfq.targets import CPU, TARGETS

# Samples that the stops take where not all are needed.
_PREPARATION, _SPREAD, _REPRESENTATIVE = 8, 64, 100
_DISTILLATION = 64  # samples to distil from, at least
_MUCH_SMALLER = 0.9
_OTHER_MODEL = 1e-2  # of the largest output: rounding is a hundredth of that


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What all stops of one run work with.

    Attributes:
      calibration: the samples that may have a part in the model; those of the report are not among them.
      distillation: further samples that the whole network learns from, where it does.
      unseen: what models are judged by in the end: evaluation data, or those of the report without their labels.
      given_samples: number of calibration samples, those of the report included.
      prepared, graph: the prepared model, and its graph as it is quantised.
      precisions: of its layers, where no budget decides.
      baseline: the float .tflite.
    """

    recipe: Recipe
    metric: Metric
    loaded: LoadedModel
    labels: Sequence[str]
    table: LatencyTable | None
    calibration: CalibrationSet
    distillation: CalibrationSet | None
    unseen: Samples
    given_samples: int
    prepared: Prepared
    graph: Graph
    precisions: Mapping[str, Precision]
    baseline: bytes
    journal: Journal
    resources: Resources

    @property
    def few(self) -> dict[str, np.ndarray]:
        """Some samples by input name, to try a model with."""
        return self.calibration.samples.head(_PREPARATION).read()

    @property
    def representative(self) -> RepresentativeDataset:
        return self.calibration.samples.head(_REPRESENTATIVE).representative_dataset()


def begin(recipe: Recipe, inputs: Inputs, progress: Progress, executor: Executor | None = None) -> Run:
    # what can be told before the model is read
    check_paths(recipe, inputs)
    labels = read_labels(inputs.labels)
    metric = find_metric(inputs.metric, outputs=recipe.outputs, decoder=recipe.decoder, for_file=recipe.appends_nms)
    find_method(recipe.calibration_method)
    table = read_table(Path(recipe.latency_table)) if recipe.latency_table else None
    journal, resources = Journal(progress), recipe.resources(progress, executor)
    journal.warn(*_slow_note(recipe))
    with journal.stage("load the model"):
        unsafe = recipe.allow_unsafe_deserialization
        shapes = InputShapes.read(recipe.input_shape)
        loaded = load_model(
            inputs.model, allow_unsafe_deserialization=unsafe, imports=recipe.imports, input_shapes=shapes
        )
        metric.first(loaded.graph.output_names)  # one that is not there is told before the data is read
        if recipe.pins:
            possible = list(outlines(loaded.graph, TARGETS[recipe.target]))
            names = {node.name for outline in possible for node in outline.nodes}
            check_pins(recipe, names, [unit.name for unit in units(possible[-1])])
    with journal.stage("load the samples"):
        given, evaluation_samples = _samples(recipe, inputs, loaded.graph, labels, journal, resources)
        has_drop = recipe.max_accuracy_drop is not None and metric.name != "top1"
        if has_drop:
            check_drop(metric, given.labels)
        calibration, unseen = _by_role(given, evaluation_samples, journal, resources)
        distillation = _distillation(recipe, inputs, loaded.graph, (calibration, unseen), journal, resources)
        few = calibration.samples.head(_PREPARATION).read()
        of_drop = [given] if has_drop and given.labels is not None else []
        scored = of_drop if evaluation_samples is None else [evaluation_samples, *of_drop]
        # a model may compute in 16 bits
        outputs = [values.astype(np.float32) for values in loaded.predict(few)] if scored else []
        for samples in scored:
            check_metric(metric, samples, outputs, loaded.graph.output_names)
    with journal.stage("prepare the model"):
        spread = calibration.samples.head(_SPREAD).read()
        wide = find_wide(loaded.graph, spread) if recipe.fits else None
        target = TARGETS[recipe.target] if recipe.fits else None
        options: dict[str, Any] = {"original": loaded, "seed": recipe.seed, "progress": progress}
        prepared = prepare(loaded.graph, spread, wide=wide, target=target, **options)
        journal.warn(*prepared.notes)
        if recipe.may_be_static:
            journal.warn(*zero_notes(prepared.graph, spread))
        output = tensor_shapes(prepared.graph)[prepared.graph.outputs[0]]
        for found in (given, evaluation_samples):
            journal.warn(*label_notes(labels, () if labels or found is None else found.class_names, output))
        wanted = Precision(
            "int8", recipe.weight_bits, recipe.storage, recipe.activation_bits, clusters=recipe.weight_clusters
        )
        graph, precisions = assign_precisions(prepared.graph, wanted, first_last_bits=recipe.first_last_bits)
        if recipe.separates_inputs:
            graph = separate_inputs(graph, [node.name for node in graph.nodes if is_weighted(node)], apart=True)
        if recipe.allocates:
            _check_reach(recipe, graph, prepared.plain)
    with journal.stage("export the float baseline"):
        representative = calibration.samples.head(_REPRESENTATIVE).representative_dataset()
        baseline = export_plain(prepared.plain, "float32", representative, progress=progress)
        state = _state_note(prepared.plain, baseline)
        journal.warn(*_size_note(loaded, baseline), *(state or _baseline_note(prepared.plain, baseline, few)))
    return Run(
        recipe,
        metric,
        loaded,
        labels,
        table,
        calibration,
        distillation,
        unseen,
        len(given),
        prepared,
        graph,
        precisions,
        baseline,
        journal,
        resources,
    )


def _check_reach(recipe: Recipe, graph: Graph, plain: Graph) -> None:
    """Raises UserError for what can be told of pins and budgets before anything is fitted.

    Where static int8 and dynamic range are both left open, it is told where neither can do what is asked.

    Args:
      graph: as static int8 has it.
      plain: in no form for a target.
    """
    possible = [(graph, units(graph), False)] if recipe.may_be_static else []
    if recipe.precision == "dynamic_range" or (recipe.precision == AUTO and not needs_int8(recipe)):
        floats = for_dynamic_range(plain, TARGETS[recipe.target])
        possible.append((floats, dynamic_units(floats), True))
    errors = []
    for found, layers, dynamic in possible:
        try:
            check_within_reach(found, layers, recipe, dynamic=dynamic)
        except UserError as error:
            errors.append(error)
    if len(errors) == len(possible):
        raise errors[0]


def _slow_note(recipe: Recipe) -> tuple[str, ...]:
    """Where precisions are named that the target runs slowly."""
    wide = next((precision.name for precision in recipe.named_precisions if precision.is_int16), None)
    if wide is None or recipe.target != CPU.name:
        return ()
    return (
        f"{wide} is slow on a CPU, where XNNPACK has no kernels for 16-bit activations; name float32 in its place, or"
        " say `target='npu'` where an accelerator runs the file",
    )


def _size_note(loaded: LoadedModel, baseline: bytes) -> tuple[str, ...]:
    """Where the user's own .tflite is much smaller than the baseline, as it is with weights of float16."""
    if not 0 < loaded.tflite_bytes < _MUCH_SMALLER * len(baseline):
        return ()
    return (
        f"the model's own file has {loaded.tflite_bytes:,} bytes; sizes are compared with its float32 form, which has"
        f" {len(baseline):,}",
    )


def keeps_state(graph: Graph, baseline: bytes) -> bool:
    """Whether the runtime keeps a state from one run to the next, as it does for LSTM layers."""
    if not any(node.kind == "Carried" for node in graph.nodes):  # no other layer has a state, and files are large
        return False
    return any(tensor.isVariable for subgraph in parse_tflite(baseline).subgraphs for tensor in subgraph.tensors)


def _state_note(graph: Graph, baseline: bytes) -> tuple[str, ...]:
    if not keeps_state(graph, baseline):
        return ()
    return (
        "the .tflite keeps the state of its recurrent layers from one run to the next, as TFLite's LSTM does; reset it"
        " before each sample: reset_all_variables() in Python, resetVariableTensors() on Android",
    )


def _baseline_note(graph: Graph, baseline: bytes, few: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Where TFLiteConverter made something else of the float model: all figures are against that file."""
    error = relative_error(run_graph(graph, few), list(predict(baseline, few)))
    if error < _OTHER_MODEL:
        return ()
    return (
        f"float.tflite differs from the model by {error:.2g} of the largest output, so the figures against float mean"
        " little: TFLiteConverter changed what it computes; please report it with the model",
    )


def _samples(
    recipe: Recipe, inputs: Inputs, graph: Graph, labels: Sequence[str], journal: Journal, resources: Resources
) -> tuple[Samples, Samples | None]:
    """(calibration samples, evaluation samples)."""
    signatures = input_signatures(graph)
    options: dict[str, Any] = {"preprocess": recipe.preprocess, "class_names": labels, "resources": resources}
    selection = Selection(recipe.num_calibration_samples, recipe.selection, recipe.seed)
    if inputs.calibration == SYNTHETIC:
        samples = synthetic_samples(
            graph, recipe.num_calibration_samples, preprocess=recipe.preprocess, seed=recipe.seed, resources=resources
        )
    else:
        samples = load_samples(inputs.calibration, signatures, selection, **options)
    journal.warn(*samples.warnings)
    if inputs.evaluation is None:
        return samples, None
    evaluation_samples = load_samples(inputs.evaluation, signatures, annotations=recipe.annotations, **options)
    found = compare_samples(samples, evaluation_samples) + compare_ranges(samples, evaluation_samples)
    journal.warn(*evaluation_samples.warnings, *found)
    return samples, evaluation_samples


def _distillation(
    recipe: Recipe,
    inputs: Inputs,
    graph: Graph,
    others: tuple[CalibrationSet, Samples],
    journal: Journal,
    resources: Resources,
) -> CalibrationSet | None:
    """The further samples that are given to learn from, without those that judge what was learned.

    Args:
      others: the samples that calibrate, and those by which models are judged in the end.
    """
    if inputs.distillation is None:
        return None
    signatures, (calibration, unseen) = input_signatures(graph), others
    found = load_samples(inputs.distillation, signatures, preprocess=recipe.preprocess, resources=resources)
    left = without(found, (calibration.judging, unseen))
    journal.warn(*found.warnings)
    gone = f"{len(found) - len(left)} of the {len(found)} distillation samples judge the model, as evaluation or as"
    gone += " calibration samples; nothing is learned from them"
    if len(left) < _DISTILLATION:
        raise UserError(
            (f"{gone}: " if len(left) < len(found) else "")
            + f"there are {len(left)} distillation samples to learn from; expected at least {_DISTILLATION}: give more,"
            " or `distill=True` without `distillation_data`, which learns from the calibration samples"
        )
    if len(left) < len(found):
        journal.warn(gone)
    journal.warn(*compare_ranges(calibration.samples, left, what="distillation"))
    return CalibrationSet.of(left)


def _by_role(
    given: Samples, evaluation_samples: Samples | None, journal: Journal, resources: Resources
) -> tuple[CalibrationSet, Samples]:
    """(samples that may have a part in the model, samples that may not, by which it is judged)."""
    reports = evaluation_samples is None
    calibration = CalibrationSet.of(given, report=reports)
    roles = calibration.roles
    shortage = roles.shortage(report=reports)
    if shortage:
        journal.warn(shortage)
    if evaluation_samples is not None:
        return calibration, evaluation_samples
    journal.warn(
        f"no `evaluation`: agreement with float is measured on {len(roles.reporting)} of the {len(given)}"
        " calibration samples, which are used for nothing else; accuracy is not measured"
        if len(roles.report)
        else "no `evaluation`: agreement with float is measured on a calibration sample, accuracy is not"
    )
    # a metric, which may be a function of the user's, is given arrays
    return calibration.without_report(), calibration.reporting.stored(resources.memory_limit)
