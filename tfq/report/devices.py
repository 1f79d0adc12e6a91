"""What devices measured of a run's models, merged into the run's report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfq.errors import UserError
from tfq.execution.files import write_atomic
from tfq.report.page import page

MODELS = ("float.tflite", "model.tflite")


def read_report(directory: Path) -> dict[str, Any]:
    """The report of the run that wrote to this directory. Raises UserError where there is none."""
    path = directory / "report.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the --output_dir of a tfq-quantize run") from error
    return found


def merge_devices(directory: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Put these devices into report.json and report.html of a run. Raises UserError where they cannot be written."""
    report = with_devices(read_report(directory), found)
    write_atomic(directory / "report.html", page(report).encode())
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
