"""From calibration samples to one range for every group of tensors that share a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from tfq.calibration.choose import Choice, choose_range
from tfq.calibration.collect import CollectionCost, collect_statistics
from tfq.calibration.minmax import minmax_range
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
      tables: groups that hold an embedding table.
      cost: time of the pass against the bare forward pass.
    """

    groups: Mapping[str, str]
    choices: Mapping[str, Choice]
    statistics: Mapping[str, TensorStatistics]
    tables: frozenset[str]
    cost: CollectionCost

    @property
    def ranges(self) -> dict[str, Range]:
        """Group -> the range chosen for it."""
        return {group: choice.range for group, choice in self.choices.items()}

    @property
    def minmax_ranges(self) -> dict[str, Range]:
        """Group -> its min-max range: what every choice is compared with."""
        members: dict[str, list[TensorStatistics]] = {}
        for tensor, group in self.groups.items():
            members.setdefault(group, []).append(self.statistics[tensor])
        found = {group: minmax_range(merge_statistics(*members[group])) for group in self.choices}
        # a chosen range that is wider holds an embedding table whose rows the samples did not reach
        tables = {group: self.choices[group].range for group in self.tables}
        return found | {g: Range(min(found[g].low, t.low), max(found[g].high, t.high)) for g, t in tables.items()}

    def rollback_note(self, method: str) -> str:
        """One line on the ranges where `method` lost to min-max; empty where there are none."""
        lost = [group for group, choice in self.choices.items() if choice.rolled_back]
        if not lost:
            return ""
        named = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        return (
            f"calibration by {method} lost to min-max on held-back samples and was rolled back for {len(lost)} of"
            f" {len(self.choices)} ranges: {named}"
        )


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
        first, second = (merge_statistics(*(part[t] for t in tensors)) for part in (collected.first, collected.second))
        choice = choose_range(first, second, method=method, percentile=percentile, bits=bits)
        choices[group] = dataclasses.replace(choice, range=_covering_tables(choice.range, graph, tensors))
    statistics = {t: merge_statistics(collected.first[t], collected.second[t]) for t in groups}
    tables = frozenset(groups[n.name] for n in graph.nodes if n.kind == "Embedding")
    return Calibration(groups, choices, statistics, tables, collected.cost)


def held_back_positions(count: int) -> np.ndarray:
    """Positions of the `count` calibration samples on which whole models are compared: every fourth, or all of few."""
    positions = np.arange(3, count, 4)
    return positions if len(positions) else np.arange(count)


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
