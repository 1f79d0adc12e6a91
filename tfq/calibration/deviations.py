"""Deviations: the range reaches k standard deviations to both sides of the mean, and no further than the data.

Equation: [max(min, m - k s), min(max, m + k s)] with the mean m and the deviation s of the histogram, whose elements
are taken at the centres of their bins. k is the parameter. The squared error of a Gaussian is smallest at 3.9 on 8 bits
and at 2.55 on 4 (Banner et al., "Post-training 4-bit quantization of convolution networks for rapid-deployment", 2019).
A fixed rule: `mse` searches for the ends of the smallest error, and "auto" has that.
Source: Lin et al., "Fixed Point Quantization of Deep Convolutional Networks", 2016.
"""

from __future__ import annotations

import numpy as np

from tfq.calibration.method import Method, Parameter
from tfq.calibration.statistics import Range, TensorStatistics


def deviations_range(statistics: TensorStatistics, *, deviations: float) -> Range:
    """The range of `deviations` (above 0) standard deviations around the mean."""
    found = statistics.histogram
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    count = max(found.total, 1)
    mean = float(centres @ found.counts) / count
    reach = deviations * float(np.sqrt(max(np.square(centres) @ found.counts / count - mean**2, 0.0)))
    return Range(max(statistics.minimum, mean - reach), min(statistics.maximum, mean + reach))


METHOD = Method(
    "deviations",
    lambda statistics, _bits, deviations: deviations_range(statistics, deviations=deviations),
    Parameter(default=4.0, above=0.0, most=100.0),
    in_auto=False,
)
