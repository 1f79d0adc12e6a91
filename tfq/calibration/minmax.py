"""Min-max: the range is [min, max] over all elements of all samples. Nothing is clipped.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018; what TFLiteConverter does.
"""

from __future__ import annotations

from tfq.calibration.method import Method
from tfq.calibration.statistics import Range, TensorStatistics


def minmax_range(statistics: TensorStatistics) -> Range:
    """[min, max]."""
    return Range(statistics.minimum, statistics.maximum)


METHOD = Method("minmax", lambda statistics, _bits, _: minmax_range(statistics))
