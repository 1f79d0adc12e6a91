"""What calibration remembers of a tensor, and what it concludes: a range."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from tfq.calibration import histogram
from tfq.calibration.histogram import Histogram


@dataclasses.dataclass(frozen=True)
class TensorStatistics:
    """What calibration remembers of one activation tensor.

    Attributes:
      minimum, maximum: of all elements of all samples, exactly; of the histogram's elements for tensors
        on whose extremes no grid depends (see `collect`). The minimum of a tensor that a ReLU
        wrote is 0 or above by construction and given as 0.
      average_minimum, average_maximum: bias-corrected exponential moving averages of the samples'
        minima and maxima.
      histogram: of a fixed strided subsample of each sample's elements.
      samples: number of samples seen.
    """

    minimum: float
    maximum: float
    average_minimum: float
    average_maximum: float
    histogram: Histogram
    samples: int

    def replace(self, **changes: Any) -> TensorStatistics:
        return dataclasses.replace(self, **changes)


def merge_statistics(*statistics: TensorStatistics) -> TensorStatistics:
    """The statistics of tensors that must share one grid, over the same samples.

    The moving averages of the result are the outermost ones, so that no tensor is cut shorter than by its own.
    """
    return TensorStatistics(
        minimum=min(s.minimum for s in statistics),
        maximum=max(s.maximum for s in statistics),
        average_minimum=min(s.average_minimum for s in statistics),
        average_maximum=max(s.average_maximum for s in statistics),
        histogram=functools.reduce(histogram.merge, (s.histogram for s in statistics)),
        samples=max(s.samples for s in statistics),
    )


@dataclasses.dataclass(frozen=True)
class Range:
    """Real range of an activation tensor: contains 0 and is wider than 0, whatever it is made from.

    A range of zero width, that of a tensor of zeros, becomes [0, 1].
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = min(float(self.low), 0.0), max(float(self.high), 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"a range must be finite, got [{self.low}, {self.high}]")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high if high > low else 1.0)
