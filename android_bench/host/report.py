"""What was found on one device, as one object that becomes its JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfq_bench.compare import Difference
from tfq_bench.quantiles import Figure
from tfq_bench.results import Description, Record

from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.changes import Changes
from tfq.evaluation.parts import Part

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Failure:
    """Something that was asked for and is not there.

    Attributes:
      model: its name; "" where the whole device failed.
      task: the runner's, or "" where it did not come to one.
      stage: where it was: the runner's stages (FORMAT.md), or "host" before the device was asked, "device" for one
        that was lost or restarted, "collect" for results that cannot be used.
      status: the runner's (error, signal, timeout, exit), or "error".
      signal: number of the signal that ended the process, or None.
      error: one line.
      output_tail: what the runtime wrote last.
    """

    model: str
    task: str
    stage: str
    status: str
    signal: int | None
    error: str
    output_tail: str = ""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one model with one number of threads, over all rounds. Times are in the unit of their name.

    Attributes:
      runs, warmup_runs: timed invocations, and those before them.
      p50_us, p90_us, p99_us: with 95 % intervals.
      ratio_p50: to the baseline, median of the rounds, low and high being the least and the largest; None for it.
      drift: median of the last tenth over that of the first, of the round where it is furthest from 1.
      open_library_ms, load_ms, prepare_ms, first_run_us: medians of the rounds.
      memory: the runner's, of the round with the highest peak.
      device_before, device_after: frequencies, zones and battery before the first and after the last round.
      rounds_us: every timed invocation of each round, in order.
    """

    runs: int
    warmup_runs: int
    p50_us: Figure
    p90_us: Figure
    p99_us: Figure
    mean_us: float
    min_us: float
    max_us: float
    ratio_p50: Figure | None
    drift: float | None
    open_library_ms: float
    load_ms: float
    prepare_ms: float
    first_run_us: float
    memory: Mapping[str, Any]
    device_before: Mapping[str, Any]
    device_after: Mapping[str, Any]
    rounds_us: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Timing:
    """One model with one number of threads.

    Attributes:
      cpu_mask_asked, cpu_mask: what was asked for ("" for nothing), what the process could really run on.
      fully_delegated: a delegate, XNNPACK too, took every operator; None where the runtime does not tell.
      same_outputs: the timed processes computed, for the first sample, what the one that wrote the outputs did;
        None where there are none.
      latency: None on an emulated device, whose timings are not published.
    """

    threads: int
    cpu_mask_asked: str
    cpu_mask: str
    fully_delegated: bool | None
    same_outputs: bool | None
    latency: Latency | None


@dataclasses.dataclass(frozen=True)
class Profile:
    """Operators of one model with one number of threads, from a process of its own with the profiler on.

    Attributes:
      model_ops, plain_ops, delegated_ops: operators of the model, those run by the runtime, those by a delegate.
      ops: the runner's, with p50_us and mean_us; empty without --profile_ops or where the device is emulated.
    """

    threads: int
    model_ops: int | None
    plain_ops: int
    delegated_ops: int
    ops: tuple[Record, ...]


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """One model on one device.

    Attributes:
      sha256, file_bytes: of the file; as the device hashed it where it ran.
      samples: of the evaluation data that it was run on.
      outputs_sha256: over all its outputs, as the device hashed them.
      against_host: each output against this host's Python interpreter with the same kernels.
      outputs_differ: further off than is allowed; its speed is then that of something else.
      against_baseline: each output in real values against the first model's on the same device.
      score, difference, agreement, sqnr, other_sqnr, parts, changes: as tfq-evaluate computes them, on the device's
        outputs.
      timings, profiles: by number of threads.
    """

    name: str
    sha256: str
    file_bytes: int
    samples: int
    outputs_sha256: str
    against_host: tuple[Difference, ...]
    outputs_differ: bool | None
    against_baseline: tuple[Difference, ...]
    score: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    sqnr: Estimate | None
    other_sqnr: tuple[Estimate, ...]
    parts: tuple[Part, ...]
    changes: Changes | None
    timings: tuple[Timing, ...]
    profiles: tuple[Profile, ...]


@dataclasses.dataclass(frozen=True)
class DeviceReport:
    """Everything about one device.

    Attributes:
      date: ISO, UTC, of the collection.
      tfq: version of this program.
      settings: what was asked for.
      metric: name; `omitted` says why there is no score, "" where there is one.
      reference: what the outputs were compared to.
      machine: the runner's line: hashes of runner and library, runtime, ABI, processors.
      before, after: battery and thermal state.
      failures: everything that failed; never a missing row.
      warnings: what a person should know before believing a figure.
    """

    device: Description
    date: str
    tfq: str
    settings: Mapping[str, Any]
    metric: str
    omitted: str
    reference: str
    machine: Record
    before: Mapping[str, float]
    after: Mapping[str, float]
    models: tuple[ModelReport, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        data = {"kind": "tfq-bench", "version": VERSION, **dataclasses.asdict(self)}
        return json.dumps(data, indent=1, allow_nan=False, default=str) + "\n"
