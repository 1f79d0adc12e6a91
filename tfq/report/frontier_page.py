"""The frontier as a page: every point of its picture shows its figures, precisions and the command that makes it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfq.allocation.allocate import DOWNLOAD
from tfq.allocation.wish import LATENCY
from tfq.report import words
from tfq.report.page import render
from tfq.report.summary import interval, number

if TYPE_CHECKING:
    from tfq.evaluation.evaluate import ModelEvaluation
    from tfq.report.frontier import FrontierPoint, FrontierReport

WIDTH, HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 16, 60
_TICKS = (1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class Mark:
    """One model in a plot, in pixels: its place, and the ends of its interval.

    Attributes:
      name: as in the report.
      chosen: whether no other point beats it; None for what points are compared with.
    """

    name: str
    x: float
    y: float
    low: float
    high: float
    chosen: bool | None


@dataclasses.dataclass(frozen=True)
class Plot:
    """Accuracy over one cost: marks, the line along the frontier, and ticks as (pixel, text)."""

    title: str
    marks: tuple[Mark, ...]
    line: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def frontier_page(report: FrontierReport, base: str) -> str:
    """As one HTML page. base: name of the 8-bit model."""
    costs = [(DOWNLOAD, "Download, kB", 1e-3)]
    if any(LATENCY in point.predicted for point in report.points):
        costs.append((LATENCY, "Latency by the table, ms", 1.0))
    return render(
        "frontier.html",
        report=report,
        scored=report.evaluation.models[0].score is not None,
        plots=[_plot(report, base, *cost) for cost in costs],
        details=[_details(report, point) for point in report.points],
        width=WIDTH,
        height=HEIGHT,
        edges=(_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM),
    )


def height(model: ModelEvaluation, scored: bool) -> tuple[float, float, float]:
    """Of a model in a plot: (the difference of its score to float's, or its agreement; the ends of the interval)."""
    found = model.difference if scored else model.agreement
    if found is None or found.value is None:
        return math.nan, math.nan, math.nan
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return found.value, min(low, found.value), max(high, found.value)


def cost_of(point: FrontierPoint, cost: str) -> float:
    """What a point costs, as measured where it can be."""
    size = point.evaluation.size
    return float(size.download_bytes) if cost == DOWNLOAD and size else point.predicted[cost]


def _plot(report: FrontierReport, base: str, cost: str, title: str, unit: float) -> Plot:
    scored = report.evaluation.models[0].score is not None
    values: list[tuple[str, float, float, float, float, bool | None]] = [
        (point.name, unit * cost_of(point, cost), *height(point.evaluation, scored), point.on_frontier)
        for point in report.points
    ]
    whole = report.evaluation[base]
    if cost == DOWNLOAD and whole.size is not None:
        values.append((base, unit * whole.size.download_bytes, *height(whole, scored), None))
    values = [entry for entry in values if math.isfinite(entry[2])]
    best = 0.0 if scored else 100.0
    x_ticks = ticks([0.0, *(entry[1] for entry in values)])
    y_ticks = ticks([best, *(end for entry in values for end in entry[3:5])])

    def x(value: float) -> float:
        return round(_LEFT + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_TOP + (y_ticks[-1] - value) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - _TOP - _BOTTOM), 1)

    marks = tuple(Mark(name, x(at), y(v), y(low), y(high), chosen) for name, at, v, low, high, chosen in values)
    front = sorted((mark.x, mark.y) for mark in marks if mark.chosen)
    return Plot(
        title,
        marks,
        " ".join(f"{a},{b}" for a, b in front),
        tuple((x(value), f"{value:g}") for value in x_ticks),
        tuple((y(value), f"{value:g}") for value in y_ticks),
    )


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers at even distances, 3 to 8, that enclose these values."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in _TICKS if span / (power * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    return [round(step * place, 10) for place in range(first, last + 1)]


def _details(report: FrontierReport, point: FrontierPoint) -> dict[str, Any]:
    model, size = point.evaluation, point.evaluation.size
    facts = {
        "Budget": point.flag,
        "Download": f"{size.download_bytes:,} bytes" if size else "",
        "File": f"{size.file_bytes:,} bytes" if size else "",
        "Bits of a weight": f"{point.weight_bits:.2f}",
        "Latency by the table": f"{point.predicted[LATENCY]:.3g} ms" if LATENCY in point.predicted else "",
        report.evaluation.metric: number(model.score),
        "Against float": interval(model.difference, sign="+"),
        "Agreement with float": interval(model.agreement),
        "Chosen by": words.proposer(point.proposed_by),
        **_by_precision(point.candidates),
    }
    return {
        "name": point.name,
        "facts": {label: text for label, text in facts.items() if text},
        "command": f"tfq-quantize --recipe=recipe.json {point.flag} --output_dir=out",
    }


def _by_precision(candidates: Mapping[str, str]) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for unit, name in candidates.items():
        groups.setdefault(name, []).append(unit)
    return {f"{name}, {words.counted(len(groups[name]), 'layer')}": ", ".join(groups[name]) for name in sorted(groups)}
