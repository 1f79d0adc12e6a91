"""What the commands read of a report.json: the fields, and what each holds.

A report holds more than this, and a report of another version of tfq may; only what is read has to be there. The types
are those of `tfq.report.report`, which would load TensorFlow, save that what was not finite is None. Pages draw more of
a report: what they cannot draw is told by `tfq.report.devices.rendered`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class EstimateFile:
    """`tfq.evaluation.bootstrap.Estimate`."""

    value: float | None
    low: float | None
    high: float | None
    unit: str


@dataclasses.dataclass(frozen=True)
class SizeFile:
    """`tfq.evaluation.size.Size`."""

    file_bytes: int
    download_bytes: int
    weight_bits: float


@dataclasses.dataclass(frozen=True)
class LatencyFile:
    """`tfq.evaluation.latency.Latency`."""

    p50_ms: float
    ratio: EstimateFile | None


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """`tfq.evaluation.evaluate.ModelEvaluation`."""

    name: str
    size: SizeFile | None
    score: EstimateFile | None
    difference: EstimateFile | None
    agreement: EstimateFile | None
    sqnr: EstimateFile | None
    latency: LatencyFile | None


@dataclasses.dataclass(frozen=True)
class EvaluationFile:
    """`tfq.evaluation.evaluate.Evaluation`."""

    models: tuple[ModelFile, ...]
    metric: str
    samples: int

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("no model; expected at least one")


@dataclasses.dataclass(frozen=True)
class LayerFile:
    """`tfq.report.report.LayerReport`."""

    name: str
    keras_layers: tuple[str, ...]
    kind: str
    precision: str
    reason: str
    weight_bits: int | None
    storage: str | None
    parameters: int
    entropy_bits: int
    sqnr_db: float | None
    own_sqnr_db: float | None
    parity_max_steps: float | None
    parity_differing: float | None


@dataclasses.dataclass(frozen=True)
class TensorFile:
    """`tfq.report.report.TensorReport`."""

    name: str
    range: tuple[float, float]
    bits: int
    method: str
    rolled_back: bool


@dataclasses.dataclass(frozen=True)
class StageFile:
    """`tfq.execution.journal.Stage`."""

    name: str
    seconds: float
    peak_memory_mb: float


@dataclasses.dataclass(frozen=True)
class DeviceNameFile:
    """`tfq_bench.results.Description`."""

    serial: str


@dataclasses.dataclass(frozen=True)
class DeviceFile:
    """`tfq_bench.report.DeviceReport`."""

    device: DeviceNameFile


@dataclasses.dataclass(frozen=True)
class ReportFile:
    """`tfq.report.report.Report`."""

    version: str
    recipe: Mapping[str, Any]
    evaluation: EvaluationFile
    layers: tuple[LayerFile, ...]
    tensors: tuple[TensorFile, ...]
    stages: tuple[StageFile, ...]
    devices: tuple[DeviceFile, ...] = ()
