"""From calibration samples to one range for every group of tensors that share a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from tfq.calibration.choose import Choice, choose_range
from tfq.calibration.collect import Halves, collect_statistics
from tfq.calibration.statistics import Range, TensorStatistics, merge_statistics
from tfq.execution.resources import DEFAULT, Resources
from tfq.models.graph import Graph
from tfq.models.grids import grid_groups
from tfq.operations.table import OPERATORS
from tfq.precision import STORED_BITS


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the calibration samples showed and what was concluded.

    Attributes:
      groups: activation tensor -> the group whose grid it is on (`tfq.models.grids`).
      choices: group -> its range and the errors of all methods tried. Groups whose grid TFLite
        prescribes (softmax, sigmoid, tanh) have none.
      trials: the same, method and range, without the samples that judge; the choices where none does.
      statistics: tensor -> statistics over all samples; none of tensors whose grid is prescribed.
    """

    groups: Mapping[str, str]
    choices: Mapping[str, Choice]
    trials: Mapping[str, Choice]
    statistics: Mapping[str, TensorStatistics]

    @property
    def ranges(self) -> dict[str, Range]:
        """Group -> the range chosen for it."""
        return {group: choice.range for group, choice in self.choices.items()}

    @property
    def minmax_ranges(self) -> dict[str, Range]:
        """Group -> its min-max range: what every choice is compared with."""
        return {group: choice.minmax for group, choice in self.choices.items()}

    @property
    def trial_ranges(self) -> dict[str, Range]:
        """As `ranges`, for a comparison on the samples that judge: they had no part in these."""
        return {group: choice.range for group, choice in self.trials.items()}

    @property
    def minmax_trial_ranges(self) -> dict[str, Range]:
        """As `minmax_ranges`, likewise."""
        return {group: choice.minmax for group, choice in self.trials.items()}

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


UNCALIBRATED = Calibration({}, {}, {}, {})


def calibrate(
    graph: Graph,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    method: str,
    total: int,
    judges: Collection[int] = (),
    bits: Mapping[str, int] = {},
    known: Mapping[str, Range] = {},
    resources: Resources = DEFAULT,
) -> Calibration:
    """Run the samples once and choose every group's range.

    Args:
      graph: the prepared graph.
      batches: arrays [k, ...] by input name; `total` samples in all.
      method: as in `choose_range`.
      judges: positions of the samples that judge.
      known: what inputs hold, whether the samples show it or not; the ranges cover it.
      bits: grid bits by group (`tfq.models.widths.activation_bits`); 8 for groups that are absent.
    """
    groups, edges = grid_groups(graph), edge_tensors(graph)
    prescribed = {group for tensor, group in groups.items() if fixed_grid(graph, tensor)}
    members: dict[str, list[str]] = {}
    for tensor, group in groups.items():
        if group not in prescribed:
            members.setdefault(group, []).append(tensor)
    wanted = [tensor for tensors in members.values() for tensor in tensors]
    collected = collect_statistics(graph, batches, tensors=wanted, judges=judges, total=total, resources=resources)

    def chosen(found: Halves) -> dict[str, Choice]:
        choices = {}
        for group, tensors in members.items():
            parts = (merge_statistics(*(part[t] for t in tensors)) for part in (found.first, found.second, found.whole))
            width = bits.get(group, STORED_BITS)
            kept_whole = method == "auto" and width == STORED_BITS and not edges.isdisjoint(tensors)
            used = "minmax" if kept_whole else method
            choice = choose_range(*parts, method=used, bits=width)
            choices[group] = _covering(choice, [*_tables(graph, tensors), *(known[t] for t in tensors if t in known)])
        return choices

    choices = chosen(collected.everything)
    trials = choices if collected.unjudged is collected.everything else chosen(collected.unjudged)
    return Calibration(groups, choices, trials, collected.everything.whole)


def edge_tensors(graph: Graph) -> set[str]:
    """Inputs and outputs of the model, what a FloatConcatenate joins there, what a softmax, sigmoid or tanh reads at
    the end, and what is carried reads.

    "auto" leaves them to min-max: a pixel or a logit that is clipped can no longer be told from its
    neighbours, nor be put in order with them or taken apart at the point, whatever the mean error says. Not so on fewer
    than 8 bits, where clipping costs less than steps.
    """

    def is_squashed(name: str) -> bool:
        return graph[name].kind in ("FloatSigmoid", "FloatSoftmax") or fixed_grid(graph, name) is not None

    ends = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in ends and node.kind == "FloatConcatenate":
            ends.update(node.inputs)
    readers = [name for name in ends if is_squashed(name)] + [n.name for n in graph.nodes if n.kind == "Carried"]
    return {*graph.inputs, *ends, *(source for name in readers for source in graph[name].inputs)}


def fixed_grid(graph: Graph, tensor: str) -> tuple[float, int] | None:
    """(scale, zero-point) that TFLite prescribes for the tensor, if it does."""
    operator = OPERATORS.get(graph[tensor].kind)
    return operator.fixed if operator is not None else None


def prescribed_groups(graph: Graph) -> set[str]:
    """The groups of tensors (`tfq.models.grids`) whose grid TFLite prescribes."""
    return {group for tensor, group in grid_groups(graph).items() if fixed_grid(graph, tensor) is not None}


def _tables(graph: Graph, tensors: Iterable[str]) -> list[Range]:
    """Of every embedding table on this grid: any of its rows may be read, seen in the samples or not."""
    tables = [graph[t].weights["embeddings"] for t in tensors if graph[t].kind == "Embedding"]
    return [Range(float(t.min()), float(t.max())) for t in tables]


def _covering(choice: Choice, others: Sequence[Range]) -> Choice:
    """The choice with ranges that hold these too."""

    def wide(found: Range) -> Range:
        return Range(min(found.low, *(r.low for r in others)), max(found.high, *(r.high for r in others)))

    return dataclasses.replace(choice, range=wide(choice.range), minmax=wide(choice.minmax)) if others else choice
