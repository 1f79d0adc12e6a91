"""From calibration samples to one range for every group of tensors that share a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from tfq.calibration.choose import Choice, choose_range
from tfq.calibration.collect import CollectionCost, collect_statistics
from tfq.calibration.statistics import Range, TensorStatistics, merge_statistics
from tfq.execution.progress import Progress, Silent
from tfq.models.graph import Graph
from tfq.models.grids import grid_groups
from tfq.models.operators import OPERATORS


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the calibration samples showed and what was concluded.

    Attributes:
      groups: activation tensor -> the group whose grid it is on (`tfq.models.grids`).
      choices: group -> its range and the errors of all methods tried. Groups whose grid TFLite
        prescribes (softmax, sigmoid, tanh) have none.
      statistics: tensor -> statistics over all samples.
      cost: time of the pass against the bare forward pass.
    """

    groups: Mapping[str, str]
    choices: Mapping[str, Choice]
    statistics: Mapping[str, TensorStatistics]
    cost: CollectionCost


def calibrate(
    graph: Graph,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    method: str,
    percentile: float,
    total: int,
    bits: int = 8,
    progress: Progress | None = None,
) -> Calibration:
    """Run the samples once and choose every group's range.

    Args:
      graph: the prepared graph.
      batches: arrays [k, ...] by input name; `total` samples in all.
      method, percentile, bits: as in `choose_range`.
    """
    groups = grid_groups(graph)
    collected = collect_statistics(graph, batches, tensors=list(groups), total=total, progress=progress or Silent())
    members: dict[str, list[str]] = {}
    for tensor, group in groups.items():
        members.setdefault(group, []).append(tensor)
    choices = {}
    for group, tensors in members.items():
        if any(fixed_grid(graph, t) for t in tensors):
            continue
        fit, held_back = (
            merge_statistics(*(part[t] for t in tensors)) for part in (collected.fit, collected.held_back)
        )
        choice = choose_range(fit, held_back, method=method, percentile=percentile, bits=bits)
        choices[group] = dataclasses.replace(choice, range=_covering_tables(choice.range, graph, tensors))
    statistics = {t: merge_statistics(collected.fit[t], collected.held_back[t]) for t in groups}
    return Calibration(groups, choices, statistics, collected.cost)


def fixed_grid(graph: Graph, tensor: str) -> tuple[float, int] | None:
    """(scale, zero-point) that TFLite prescribes for the tensor, if it does."""
    operator = OPERATORS.get(graph[tensor].kind)
    return operator.fixed if operator is not None else None


def _covering_tables(found: Range, graph: Graph, tensors: Iterable[str]) -> Range:
    """The range widened to hold every row of the embedding tables that lie on it, seen in the samples or not."""
    tables = [graph[t].weights["embeddings"] for t in tensors if graph[t].kind == "Embedding"]
    low = min([found.low, *(float(t.min()) for t in tables)])
    high = max([found.high, *(float(t.max()) for t in tables)])
    return Range(low, high)
