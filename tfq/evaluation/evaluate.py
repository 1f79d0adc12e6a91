"""Models side by side on the same samples: score, agreement with the first of them, size, latency."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError
from tfq.evaluation.agreement import Decisions, class_agreement, gives_classes
from tfq.evaluation.bootstrap import CONFIDENCE, Estimate, Statistic, estimate, point, resampled
from tfq.evaluation.changes import Changes, class_changes
from tfq.evaluation.latency import DEFAULT as TIMING
from tfq.evaluation.latency import Latency, Timing, measure_latency
from tfq.evaluation.metric import Metric, Predictions
from tfq.evaluation.metrics import Wanted, find_metric
from tfq.evaluation.parts import Part, channel_parts
from tfq.evaluation.signals import sqnr_against
from tfq.evaluation.size import Size, measure_size
from tfq.execution.delegation import Delegation, delegation
from tfq.execution.interpreter import TensorInfo, TfliteModel
from tfq.execution.predict import predict
from tfq.execution.progress import SILENT, Progress
from tfq.execution.resources import DEFAULT as RESOURCES
from tfq.execution.resources import Resources
from tfq.execution.views import Arrays

_TRIED = 8


@dataclasses.dataclass(frozen=True)
class ModelEvaluation:
    """What was measured of one model.

    Attributes:
      name: as given.
      size: bytes and bits; None of a simulation.
      score: by the metric; None where the metric was left out.
      difference: score minus the baseline's, with the paired interval; None for the baseline.
      agreement: share of samples with the baseline's class; None for the baseline and for other than classifiers.
      sqnr: of the first output against the baseline's; its value is None where both are equal in every bit.
      other_sqnr: the same of the other outputs, in their order.
      parts: the same of channels of an output, where they differ much in size.
      latency: None where none was asked for, and of a simulation.
      delegation: what XNNPACK takes of it; None without the delegate, and of a simulation.
      changes: which classes it gives where the baseline gives others; None likewise.
      simulated: why there is a simulation only, and neither size nor latency; "" for a file.
    """

    name: str
    size: Size | None
    score: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    sqnr: Estimate | None
    other_sqnr: tuple[Estimate, ...]
    latency: Latency | None
    delegation: Delegation | None = None
    simulated: str = ""
    parts: tuple[Part, ...] = ()
    changes: Changes | None = None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What outputs say of a model: fields of `ModelEvaluation`, and of a device's report, which take all of them."""

    score: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    sqnr: Estimate | None
    other_sqnr: tuple[Estimate, ...] = ()
    parts: tuple[Part, ...] = ()
    changes: Changes | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Simulated:
    """A model without a file, by what its simulation gives.

    Attributes:
      outputs: arrays [n, ...] by output name, on the samples of the evaluation.
      reason: why there is no file.
    """

    outputs: Mapping[str, np.ndarray]
    reason: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of several models on the same samples.

    Attributes:
      models: the baseline first.
      metric: its name; `higher_is_better` is None where only the user knows.
      omitted: why there is no score; "" where there is one.
      outputs: names of the outputs, in the baseline's order; the first is the one that is judged.
      samples: their number.
      seed, confidence: of the intervals.
      decisions: of the baseline; None where it is no classifier.
      constant: outputs that are the same for all samples in the baseline.
    """

    models: tuple[ModelEvaluation, ...]
    metric: str
    higher_is_better: bool | None
    omitted: str
    outputs: tuple[str, ...]
    samples: int
    seed: int
    confidence: float = CONFIDENCE
    decisions: Decisions | None = None
    constant: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ModelEvaluation:
        return {model.name: model for model in self.models}[name]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"


def input_signatures(model: bytes | Path) -> tuple[InputSignature, ...]:
    """The inputs of a .tflite as the data has to serve them: quantised inputs take real values."""
    return tuple(
        InputSignature(info.name, info.shape[1:], "float32" if info.quantized else info.dtype.name)
        for info in TfliteModel(model).inputs
    )


def evaluate(
    models: Mapping[str, bytes | Path | Simulated],
    samples: Samples,
    *,
    metric: Wanted = "top1",
    seed: int = 0,
    threads: int | None = None,
    timing: Timing | None = TIMING,
    delegate: bool = True,
    resources: Resources = RESOURCES,
) -> Evaluation:
    """Measure models on the same samples.

    Args:
      models: .tflite files, their content or simulations, by name; the first is the baseline, a file.
      samples: inputs in real values by the baseline's input names, and labels where there are any.
      metric: see `find_metric`. One that needs labels is left out, with the reason, where there are none.
      seed: of the bootstrap.
      threads: interpreters at work at once while scoring, by default one per core.
      timing: how latency is measured; None: it is not.
      delegate: with XNNPACK, as on a device.

    Raises:
      UserError: broken model, unknown metric, inputs or outputs that do not match, outputs that are not finite.
    """
    judge = find_metric(metric)
    outputs_of: dict[str, tuple[np.ndarray, ...]] = {}
    single: dict[str, Mapping[str, np.ndarray]] = {}
    expected: tuple[TensorInfo, ...] = ()
    taken: dict[str, Delegation] = {}
    files = {name: model for name, model in models.items() if not isinstance(model, Simulated)}
    for name, content in files.items():
        loaded = TfliteModel(content, delegate=delegate)
        expected = expected or loaded.outputs
        if delegate:
            taken[name] = delegation(loaded)
        inputs = inputs_of(loaded, samples.arrays, name)
        single[name] = {
            info.name: np.repeat(inputs[info.name][:1], max(1, info.shape[0]) if info.shape else 1, axis=0)
            for info in loaded.inputs
        }
        found = predict(
            content, inputs, threads=threads, delegate=delegate, resources=resources, description=f"evaluate {name}"
        )
        outputs_of[name] = outputs_like([info.name for info in loaded.outputs], found, expected, name)
    for name, model in models.items():
        if isinstance(model, Simulated):
            outputs_of[name] = outputs_like(list(model.outputs), tuple(model.outputs.values()), expected, name)
    latencies: Mapping[str, Latency] = {}
    if timing is not None:
        latencies = measure_latency(
            files, single, timing=timing, delegate=delegate, seed=seed, progress=resources.progress
        )
    names, baseline = tuple(info.name for info in expected), next(iter(outputs_of.values()))
    first = baseline[judge.first(names)]
    decides = gives_classes(first, samples.arrays, judged_so=judge.classifies)
    judged, omitted = judge_outputs(
        outputs_of, samples, metric=judge, names=names, seed=seed, progress=resources.progress
    )
    evaluated = []
    for name, model in models.items():
        size, simulated = (None, model.reason) if isinstance(model, Simulated) else (measure_size(model), "")
        evaluated.append(
            ModelEvaluation(
                name,
                size,
                **vars(judged[name]),
                latency=latencies.get(name),
                delegation=taken.get(name),
                simulated=simulated,
            )
        )
    return Evaluation(
        models=tuple(evaluated),
        metric=judge.name,
        higher_is_better=judge.higher_is_better,
        omitted=omitted,
        outputs=names,
        samples=len(samples),
        seed=seed,
        decisions=Decisions.of(first) if decides else None,
        constant=tuple(
            name
            for name, values in zip(names, baseline, strict=True)
            if len(samples) > 1 and (values == values[:1]).all()
        ),
    )


def few_outputs(model: bytes | Path, samples: Samples) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    """(outputs [k, ...] of a .tflite on the first samples, their names), for `check_metric`.

    Raises UserError as `evaluate` does.
    """
    loaded = TfliteModel(model)
    inputs = inputs_of(loaded, samples.head(_TRIED).arrays, "the first model")
    names, found = tuple(info.name for info in loaded.outputs), predict(model, inputs, threads=1)
    return outputs_like(names, found, loaded.outputs, "the first model"), names


def check_metric(metric: Wanted, samples: Samples, outputs: Sequence[np.ndarray], names: tuple[str, ...]) -> None:
    """What the metric would say of outputs and labels, or of the user's own function, told before the work.

    It judges `outputs` [k, ...] of a few samples, repeated to the number of samples, against all labels.

    Raises UserError as `evaluate` does.
    """
    judge = find_metric(metric)
    judge.first(names)
    if judge.needs_labels and samples.labels is None:
        return
    repeated = np.arange(len(samples)) % len(outputs[0])
    given = tuple(values[repeated] for values in outputs)
    point(judge.statistic(Predictions(given, samples.labels, samples.arrays, given, names)), len(samples))


def judge_outputs(
    outputs_of: Mapping[str, tuple[np.ndarray, ...]],
    samples: Samples,
    *,
    metric: Wanted,
    names: tuple[str, ...] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[dict[str, Judgement], str]:
    """Judge outputs [n, ...] float32 by model name, wherever they were computed; the first is the baseline.

    The outputs have these `names`, which may be empty where the metric asks for none.

    Returns the judgements by name, and why there are no scores ("" where there are).

    Raises UserError for an unknown metric, and outputs or labels that it cannot judge.
    """
    judge = find_metric(metric)
    baseline = next(iter(outputs_of.values()))
    predictions = {
        name: Predictions(outputs, samples.labels, samples.arrays, baseline, names)
        for name, outputs in outputs_of.items()
    }
    omitted = ""
    if judge.needs_labels and samples.labels is None:
        omitted = f"metric {judge.name} needs labels, and the data has none"
    scores = {} if omitted else _scores(judge, predictions, len(samples), seed=seed, progress=progress)
    first = judge.first(names)
    classifies = gives_classes(baseline[first], samples.arrays, judged_so=judge.classifies)
    judged = {}
    for row, (name, outputs) in enumerate(outputs_of.items()):
        score, difference = scores.get(name, (None, None))
        if not row:
            judged[name] = Judgement(score, difference, None, None)
            continue
        agreement = changes = None
        if classifies:
            changes = class_changes(outputs[first], baseline[first], samples.labels)
            agreement = _estimated(class_agreement(outputs[first], baseline[first]), "%", len(samples), seed)
        sqnr, *others = (
            _estimated(sqnr_against(output, wanted), "dB", len(samples), seed)
            for output, wanted in zip(outputs, baseline, strict=True)
        )
        parts = tuple(
            Part(
                place,
                channels,
                _estimated(sqnr_against(output[..., channels], wanted[..., channels]), "dB", len(samples), seed),
            )
            for place, (output, wanted) in enumerate(zip(outputs, baseline, strict=True))
            for channels in channel_parts(wanted)
        )
        judged[name] = Judgement(score, difference, agreement, sqnr, tuple(others), parts, changes)
    return judged, omitted


def _scores(
    judge: Metric, predictions: Mapping[str, Predictions], n: int, *, seed: int, progress: Progress
) -> dict[str, tuple[Estimate, Estimate | None]]:
    """By model: its score, and the difference to the first model's."""
    statistics = [judge.statistic(found) for found in predictions.values()]
    values = [point(statistic, n) for statistic in statistics]
    drawn = resampled(statistics, n, seed=seed, progress=progress)
    scores: dict[str, tuple[Estimate, Estimate | None]] = {}
    with np.errstate(invalid="ignore"):  # infinite minus infinite: the baseline against itself
        for row, name in enumerate(predictions):
            difference = None
            if row:
                unit = "points" if judge.unit == "%" else judge.unit
                difference = estimate(values[row] - values[0], drawn[row] - drawn[0], unit=unit, n=n)
            scores[name] = estimate(values[row], drawn[row], unit=judge.unit, n=n), difference
    return scores


def _estimated(statistic: Statistic, unit: str, n: int, seed: int) -> Estimate:
    return estimate(point(statistic, n), resampled([statistic], n, seed=seed)[0], unit=unit, n=n)


def inputs_of(model: TfliteModel, arrays: Arrays, name: str) -> Arrays:
    """The samples under this model's input names: the same names, or its only input for the only array."""
    wanted = [info.name for info in model.inputs]
    if set(wanted) == set(arrays):
        return dict(arrays)
    if len(wanted) == len(arrays) == 1:
        return {wanted[0]: next(iter(arrays.values()))}
    raise UserError(f"{name} has the inputs {', '.join(wanted)}; the data serves {', '.join(arrays)}")


def outputs_like(
    names: Sequence[str], found: tuple[np.ndarray, ...], expected: tuple[TensorInfo, ...], name: str
) -> tuple[np.ndarray, ...]:
    """Outputs in the baseline's order: by name where the names are the same, else by position."""
    by_name = dict(zip(names, found, strict=True))
    if set(by_name) == {info.name for info in expected}:
        found = tuple(by_name[info.name] for info in expected)
    shapes, wanted = [tuple(f.shape[1:]) for f in found], [info.shape[1:] for info in expected]
    if len(shapes) != len(wanted) or any(
        len(s) != len(w) or any(e not in (-1, g) for e, g in zip(w, s, strict=True))
        for s, w in zip(shapes, wanted, strict=True)
    ):
        raise UserError(f"{name} gives outputs of the shapes {shapes}, the baseline {wanted}; compare like with like")
    for info, values in zip(expected, found, strict=True):
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
            raise UserError(f"{name} gives NaN or infinite values in output {info.name!r} for {bad} of {len(values)}")
    return found
