"""The frontier of accuracy, size and latency as a table, JSON, CSV, a picture and a page."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

from tfq import __version__
from tfq.allocation.allocate import DOWNLOAD
from tfq.allocation.frontier import Frontier, undominated
from tfq.allocation.wish import LATENCY
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.execution.files import FRONTIER_NAMES, POINT_NAMES, Saved
from tfq.execution.journal import Journal, Stage
from tfq.recipe import Recipe
from tfq.report.frontier_page import cost_of, frontier_page, height
from tfq.report.pictures import DARK, GREY, LIGHT, panels
from tfq.report.report import finite
from tfq.report.summary import interval, number
from tfq.report.table import csv_table, format_table, html_table

BASE = "w8"  # name of the 8-bit model


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
class FrontierReport(Saved):
    """All points with what they are compared with; `save` writes frontier.json, .csv, .html and .png and recipe.json.

    Attributes:
      version, recipe: of tfq; what was asked for.
      model: name, framework, nodes, parameters.
      reconstructed: every point was reconstructed in sequence; otherwise put together from parallel states.
      points: by falling budget; of the size first, then of the latency where there is a table.
      evaluation: of the float model, of the 8-bit model and of the points.
      stages, warnings: as the run went.
      models: .tflite files of the points that were asked for, by the points' names.
    """

    own_names = (*FRONTIER_NAMES, *POINT_NAMES)

    version: str
    recipe: Recipe
    model: Mapping[str, Any]
    reconstructed: bool
    points: tuple[FrontierPoint, ...]
    evaluation: Evaluation
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    models: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

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
        models: Mapping[str, bytes],
    ) -> FrontierReport:
        """The report of these points.

        Args:
          frontier: the points; `evaluation` calls them by the same names.
          float_weight_bytes: of which a size budget is a share.
          models: files of points by name.
        """
        points = frontier.points
        sizes = {name: evaluation[name].size for name in points}
        compared = []
        for name, point in points.items():
            download = float(size.download_bytes) if (size := sizes[name]) else 0.0
            compared.append([download, point.last.costs.get(LATENCY, 0.0), point.last.measured.loss])
        rows = []
        for (name, point), best in zip(points.items(), undominated(compared), strict=True):
            last, size = point.last, sizes[name]
            wish = point.wish(float_weight_bytes)
            flag = next(f"--{option}={value}" for option, value in wish.items() if value is not None)
            predicted = {"degradation": last.predicted, **{c: last.costs[c] for c in frontier.problem.names}}
            rows.append(
                FrontierPoint(
                    name=name,
                    flag=flag,
                    candidates=dict(last.candidates),
                    weight_bits=size.weight_bits if size else 0.0,
                    predicted=predicted,
                    measured_loss=last.measured.loss,
                    proposed_by=last.name,
                    on_frontier=best,
                    evaluation=evaluation[name],
                )
            )
        stages, warnings = tuple(journal.stages), tuple(journal.warnings)
        made = frontier.reconstructed, tuple(rows), evaluation
        return cls(__version__, recipe, model, *made, stages, warnings, models)

    def to_json(self) -> str:
        fields = dataclasses.asdict(dataclasses.replace(self, models={}))
        del fields["models"]  # files of their own
        return json.dumps(finite(fields), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """A row for the float model, for the 8-bit model and for each point."""
        by_name = {point.name: point for point in self.points}
        return csv_table([_record(model, by_name.get(model.name)) for model in self.evaluation.models])

    def table(self) -> str:
        """What a person reads."""
        return format_table(*self.cells(), left=2)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header, and a row for each model, of the table."""
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
        latency = ["latency"] if timed else []
        header = ["model", "budget", "bits", "download", "of float", *latency, "predicted", "loss"]
        header += [self.evaluation.metric, "difference [95 %]", "agreement"]
        return header, rows

    @property
    def files(self) -> dict[str, bytes]:  # type: ignore[override]
        """Content by name: frontier.json, .csv, .html and .png, recipe.json, and point_3.tflite and the like."""
        texts = {"json": self.to_json(), "csv": self.to_csv(), "html": frontier_page(self, BASE)}
        found = {f"frontier.{kind}": text.encode() for kind, text in texts.items()}
        found |= {f"{name.replace(' ', '_')}.tflite": content for name, content in self.models.items()}
        return found | {"recipe.json": self.recipe.to_json().encode(), "frontier.png": self.picture()}

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table(*self.cells())

    def picture(self) -> bytes:
        """A PNG: score over download bytes and, with a table, over latency; agreement where there are no labels."""
        axes_of = [(DOWNLOAD, "download, kB", 1e-3)]
        if any(LATENCY in point.predicted for point in self.points):
            axes_of.append((LATENCY, "latency by the table, ms", 1.0))
        figure, plots = panels(6.5 * len(axes_of), 4.2, len(axes_of))
        scored = self.evaluation.models[0].score is not None
        for axes, (cost, label, scale) in zip(plots, axes_of, strict=True):
            for chosen, color in ((True, DARK), (False, LIGHT)):
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
                level = height(base, scored)[0]
                axes.plot(scale * base.size.download_bytes, level, "s", color=GREY, label="8 bits")
            axes.set_xlabel(label)
            axes.set_ylabel(f"{self.evaluation.metric} against float, points" if scored else "agreement with float, %")
            axes.axhline(0.0 if scored else 100.0, color=GREY, linewidth=0.8, linestyle="--", label="float")
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        samples = self.evaluation.samples
        figure.suptitle(f"{self.model['name']}: accuracy over cost, {samples} samples, bars 95 %", fontsize=10)
        png = io.BytesIO()
        figure.savefig(png, metadata={"Software": None})
        return png.getvalue()


def _drawn(point: FrontierPoint, cost: str, scored: bool) -> tuple[float, float, float, float]:
    """(cost, height, its bar downward, upward)."""
    value, low, high = height(point.evaluation, scored)
    return cost_of(point, cost), value, value - low, high - value


def _record(model: ModelEvaluation, point: FrontierPoint | None) -> dict[str, str | int]:
    """The row of a model in frontier.csv."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.6g}"

    size, predicted, difference = model.size, point.predicted if point else {}, model.difference
    return {
        "model": model.name,
        "flag": point.flag if point else "",
        "on_frontier": int(point.on_frontier) if point else "",
        "weight_bits": f"{size.weight_bits:.4g}" if size else "",
        "file_bytes": size.file_bytes if size else "",
        "download_bytes": size.download_bytes if size else "",
        "download_bytes_predicted": cell(predicted.get(DOWNLOAD)),
        "latency_ms_predicted": cell(predicted.get(LATENCY)),
        "loss_predicted": cell(predicted.get("degradation")),
        "loss_measured": cell(point.measured_loss if point else None),
        "score": cell(model.score.value if model.score else None),
        "difference": cell(difference.value if difference else None),
        "difference_low": cell(difference.low if difference else None),
        "difference_high": cell(difference.high if difference else None),
        "agreement": cell(model.agreement.value if model.agreement else None),
    }
