"""A case, ready to be surveyed: what `tfq-quantize` knows of a model when allocation begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ablation import calibrated, load_prepared, setting_of
from tfq.allocation.latency_table import LatencyTable
from tfq.allocation.survey import At, Survey, survey
from tfq.calibration.specify import specify
from tfq.data.samples import Samples
from tfq.execution.progress import Progress
from tfq.models.graph import Graph
from tfq.models.widths import assign_precisions, units
from tfq.option_groups import BudgetOptions
from tfq.precision import INT8, Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.steps import Setting

_EVERY_WIDTH = BudgetOptions()


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """What a survey starts from.

    Attributes:
      setting: the float graph, the calibration samples, the advanced pipeline's reconstruction.
      base: the 8-bit model, rounded to the nearest.
      at: makes the models that sequential reconstruction starts from.
      samples: for calibration.
    """

    setting: Setting
    base: QuantizedModel
    at: At
    samples: Samples

    @property
    def graph(self) -> Graph:
        return self.setting.graph

    def survey(
        self, *, wish: BudgetOptions = _EVERY_WIDTH, table: LatencyTable | None = None, progress: Progress | None = None
    ) -> Survey:
        """What the wish offers: as it stands every unit at 2, 3, 4, 5, 6 and 8 bits, stored as int8."""
        setting = self.setting
        if progress is not None:
            setting = dataclasses.replace(setting, resources=dataclasses.replace(setting.resources, progress=progress))
        return survey(setting, self.base, self.at, wish, table=table)


def ready(model: Path, calibration: Path, num_samples: int, *, workers: int = 1, seed: int = 0) -> Ready:
    """With the defaults of `tfq-quantize --pipeline=advanced`, on the first samples."""
    loaded, samples = load_prepared(model, calibration, num_samples)
    graph, precisions = assign_precisions(loaded, INT8)
    ranges = calibrated(graph, precisions, samples).ranges

    def at(chosen: Mapping[str, Precision]) -> QuantizedModel:
        return specify(graph, ranges, {node: chosen[unit.name] for unit in units(graph) for node in unit.nodes})

    recipe = Recipe(model="", pipeline="advanced", workers=workers, seed=seed)
    setting = setting_of(recipe, graph, precisions, samples)
    return Ready(setting, specify(graph, ranges), at, samples)
