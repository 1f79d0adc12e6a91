"""The start of every road: model and samples loaded and checked, the model prepared, the float baseline exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq.allocation.latency_table import LatencyTable, read_table
from tfq.calibration.choose import find_method
from tfq.data.checks import compare_ranges
from tfq.data.labels import label_notes, read_labels
from tfq.data.loading import load_samples
from tfq.data.roles import Roles
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.evaluation.evaluate import check_metric
from tfq.evaluation.metrics import UserMetric, find_metric
from tfq.execution.journal import Journal
from tfq.execution.progress import Progress
from tfq.export.convert import RepresentativeDataset
from tfq.export.package import export_plain
from tfq.inputs import Inputs
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph
from tfq.models.load import LoadedModel, load_model
from tfq.models.prepare import Prepared, prepare
from tfq.models.wide import find_wide
from tfq.models.widths import assign_precisions, is_weighted, separate_inputs
from tfq.precision import Precision
from tfq.recipe import Recipe

# Samples that the stops take where not all are needed.
_PREPARATION, _SPREAD, _REPRESENTATIVE = 8, 64, 100


@dataclasses.dataclass(frozen=True, eq=False)
class Begun:
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


def begin(recipe: Recipe, inputs: Inputs, journal: Journal, progress: Progress) -> Begun:
    find_metric(inputs.metric)  # what can be told before the model is read
    find_method(recipe.calibration_method)
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
    return Begun(
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
