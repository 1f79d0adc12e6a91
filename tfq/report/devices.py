"""What devices measured of a run's models, merged into the run's report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tfq import __version__
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.latency import Latency
from tfq.evaluation.size import Size
from tfq.execution.files import write_atomic
from tfq.execution.inputs import kind_of
from tfq.execution.journal import Stage
from tfq.execution.json_files import check_read, read_json, shown
from tfq.report.page import page
from tfq.report.report import LayerReport, Report, TensorReport
from tfq.report.words import Spelling

MODELS = ("float.tflite", "model.tflite")
# What the commands read of a report.json. Pages draw more: what they cannot draw is told by `rendered`.
_READ = {
    Report: "version recipe evaluation layers tensors stages",
    Evaluation: "models metric samples",
    ModelEvaluation: "name size score difference agreement sqnr latency",
    Size: "file_bytes download_bytes weight_bits",
    Estimate: "value low high unit",
    Latency: "p50_ms ratio",
    LayerReport: "name keras_layers kind precision reason weight_bits storage parameters entropy_bits clusters"
    " sqnr_db own_sqnr_db parity_max_steps parity_differing",
    TensorReport: "name range bits method rolled_back",
    Stage: "name seconds peak_memory_mb",
}


def read_report(directory: Path) -> dict[str, Any]:
    """The report of the run that wrote to this directory, parsed, with all that the commands read.

    Raises UserError where there is none, or one that lacks something.
    """
    path = directory / "report.json"
    with contextlib.suppress(OSError, ValueError):  # what these are of, read_json says
        if not kind_of(path):
            raise UserError(f"{path} cannot be read: no such file; give the `output_dir` of a tfq-quantize run")
    found = read_json(path, what=str(path))
    try:
        check_read(Report, found, what=str(path), read=_READ)
        if not found["evaluation"]["models"]:
            raise UserError(f"{path}: evaluation: no model; expected at least one")
    except UserError as error:
        raise UserError(f"{error}; {_writer(found)}give the `output_dir` of a tfq-quantize run") from error
    return dict(found)


def rendered(
    report: Mapping[str, Any], path: Path, devices: Sequence[Mapping[str, Any]] = (), spelled: Spelling = str
) -> tuple[dict[str, Any], str]:
    """The report of a file with these devices in it, and its page.

    Raises UserError where the page needs what the report does not hold.
    """
    with drawn(report, path):
        merged = with_devices(report, devices)
        return merged, page(merged, spelled)


@contextlib.contextmanager
def drawn(report: Mapping[str, Any], path: Path) -> Iterator[None]:
    """The block makes a page of the report of this file. Raises UserError where that does not hold what is shown."""
    try:
        yield
    except (jinja2.TemplateError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold what a page shows ({type(error).__name__}: {error}); {_writer(report)}run"
            " tfq-quantize anew"
        ) from error


def merge_devices(directory: Path, found: Sequence[Mapping[str, Any]], spelled: Spelling = str) -> None:
    """Put these devices into report.json and report.html of a run. Raises UserError where they cannot be written."""
    path = directory / "report.json"
    report, html = rendered(read_report(directory), path, found, spelled)
    write_atomic(directory / "report.html", html.encode())
    write_atomic(path, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def with_devices(report: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of a run with these of tfq-bench in it, each in the place of what the device measured before.

    The single runs stay with tfq-bench; the report keeps what is made of them.
    """
    serials = {entry["device"]["serial"] for entry in found}
    earlier = [entry for entry in report.get("devices", []) if entry["device"]["serial"] not in serials]
    return {**report, "devices": earlier + [_brief(entry) for entry in found]}


def _brief(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without the times of the single runs."""

    def kept(timing: Mapping[str, Any]) -> dict[str, Any]:
        latency = timing["latency"]
        return {**timing, "latency": latency and {k: v for k, v in latency.items() if k != "rounds_us"}}

    return {**entry, "models": [{**model, "timings": list(map(kept, model["timings"]))} for model in entry["models"]]}


def _writer(report: Any) -> str:
    """Who wrote a report, where that was another version."""
    version = report.get("version") if isinstance(report, Mapping) else None
    return (
        f"tfq {shown(version)} wrote it, this is {__version__}; "
        if isinstance(version, str) and version != __version__
        else ""
    )
