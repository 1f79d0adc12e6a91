"""The calibration samples of a run and what each is for, as one object that is handed from stop to stop."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.data.roles import Roles
from tfq.data.samples import Samples

_MOST_JUDGED = 128  # samples that judge, at most: every version of a model runs on them


@dataclasses.dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Samples with their roles. What is read of them lies where it lay: every part is a view.

    Attributes:
      samples: all of them.
      roles: positions in `samples` (`tfq.data.roles`).
    """

    samples: Samples
    roles: Roles

    @classmethod
    def of(cls, samples: Samples, *, report: bool = False) -> CalibrationSet:
        """The samples with the roles that `Roles.of` gives as many; report: some are kept for measuring agreement."""
        return cls(samples, Roles.of(len(samples), report=report))

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def fit(self) -> Samples:
        """What everything is fitted to."""
        return self.samples.take(self.roles.fit)

    @property
    def choose(self) -> Samples:
        """What choices are made by."""
        return self.samples.take(self.roles.choose)

    @property
    def seen(self) -> Samples:
        """What fits and choices may look at, in the order of `roles.seen`."""
        return self.samples.take(self.roles.seen)

    @property
    def judging(self) -> Samples:
        """The samples by which all versions of a model are compared."""
        return self.samples.take(self.roles.judging[:_MOST_JUDGED])

    @property
    def reporting(self) -> Samples:
        """What agreement is measured on without evaluation data; without labels, as they are not looked at."""
        return dataclasses.replace(self.samples.take(self.roles.reporting), labels=None)

    def without_report(self) -> CalibrationSet:
        """What may have a part in the model, numbered anew: no stop that is handed this can read the others."""
        left = np.setdiff1d(np.arange(len(self)), self.roles.report)
        return CalibrationSet(self.samples.take(left), self.roles.without_report())
