"""What devices measured of a run's models, merged into the run's report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tfq import __version__
from tfq.errors import UserError
from tfq.execution.files import write_atomic
from tfq.execution.inputs import kind_of
from tfq.execution.json_files import built, read_json, shown
from tfq.report.page import page
from tfq.report.schema import ReportFile

MODELS = ("float.tflite", "model.tflite")


def read_report(directory: Path) -> dict[str, Any]:
    """The report of the run that wrote to this directory, parsed, with all that `ReportFile` names.

    Raises UserError where there is none, or one that lacks something.
    """
    path = directory / "report.json"
    with contextlib.suppress(OSError, ValueError):  # what these are of, read_json says
        if not kind_of(path):
            raise UserError(f"{path} cannot be read: no such file; give the `output_dir` of a tfq-quantize run")
    found = read_json(path, what=str(path))
    try:
        built(ReportFile, found, what=str(path), unknown=None)
    except UserError as error:
        raise UserError(f"{error}; {_writer(found)}give the `output_dir` of a tfq-quantize run") from error
    return dict(found)


def rendered(report: Mapping[str, Any], path: Path) -> str:
    """The page of the report of a file. Raises UserError where the page needs what the report does not hold."""
    try:
        return page(report)
    except (jinja2.TemplateError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold what report.html shows ({type(error).__name__}: {error}); {_writer(report)}run"
            " tfq-quantize anew"
        ) from error


def merge_devices(directory: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Put these devices into report.json and report.html of a run. Raises UserError where they cannot be written."""
    report = with_devices(read_report(directory), found)
    html = rendered(report, directory / "report.json")
    write_atomic(directory / "report.html", html.encode())
    write_atomic(directory / "report.json", (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def with_devices(report: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report with these devices in it, each in the place of what it measured before.

    Args:
      report: of a run, parsed.
      found: reports of tfq-bench, parsed. The single runs stay there; the report keeps what is made of them.
    """
    serials = {entry["device"]["serial"] for entry in found}
    earlier = [entry for entry in report.get("devices", []) if entry["device"]["serial"] not in serials]
    return {**report, "devices": earlier + [_brief(entry) for entry in found]}


def _brief(entry: Mapping[str, Any]) -> dict[str, Any]:
    models = []
    for model in entry["models"]:
        timings = []
        for timing in model["timings"]:
            latency = timing["latency"]
            kept = None if latency is None else {k: v for k, v in latency.items() if k != "rounds_us"}
            timings.append({**timing, "latency": kept})
        models.append({**model, "timings": timings})
    return {**entry, "models": models}


def _writer(report: Any) -> str:
    """Who wrote a report, where that was another version."""
    version = report.get("version") if isinstance(report, Mapping) else None
    return (
        f"tfq {shown(version)} wrote it, this is {__version__}; "
        if isinstance(version, str) and version != __version__
        else ""
    )
