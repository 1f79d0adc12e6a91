"""What each channel of an activation tensor holds over the calibration samples: its extremes and its power.

    low = min y,   high = max y,   power = mean y^2      over samples and positions, per channel of the last axis

The reductions are part of the graph that runs, so that no activation tensor leaves it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.execution.resources import DEFAULT, Resources
from tfq.models.graph import Graph, build_model

_LARGEST_BATCH = 8


@dataclasses.dataclass(frozen=True)
class ChannelStatistics:
    """Of one tensor.

    Attributes:
      low, high: extremes [channels].
      power: mean square [channels], float64.
      count: number of elements of a channel that were seen.
    """

    low: np.ndarray
    high: np.ndarray
    power: np.ndarray
    count: int

    def scaled(self, factors: np.ndarray) -> ChannelStatistics:
        """Those of the tensor times positive factors [channels]."""
        return ChannelStatistics(self.low * factors, self.high * factors, self.power * np.square(factors), self.count)

    def merged(self, other: ChannelStatistics) -> ChannelStatistics:
        """Those of the elements of both."""
        count = self.count + other.count
        power = (self.power * self.count + other.power * other.count) / count
        return ChannelStatistics(np.minimum(self.low, other.low), np.maximum(self.high, other.high), power, count)


def channel_statistics(
    graph: Graph,
    samples: Samples,
    tensors: Sequence[str],
    *,
    resources: Resources = DEFAULT,
) -> dict[str, ChannelStatistics]:
    """Run the samples through the float graph.

    Args:
      graph: the prepared graph.
      tensors: node names of float tensors.

    Raises:
      UserError: there is no sample.
    """
    if not tensors:
        return {}
    model = build_model(graph, outputs=list(tensors))
    inputs = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in model.inputs]

    @tf.function(input_signature=inputs)
    def reduced(*arrays: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        found = []
        for y in tf.nest.flatten(model(list(arrays), training=False)):
            axes = list(range(len(y.shape) - 1))
            found.append((tf.reduce_min(y, axes), tf.reduce_max(y, axes), tf.reduce_mean(tf.square(y), axes)))
        return found

    positions = [math.prod(t.shape[1:-1]) for t in model.outputs]
    size = resources.batch(4 * sum(math.prod(t.shape[1:]) for t in model.outputs), _LARGEST_BATCH)
    merged: list[ChannelStatistics] = []
    with resources.progress.task("measure channels", len(samples)) as advance:
        for batch in samples.batches(size):
            part = [tf.constant(batch[name], s.dtype) for name, s in zip(graph.inputs, inputs, strict=True)]
            count = int(part[0].shape[0])
            found = [
                ChannelStatistics(low.numpy(), high.numpy(), power.numpy().astype(np.float64), count * elements)
                for (low, high, power), elements in zip(reduced(*part), positions, strict=True)
            ]
            merged = [a.merged(b) for a, b in zip(merged, found, strict=True)] if merged else found
            advance(count)
    if not merged:
        raise UserError("the calibration data holds no sample; at least one is needed, some hundreds are better")
    return dict(zip(tensors, merged, strict=True))
