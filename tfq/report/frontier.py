"""The frontier of accuracy, size and latency as a table, JSON, CSV and a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfq import __version__
from tfq.allocation.allocate import DOWNLOAD
from tfq.allocation.frontier import Frontier, undominated
from tfq.allocation.wish import LATENCY, WEIGHTS
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.execution.files import FRONTIER_NAMES, staged_directory
from tfq.execution.journal import Journal, Stage
from tfq.recipe import Recipe
from tfq.report.report import finite
from tfq.report.summary import interval, number
from tfq.report.table import format_table, html_table

BASE = "w8"  # name of the 8-bit model
_COLUMNS = (
    "model",
    "flag",
    "on_frontier",
    "weight_bits",
    "file_bytes",
    "download_bytes",
    "download_bytes_predicted",
    "latency_ms_predicted",
    "loss_predicted",
    "loss_measured",
    "score",
    "difference",
    "difference_low",
    "difference_high",
    "agreement",
)


@dataclasses.dataclass(frozen=True)
class FrontierPoint:
    """One model.

    Attributes:
      name: "point 1", ...
      flag: the budget, as a flag of tfq-quantize.
      candidates: of every unit.
      weight_bits: mean grid bits of the weights.
      predicted: the program's degradation and costs.
      measured_loss: increase of the loss over the 8-bit model on calibration samples, of this model.
      proposed_by: whose allocation lost least as measured: "program", "greedy" or "uniform".
      on_frontier: no other point is as small, as fast and as close to float on calibration samples.
      evaluation: of the model.
    """

    name: str
    flag: str
    candidates: Mapping[str, str]
    weight_bits: float
    predicted: Mapping[str, float]
    measured_loss: float
    proposed_by: str
    on_frontier: bool
    evaluation: ModelEvaluation


@dataclasses.dataclass(frozen=True, repr=False)
class FrontierReport:
    """All points with what they are compared with.

    Attributes:
      version: of tfq.
      recipe: what was asked for.
      model: name, framework, nodes, parameters.
      reconstructed: every point was reconstructed in sequence; otherwise put together from parallel states.
      points: by falling budget; of the size first, then of the latency where there is a table.
      evaluation: of the float model, of the 8-bit model and of the points.
      stages, warnings: as the run went.
    """

    version: str
    recipe: Recipe
    model: Mapping[str, Any]
    reconstructed: bool
    points: tuple[FrontierPoint, ...]
    evaluation: Evaluation
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        model: Mapping[str, Any],
        frontier: Frontier,
        evaluation: Evaluation,
        *,
        float_weight_bytes: int,
        journal: Journal,
    ) -> FrontierReport:
        """The report of these points.

        Args:
          frontier: the points; `evaluation` calls them by the same names.
          float_weight_bytes: of which a size budget is a share.
        """
        points = frontier.points
        sizes = {name: evaluation[name].size for name in points}
        small = [
            [
                float(size.download_bytes) if (size := sizes[name]) else 0.0,
                point.last.costs.get(LATENCY, 0.0),
                point.last.measured.loss,
            ]
            for name, point in points.items()
        ]
        rows = []
        for (name, point), best in zip(points.items(), undominated(small), strict=True):
            budget = (
                f"--size_budget={point.budget / float_weight_bytes:.4g}"
                if point.cost == WEIGHTS
                else f"--latency_budget={point.budget:.4g}ms"
            )
            last, size = point.last, sizes[name]
            rows.append(
                FrontierPoint(
                    name,
                    budget,
                    dict(last.candidates),
                    size.weight_bits if size else 0.0,
                    {"degradation": last.predicted, **{c: last.costs[c] for c in frontier.problem.names}},
                    last.measured.loss,
                    last.name,
                    best,
                    evaluation[name],
                )
            )
        stages, warnings = tuple(journal.stages), tuple(journal.warnings)
        return cls(__version__, recipe, model, frontier.reconstructed, tuple(rows), evaluation, stages, warnings)

    def to_json(self) -> str:
        return json.dumps(finite(dataclasses.asdict(self)), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """A row for the float model, for the 8-bit model and for each point."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        by_name = {point.name: point for point in self.points}
        for model in self.evaluation.models:
            point, size = by_name.get(model.name), model.size
            predicted = point.predicted if point else {}
            ends = dataclasses.astuple(model.difference)[:3] if model.difference else (None,) * 3
            writer.writerow(
                [
                    model.name,
                    point.flag if point else "",
                    int(point.on_frontier) if point else "",
                    *([f"{size.weight_bits:.4g}", size.file_bytes, size.download_bytes] if size else [""] * 3),
                    *(_cell(predicted.get(name)) for name in (DOWNLOAD, LATENCY, "degradation")),
                    _cell(point.measured_loss if point else None),
                    _cell(model.score.value if model.score else None),
                    *map(_cell, ends),
                    _cell(model.agreement.value if model.agreement else None),
                ]
            )
        return text.getvalue()

    def table(self) -> str:
        """What a person reads."""
        return format_table(*self._cells(), left=2)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        timed = any(LATENCY in point.predicted for point in self.points)
        by_name = {point.name: point for point in self.points}
        rows = []
        base = self.evaluation.models[0].size
        assert base is not None
        for model in self.evaluation.models:
            point, size = by_name.get(model.name), model.size
            assert size is not None  # every model here is a file
            rows.append(
                [
                    ("* " if point and point.on_frontier else "  ") + model.name,
                    point.flag if point else "",
                    f"{size.weight_bits:.2f}",
                    f"{size.download_bytes:,}",
                    f"{size.download_bytes / base.download_bytes:.3f}x",
                    *([f"{point.predicted[LATENCY]:.3f} ms" if point else ""] if timed else []),
                    f"{point.predicted['degradation']:.3g}" if point else "",
                    f"{point.measured_loss:.3g}" if point else "",
                    number(model.score),
                    interval(model.difference, sign="+"),
                    number(model.agreement),
                ]
            )
        header = [
            "model",
            "budget",
            "bits",
            "download",
            "of float",
            *(["latency"] if timed else []),
            "predicted",
            "loss",
        ]
        header += [self.evaluation.metric, "difference [95 %]", "agreement"]
        return header, rows

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write frontier.json, .csv and .png and recipe.json, whole or not at all, and return where they are.

        Args:
          directory: a new folder; missing parents are made.
          overwrite: replace the files of an earlier run.

        Raises UserError where it is there already or cannot be written, or holds files of others.
        """
        with staged_directory(Path(directory), overwrite=overwrite, ours=FRONTIER_NAMES) as staged:
            self.write(staged)
        return Path(directory)

    def write(self, directory: Path) -> None:
        """Write the files into a folder that is there."""
        (directory / "frontier.json").write_text(self.to_json(), encoding="utf-8")
        (directory / "frontier.csv").write_text(self.to_csv(), encoding="utf-8")
        (directory / "recipe.json").write_text(self.recipe.to_json(), encoding="utf-8")
        self.picture(directory / "frontier.png")

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table(*self._cells())

    def picture(self, path: Path) -> None:
        """A PNG: score over download bytes and, with a table, over latency; agreement where there are no labels."""
        from matplotlib.figure import Figure  # not pyplot: no state, no display

        axes_of = [(DOWNLOAD, "download, kB", 1e-3)]
        if any(LATENCY in point.predicted for point in self.points):
            axes_of.append((LATENCY, "latency by the table, ms", 1.0))
        figure = Figure(figsize=(6.5 * len(axes_of), 4.2), dpi=120, layout="constrained")
        panels = figure.subplots(1, len(axes_of), squeeze=False)
        scored = self.evaluation.models[0].score is not None
        for axes, (cost, label, scale) in zip(panels[0], axes_of, strict=True):
            for chosen, color in ((True, "#08519c"), (False, "#9ecae1")):
                shown = [point for point in self.points if point.on_frontier == chosen]
                found = [_drawn(point, cost, scored) for point in shown]
                if not found:
                    continue
                x, y, below, above = (list(column) for column in zip(*sorted(found), strict=True))
                axes.errorbar(
                    [scale * value for value in x],
                    y,
                    yerr=[below, above],
                    linestyle="-" if chosen else "none",
                    capsize=2,
                    linewidth=1,
                    label="on the frontier" if chosen else "another is smaller and better",
                    color=color,
                    marker="o",
                )
            base = self.evaluation[BASE]
            if cost == DOWNLOAD and base.size is not None:
                height = _height(base, scored)[0]
                axes.plot(scale * base.size.download_bytes, height, "s", color="#636363", label="8 bits")
            axes.set_xlabel(label)
            axes.set_ylabel(f"{self.evaluation.metric} against float, points" if scored else "agreement with float, %")
            axes.axhline(0.0 if scored else 100.0, color="#636363", linewidth=0.8, linestyle="--", label="float")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        samples = self.evaluation.samples
        figure.suptitle(f"{self.model['name']}: accuracy over cost, {samples} samples, bars 95 %", fontsize=10)
        figure.savefig(path, metadata={"Software": None})


def _drawn(point: FrontierPoint, cost: str, scored: bool) -> tuple[float, float, float, float]:
    """(cost, height, its bar downward, upward)."""
    size = point.evaluation.size
    x = float(size.download_bytes) if cost == DOWNLOAD and size else point.predicted[cost]
    return x, *_height(point.evaluation, scored)


def _height(model: ModelEvaluation, scored: bool) -> tuple[float, float, float]:
    """(height, its bar downward, upward)."""
    found = model.difference if scored else model.agreement
    if found is None or found.value is None:
        return math.nan, 0.0, 0.0
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return found.value, max(0.0, found.value - low), max(0.0, high - found.value)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
