"""Channels of one output that differ much in size, such as boxes in pixels beside scores in 0..1.

The SQNR of the whole output is that of its largest channels: what the small ones lose does not show in it. So channels
are put into parts. With m the largest magnitude of a channel in the baseline, in descending order, a part takes the
channels down to 1/10 of the m that it begins with.

    sqnr = 10 log10(sum y^2 / sum (y - q)^2)        over the channels of the part alone
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.evaluation.agreement import are_probabilities
from tfq.evaluation.bootstrap import Estimate

_APART = 10.0


@dataclasses.dataclass(frozen=True)
class Part:
    """Some channels of an output.

    Attributes:
      output: its position among the outputs.
      channels: along the last axis, in ascending order.
      sqnr: against the baseline's; its value is None where both are equal in every bit.
    """

    output: int
    channels: tuple[int, ...]
    sqnr: Estimate


def channel_parts(values: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The channels of each part of an output [n, ..., channels] of the baseline; none where all are of one size.

    Probabilities that sum to 1 have no parts, nor have channels that are 0 throughout.
    """
    if values.ndim < 2 or are_probabilities(values):
        return ()
    magnitudes = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
    parts: list[list[int]] = []
    for channel in np.argsort(-magnitudes, kind="stable"):
        if not magnitudes[channel]:
            break
        if not parts or _APART * magnitudes[channel] < magnitudes[parts[-1][0]]:
            parts.append([])
        parts[-1].append(int(channel))
    return tuple(tuple(sorted(part)) for part in parts) if len(parts) > 1 else ()
