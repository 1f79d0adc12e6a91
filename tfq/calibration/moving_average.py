"""Moving average: the range is that of a typical sample, [EMA of the minima, EMA of the maxima].

Equation: m_t = d m_{t-1} + (1 - d) min(x_t), and the range's low end is m_T / (1 - d^T); likewise the
maximum. d is `collect.DECAY`, 0.99 a sample: the last hundred samples or so count, in the order of the data. The
only method whose result depends on that order. Tensors that share a grid get the outermost of their averages.
Source: Jacob et al., 2018, section 3.1; the bias correction from Kingma and Ba, "Adam", 2015.
"""

from __future__ import annotations

from tfq.calibration.method import Method
from tfq.calibration.statistics import Range, TensorStatistics


def moving_average_range(statistics: TensorStatistics) -> Range:
    """The averages, as `collect` has updated them sample by sample."""
    return Range(statistics.average_minimum, statistics.average_maximum)


METHOD = Method("moving_average", lambda statistics, _bits, _: moving_average_range(statistics))
