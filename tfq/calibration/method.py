"""What a calibration method is: a name, how it makes a range, and the one number that it may take.

A recipe names a method, and may give it another number: `percentile`, `percentile=99.99`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfq.calibration.statistics import Range, TensorStatistics


@dataclasses.dataclass(frozen=True)
class Parameter:
    """The number that a method takes.

    Attributes:
      default: its value where a recipe gives none.
      above, most: it must lie in (above, most].
    """

    default: float
    above: float
    most: float


@dataclasses.dataclass(frozen=True)
class Method:
    """A calibration method.

    Attributes:
      name: as recipes call it.
      fit: (statistics of a tensor, grid bits, the parameter's value) -> its range.
      parameter: None for a method that takes none.
      in_auto: whether "auto" considers it.
    """

    name: str
    fit: Callable[[TensorStatistics, int, float], Range]
    parameter: Parameter | None = None
    in_auto: bool = True

    def fitter(self, given: float | None = None) -> Callable[[TensorStatistics, int], Range]:
        """(statistics, grid bits) -> range, by the parameter given, or its default."""
        value = given if given is not None else self.parameter.default if self.parameter is not None else 0.0
        return lambda statistics, bits: self.fit(statistics, bits, value)
