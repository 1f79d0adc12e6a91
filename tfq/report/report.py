"""What was measured: the one truth that the terminal table and any page are drawn from.

Every number stands with its unit in its name or in an `Estimate`; what was not measured is None and
says why in `warnings`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfq.calibration import histogram
from tfq.evaluation.evaluate import Evaluation
from tfq.execution.journal import Stage
from tfq.execution.machine import Machine
from tfq.recipe import Recipe

if TYPE_CHECKING:  # they would load TensorFlow, which reading a report does not need
    from tfq.allocation.allocate import Allocated
    from tfq.calibration.calibrate import Calibration
    from tfq.evaluation.layers import LayerError
    from tfq.models.forms import WrittenAnew
    from tfq.models.load import LoadedModel
    from tfq.models.prepare import Prepared, TransformationCheck
    from tfq.quantized_model import QuantizedModel
    from tfq.reconstruction.reconstruct import LayerReconstruction
    from tfq.reconstruction.steps import StepOutcome
    from tfq.report.causes import Cause
    from tfq.report.previews import Preview
    from tfq.simulate.judge import Verdict
    from tfq.verify.parity import LayerParity, OutputParity
    from tfq.verify.structure import Verification

_NONE: Mapping[str, float] = {}


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """One activation tensor: what calibration saw and what it got.

    Attributes:
      name, group: the tensor, and the tensor whose grid it shares.
      observed: smallest and largest value over all calibration samples; None where the grid is prescribed.
      range, bits: smallest and largest value of its grid, and its grid bits.
      method: calibration method that gave the range, or "range tuning"; "prescribed" where TFLite does.
      errors: method -> expected squared error on samples that the range was not fitted to, of the whole group.
      rolled_back: the method asked for lost to min-max here.
      histogram: of a sample of its values, as `tfq.calibration.histogram.summary` gives it; None likewise.
    """

    name: str
    group: str
    observed: tuple[float, float] | None
    range: tuple[float, float]
    bits: int
    method: str
    errors: Mapping[str, float]
    rolled_back: bool
    histogram: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer of the exported model.

    Attributes:
      name, keras_layers, kind: the node, the user's layers it stands for, its operation.
      inputs: layers, or inputs of the model, that it reads.
      precision, reason: as in the specification.
      weight_bits, storage, parameters: grid bits and storage of its weights, number of weights and biases.
      entropy_bits: of the codes for which a coarse grid was chosen (`Grid`), else 0.
      clusters: how many integers its weights are, where a codebook says which, else 0.
      sqnr_db: signal to noise of its output against the float model.
      own_sqnr_db: the same for the error it adds by itself.
      reconstruction: what became of it in every step that reconstructs layers, with its error before and after
        on calibration samples that it was not fitted to.
      parity_max_steps, parity_differing: largest difference between .tflite and simulation on the layer's
        own quantised input, in steps of its grid; share of elements that differ.
      time_ms: of its operations, each alone in the runtime (`tfq.evaluation.times`).
    """

    name: str
    keras_layers: tuple[str, ...]
    kind: str
    precision: str
    reason: str
    weight_bits: int | None
    storage: str | None
    parameters: int
    sqnr_db: float | None = None
    own_sqnr_db: float | None = None
    parity_max_steps: int | None = None
    parity_differing: float | None = None
    reconstruction: tuple[LayerReconstruction, ...] = ()
    entropy_bits: int = 0
    inputs: tuple[str, ...] = ()
    time_ms: float | None = None
    clusters: int = 0


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything one run measured.

    Attributes:
      version, recipe: of tfq; what was asked for.
      model: name, framework, number of nodes before and after preparation, parameters.
      calibration_samples: number of them.
      distillation_samples: further ones that the whole network may learn from; 0 where none are given.
      verdict: what it came to (`tfq.report.verdict`).
      preparation: every transformation with its error against the original model.
      anew: layers that were given another form for the target, and why.
      layers: in topological order.
      evaluation: float against exported model, or against the simulation where there is none.
      stages, warnings: as the run went.
      steps: what the pipeline's improvements did, in order.
      allocation: the precisions chosen by a budget, and the rounds that led to them; None without a budget.
      guard, tensors, verification, parity: of the int8 road; absent for the plain
        whole-model exports, the last two also for a simulation.
      package_bytes: size of model.tflite.gz; None where none was asked for.
      causes: why the layers with most error lose, where that is known.
      devices: what tfq-bench measured of the models (`tfq.report.devices`); nothing until it has run.
      precision: of the whole model: what the recipe names, or what was chosen where that is auto.
      machine: where times were measured.
      class_names: of the classes, as far as they are known.
      previews: the samples of `evaluation` whose class changed, as a page shows them.
    """

    version: str
    recipe: Recipe
    model: Mapping[str, Any]
    calibration_samples: int
    verdict: str
    preparation: tuple[TransformationCheck, ...]
    anew: tuple[WrittenAnew, ...]
    layers: tuple[LayerReport, ...]
    evaluation: Evaluation
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    guard: Verdict | None = None
    steps: tuple[StepOutcome, ...] = ()
    allocation: Allocated | None = None
    tensors: tuple[TensorReport, ...] = ()
    verification: Verification | None = None
    parity: tuple[OutputParity, ...] = ()
    package_bytes: int | None = None
    causes: tuple[Cause, ...] = ()
    devices: tuple[Mapping[str, Any], ...] = ()
    precision: str = ""
    machine: Machine | None = None
    class_names: tuple[str, ...] = ()
    previews: tuple[Preview, ...] = ()
    distillation_samples: int = 0

    def to_json(self) -> str:
        return json.dumps(finite(dataclasses.asdict(self)), indent=1, allow_nan=False) + "\n"


def model_facts(loaded: LoadedModel, prepared: Prepared) -> dict[str, Any]:
    """Name, framework and size of the model as loaded and as prepared."""
    parameters = {id(w): int(w.size) for node in loaded.graph.nodes for w in node.weights.values()}
    return {
        "name": loaded.name,
        "framework": loaded.framework,
        "parameters": sum(parameters.values()),
        "nodes_loaded": len(loaded.graph.nodes),
        "nodes_prepared": len(prepared.graph.nodes),
    }


def tensor_reports(
    model: QuantizedModel, calibration: Calibration, guard: Verdict | None, tuned: Collection[str] = ()
) -> tuple[TensorReport, ...]:
    """Ranges and histograms of all activation tensors, as they were kept; `tuned`: groups by the end's error."""
    rolled_back = guard is not None and guard.rolled_back
    found = []
    for name, grid in model.grids.items():
        group, statistics = calibration.groups[name], calibration.statistics.get(name)
        choice = calibration.choices.get(group)
        method = "prescribed" if choice is None else "minmax" if rolled_back else choice.method
        found.append(
            TensorReport(
                name,
                group,
                (statistics.minimum, statistics.maximum) if statistics else None,
                grid.real_range,
                grid.bits,
                "range tuning" if group in tuned else method,
                {} if choice is None else choice.errors,
                choice is not None and (choice.rolled_back or (rolled_back and choice.method != "minmax")),
                histogram.summary(statistics.histogram) if statistics else None,
            )
        )
    return tuple(found)


def layer_reports(
    model: QuantizedModel,
    errors: Sequence[LayerError] = (),
    parity: Sequence[LayerParity] = (),
    steps: Sequence[StepOutcome] = (),
    times: Mapping[str, float] = _NONE,
) -> tuple[LayerReport, ...]:
    """One row a layer, with its errors, parity, reconstruction and time where they were measured."""
    outcomes = [outcome for step in steps for outcome in step.layers]
    error_of, parity_of = {e.name: e for e in errors}, {p.name: p for p in parity}
    found = []
    for layer in model.layers:
        kernels = [grid for name, grid in layer.weight_grids.items() if name != "bias"]
        error, measured = error_of.get(layer.name), parity_of.get(layer.name)
        found.append(
            LayerReport(
                layer.name,
                layer.origin,
                layer.kind,
                layer.precision.arithmetic,
                layer.reason,
                kernels[0].bits if kernels else None,
                kernels[0].storage if kernels else None,
                sum(int(w.size) for w in layer.weights.values()),
                error.sqnr_db if error else None,
                error.own_sqnr_db if error else None,
                measured.max_steps if measured else None,
                measured.differing if measured else None,
                tuple(outcome for outcome in outcomes if outcome.name == layer.name),
                kernels[0].entropy_bits if kernels else 0,
                layer.inputs,
                times.get(layer.name),
                len(kernels[0].codebook) if kernels else 0,
            )
        )
    return tuple(found)


def finite(value: Any) -> Any:
    """The same tree with None for infinities and NaN, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
