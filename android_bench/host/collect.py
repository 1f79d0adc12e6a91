"""From what the devices left to reports: outputs checked and judged first, speeds after."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tfq_bench.compare import Difference, compare, compare_real
from tfq_bench.inputs import Feed, per_sample
from tfq_bench.job import Job, Settings, Task, file_sha256
from tfq_bench.quantiles import quantile, ratio_of_rounds
from tfq_bench.report import DeviceReport, Failure, Latency, ModelReport, Profile, Timing
from tfq_bench.results import Collected, Description, Record
from tfq_bench.tensors import read_tensors

import tfq
from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import Judgement, judge_outputs, outputs_like
from tfq.evaluation.metric import Metric
from tfq.execution.interpreter import TensorInfo
from tfq.report.words import counted

_REFERENCE = "the Python interpreter of ai-edge-litert {version} on this host, {kernels} kernels"
_RANDOM = "the inputs are random, since no --evaluation_data was given"
_DRIFT = 0.05
_RISE_DEGREES = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A model that this host can run.

    Attributes:
      name: as given.
      file: a copy of its own.
      feed: its inputs.
      outputs: as the interpreter describes them.
      reference: their elements [invocations, ...] as this host computes them.
      tasks: of the job.
    """

    name: str
    file: Path
    feed: Feed
    outputs: tuple[TensorInfo, ...]
    reference: Sequence[np.ndarray]
    tasks: tuple[Task, ...]


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is done on every device.

    Attributes:
      models: names, in order, of those that cannot be run by this host too; the first is the baseline.
      prepared: by name.
      failures: of the others.
      metric: judges the outputs; None where the samples are random, which says nothing of accuracy.
      allowed_lsb: steps of an output's grid by which a device may differ from this host.
    """

    models: tuple[str, ...]
    prepared: Mapping[str, Prepared]
    job: Job
    failures: tuple[Failure, ...]
    samples: Samples
    metric: Metric | None
    allowed_lsb: float
    seed: int = 0

    @property
    def settings(self) -> Settings:
        return self.job.settings


def lost_device(bench: Bench, device: Description, error: Exception, omitted: str = "") -> DeviceReport:
    """The report of a device on which nothing could be measured."""
    failure = Failure("", "", "device", "error", None, " ".join(str(error).split()))
    return _report(bench, Collected(device, {}, {}, {}, {}, {}), (), (failure,), (), omitted)


def device_report(bench: Bench, found: Collected) -> DeviceReport:
    """Everything about one device on which the job was run."""
    emulated = found.device.emulated
    if not emulated and found.machine.get("emulated"):
        emulated = "the runner's processor is emulated"
    found = dataclasses.replace(found, device=dataclasses.replace(found.device, emulated=emulated))
    failures: list[Failure] = []
    warnings = [*found.notes]
    if emulated:
        warnings.append(f"{emulated}: its timings mean nothing and are left out")
    elements: dict[str, list[np.ndarray]] = {}
    differences: dict[str, tuple[Difference, ...]] = {}
    for name, model in bench.prepared.items():
        failures += _task_failures(bench, model, found, warnings)
        try:
            if (outputs := _outputs(model, found)) is not None:
                differences[name] = tuple(map(compare, model.outputs, outputs, model.reference))
                elements[name] = outputs
        except UserError as error:
            failures.append(Failure(name, "", "collect", "error", None, str(error)))
    judged, against, omitted, not_judged = _judged(bench, elements, warnings)
    failures += not_judged
    timings: dict[str, tuple[Timing, ...]] = {}
    models = []
    for name, model in bench.prepared.items():
        base = timings.get(bench.models[0])
        timings[name] = _timings(bench, model, found, base, publish=not emulated)
        checked = differences.get(name, ())
        differ = None if not checked else not all(d.within(bench.allowed_lsb) for d in checked)
        record = _result(found, model.tasks, "outputs")
        models.append(
            ModelReport(
                name=name,
                sha256=file_sha256(model.file),
                file_bytes=model.file.stat().st_size,
                samples=len(bench.samples),
                outputs_sha256=record["outputs_sha256"] if record else "",
                against_host=checked,
                outputs_differ=differ,
                against_baseline=against.get(name, ()),
                **vars(judged.get(name, Judgement(None, None, None, None))),
                timings=timings[name],
                profiles=_profiles(bench, model, found, publish=not emulated),
            )
        )
        warnings += _warnings(models[-1], bench)
    warnings += _thermal_warnings(found)
    return _report(bench, found, tuple(models), tuple(failures), tuple(dict.fromkeys(warnings)), omitted)


def _report(
    bench: Bench,
    found: Collected,
    models: tuple[ModelReport, ...],
    failures: tuple[Failure, ...],
    warnings: tuple[str, ...],
    omitted: str,
) -> DeviceReport:
    return DeviceReport(
        device=found.device,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tfq=tfq.__version__,
        settings={**dataclasses.asdict(bench.settings), "allowed_lsb": bench.allowed_lsb, "seed": bench.seed},
        metric=bench.metric.name if bench.metric else "",
        omitted=omitted,
        reference=_REFERENCE.format(
            version=importlib.metadata.version("ai-edge-litert"), kernels=bench.settings.kernels
        ),
        machine=found.machine,
        before=found.before,
        after=found.after,
        models=models,
        failures=(*bench.failures, *failures),
        warnings=warnings,
    )


def _task_failures(bench: Bench, model: Prepared, found: Collected, warnings: list[str]) -> list[Failure]:
    failures = []
    for task in model.tasks:
        record = found.records.get(task.id)
        if record and record["status"] == "ok":
            continue
        failure = task_failure(model.name, task, record)
        if task.mode != "profile" or bench.settings.profile_ops:
            failures.append(failure)
        elif not failures:  # a model that does not run at all says so already
            warnings.append(f"{model.name}: its operators could not be counted: {failure.error}")
    return failures


def task_failure(name: str, task: Task, record: Record | None) -> Failure:
    """What a record says of a task of the model `name` that did not go well; None where there is no record."""
    if record is None:
        return Failure(name, task.id, "device", "error", None, "the device gave no result for it")
    told = (record["stage"], record["status"], record["signal"], record["error"], record["output_tail"])
    return Failure(name, task.id, *told)


def _result(found: Collected, tasks: Sequence[Task], mode: str) -> Record | None:
    """The result of the model's first task of this mode that went well."""
    for task in tasks:
        record = found.records.get(task.id)
        if task.mode == mode and record and record["status"] == "ok":
            return record["result"]
    return None


def _outputs(model: Prepared, found: Collected) -> list[np.ndarray] | None:
    task = next(task for task in model.tasks if task.mode == "outputs")
    if _result(found, [task], "outputs") is None:
        return None
    if task.outputs not in found.outputs:
        raise UserError(f"the outputs of {task.id} were not found on the device")
    outputs = [array for _, array in read_tensors(found.outputs[task.outputs])]
    if len(outputs) != len(model.outputs):
        raise UserError(f"the device gave {len(outputs)} outputs; the model has {len(model.outputs)}")
    return outputs


def _judged(
    bench: Bench, elements: Mapping[str, list[np.ndarray]], warnings: list[str]
) -> tuple[dict[str, Judgement], dict[str, tuple[Difference, ...]], str, list[Failure]]:
    """(scores, differences from the baseline, why there is no score, failures) of the outputs of a device."""
    if bench.metric is None:
        return {}, {}, _RANDOM, []
    first = bench.models[0]
    failures: list[Failure] = []
    real: dict[str, tuple[np.ndarray, ...]] = {}
    expected: tuple[TensorInfo, ...] = ()
    available = dict(elements)
    if first in bench.prepared and first not in available:
        available = {first: list(bench.prepared[first].reference), **available}
        if elements:
            warnings.append(f"{first} gave no outputs here: the others are compared with this host's")
    elif first not in bench.prepared:
        warnings.append(f"{first}, the baseline, cannot be run: there is nothing to compare with")
    for name, outputs in available.items():
        model = bench.prepared[name]
        alike = expected or model.outputs
        try:
            values = tuple(
                info.to_real(per_sample(array, model.feed, len(bench.samples)))
                for info, array in zip(model.outputs, outputs, strict=True)
            )
            real[name] = outputs_like([info.name for info in model.outputs], values, alike, name)
            if name == first:
                expected = model.outputs
        except UserError as error:
            failures.append(Failure(name, "", "collect", "error", None, str(error)))
    if not real:
        return {}, {}, "", failures
    options: dict[str, Any] = {
        "metric": bench.metric,
        "names": tuple(info.name for info in alike),
        "seed": bench.seed,
    }
    if first in real:
        judged, omitted = judge_outputs(real, bench.samples, **options)
    else:
        judged, omitted = {}, ""
        for name, values in real.items():
            alone, omitted = judge_outputs({name: values}, bench.samples, **options)
            judged |= alone
    against = {}
    for name in elements.keys() & real.keys() - {first}:
        if first in real:
            steps = _steps(bench.prepared[name].outputs, expected)
            against[name] = tuple(
                compare_real(info.name, a, b, step)
                for info, a, b, step in zip(expected, real[name], real[first], steps, strict=True)
            )
    return {name: judged[name] for name in elements if name in judged}, against, omitted, failures


def _steps(own: Sequence[TensorInfo], expected: Sequence[TensorInfo]) -> list[float | None]:
    """The step of each output's grid, in the baseline's order, as `outputs_like` has it."""
    by_name = {info.name: info for info in own}
    if set(by_name) == {info.name for info in expected}:
        own = [by_name[info.name] for info in expected]
    return [info.scale[0] if len(info.scale) == 1 else None for info in own]


def _timings(
    bench: Bench, model: Prepared, found: Collected, base: tuple[Timing, ...] | None, *, publish: bool
) -> tuple[Timing, ...]:
    written = _result(found, model.tasks, "outputs")
    timings = []
    for threads in bench.settings.threads:
        tasks = [task for task in model.tasks if task.mode == "latency" and task.threads == threads]
        # A list with a place for each round, so that those of two models can be told apart.
        rounds = [_result(found, [task], "latency") for task in tasks]
        done = [found_round for found_round in rounds if found_round]
        if not done:
            continue
        same = None
        if written:
            same = all(found_round["output_sha256"] == written["output_sha256"] for found_round in done)
        against = next((t.latency for t in base or () if t.threads == threads), None)
        timings.append(
            Timing(
                threads=threads,
                cpu_mask_asked=bench.settings.cpu_mask,
                cpu_mask=done[0]["cpu_mask"],
                fully_delegated=done[0]["fully_delegated"],
                same_outputs=same,
                latency=_latency(rounds, against, baseline=model.name == bench.models[0]) if publish else None,
            )
        )
    return tuple(timings)


def _latency(rounds: Sequence[Record | None], base: Latency | None, *, baseline: bool) -> Latency:
    done = [found for found in rounds if found]
    pooled = [us for found in done for us in found["latencies_us"]]
    ratio = None
    if base is not None and not baseline:
        pairs = [
            (found["latency_us"]["p50"]["value"], statistics.median_low(other))
            for found, other in zip(rounds, base.rounds_us, strict=True)
            if found and other
        ]
        ratio = ratio_of_rounds(*zip(*pairs, strict=True)) if pairs else None
    drifts = [found["latency_us"]["drift"] for found in done if found["latency_us"]["drift"]]

    def middle(key: str) -> float:
        return float(statistics.median(found[key] for found in done))

    return Latency(
        runs=len(pooled),
        warmup_runs=sum(found["warmup_runs"] for found in done),
        p50_us=quantile(pooled, 0.5),
        p90_us=quantile(pooled, 0.9),
        p99_us=quantile(pooled, 0.99),
        mean_us=float(np.mean(pooled)),
        min_us=min(pooled),
        max_us=max(pooled),
        ratio_p50=ratio,
        drift=max(drifts, key=lambda d: abs(d - 1)) if drifts else None,
        open_library_ms=middle("open_library_ms"),
        load_ms=middle("load_ms"),
        prepare_ms=middle("prepare_ms"),
        first_run_us=middle("first_run_us"),
        memory=max((found["memory"] for found in done), key=lambda memory: memory["after"]["peak_kb"] or 0),
        device_before=done[0]["device_before"],
        device_after=done[-1]["device_after"],
        rounds_us=tuple(tuple(found["latencies_us"]) if found else () for found in rounds),
    )


def _profiles(bench: Bench, model: Prepared, found: Collected, *, publish: bool) -> tuple[Profile, ...]:
    profiles = []
    for task in model.tasks:
        if task.mode == "profile" and (result := _result(found, [task], "profile")):
            counts = (result["model_ops"], result["plain_ops"], result["delegated_ops"])
            ops = tuple(result["ops"]) if publish and bench.settings.profile_ops else ()
            profiles.append(Profile(task.threads, *counts, ops))
    return tuple(profiles)


def _warnings(model: ModelReport, bench: Bench) -> list[str]:
    warnings = []
    if model.outputs_differ:
        warnings.append(f"{model.name}: its outputs differ from this host's; its speed may be that of something else")
    for timing in model.timings:
        who = f"{model.name}, {counted(timing.threads, 'thread')}"
        if timing.same_outputs is False:
            warnings.append(f"{who}: outputs differ from those with {counted(max(bench.settings.threads), 'thread')}")
        if timing.cpu_mask_asked and int(timing.cpu_mask, 16) != int(timing.cpu_mask_asked, 16):
            warnings.append(f"{who}: ran on the processors {timing.cpu_mask}, not on {timing.cpu_mask_asked} as asked")
        if timing.cpu_mask_asked and int(timing.cpu_mask, 16).bit_count() < timing.threads:
            warnings.append(f"{who} had to share the processors {timing.cpu_mask}: give as many as threads")
        if timing.latency and timing.latency.drift and abs(timing.latency.drift - 1) > _DRIFT:
            change = timing.latency.drift - 1
            more = "more" if change > 0 else "less"
            warnings.append(f"{who}: the last runs of a process took {abs(change):.0%} {more} time than its first ones")
    return warnings


def _thermal_warnings(found: Collected) -> list[str]:
    warnings = []
    latencies = [
        record for record in found.records.values() if record["status"] == "ok" and record["mode"] == "latency"
    ]
    if latencies:
        first, last = latencies[0]["result"]["device_before"], latencies[-1]["result"]["device_after"]
        before = {zone["zone"]: zone["millidegrees"] for zone in first["thermal"]}
        rises = [
            ((zone["millidegrees"] - before[zone["zone"]]) / 1000, zone["type"])
            for zone in last["thermal"]
            if zone["zone"] in before
        ]
        if rises and (rise := max(rises))[0] >= _RISE_DEGREES:
            warnings.append(
                f"the device became {rise[0]:.0f} degrees warmer ({rise[1]}): late figures may be throttled"
            )
    if found.after.get("thermal_status", 0) > 0:
        warnings.append(f"the device says that it is throttling (thermal status {found.after['thermal_status']:g})")
    return warnings
