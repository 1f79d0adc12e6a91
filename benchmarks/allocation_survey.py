"""A case, ready to be surveyed: what `tfq-quantize` knows of a model when allocation begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ablation import calibrated, load_prepared, nearest, setting_of
from tfq.allocation.latency_table import LatencyTable
from tfq.allocation.survey import At, Survey, survey
from tfq.allocation.wish import Wish
from tfq.calibration.specify import specify
from tfq.data.samples import Samples
from tfq.execution.progress import Progress
from tfq.models.graph import Graph
from tfq.models.widths import assign_widths, units
from tfq.precision import Precision
from tfq.recipe import Recipe
from tfq.reconstruction.steps import Setting
from tfq.simulate.judge import Version

_EVERY_WIDTH = Wish()


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """What a survey starts from.

    Attributes:
      setting: the float graph, the calibration samples, the advanced pipeline's reconstruction.
      base: the 8-bit version, rounded to the nearest.
      at: makes the versions that sequential reconstruction starts from.
      samples: for calibration.
    """

    setting: Setting
    base: Version
    at: At
    samples: Samples

    @property
    def graph(self) -> Graph:
        return self.setting.graph

    def survey(
        self, *, wish: Wish = _EVERY_WIDTH, table: LatencyTable | None = None, progress: Progress | None = None
    ) -> Survey:
        """What the wish offers: as it stands every unit at 2, 3, 4, 5, 6 and 8 bits, stored as int8."""
        setting = self.setting if progress is None else dataclasses.replace(self.setting, progress=progress)
        return survey(setting, self.base, self.at, wish, table=table)


def ready(model: Path, calibration: Path, num_samples: int, *, workers: int = 1, seed: int = 0) -> Ready:
    """With the defaults of `tfq-quantize --pipeline=advanced`, on the first samples."""
    loaded, samples = load_prepared(model, calibration, num_samples)
    graph, widths = assign_widths(loaded, weight_bits=8)
    calibration_of_graph = calibrated(graph, widths, samples)
    ranges = calibration_of_graph.ranges

    def at(chosen: Mapping[str, Precision]) -> Version:
        bits = {node: chosen[unit.name].weight_bits for unit in units(graph) for node in unit.nodes}
        return Version("nearest", graph, specify(graph, ranges, weight_bits=bits, activation_bits=widths.activations))

    recipe = Recipe(model="", pipeline="advanced", workers=workers, seed=seed)
    setting = setting_of(recipe, graph, widths, samples)
    return Ready(setting, nearest(graph, widths, calibration_of_graph), at, samples)
