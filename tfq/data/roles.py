"""Which calibration samples do what: fit, choose, judge, report. The only place that says so.

    report   what agreement with the float model is measured on where there is no evaluation data   5, 13, 21, ...
    judge    compare the model before and after a step; a step goes on or is rolled back            7, 15, 23, ...
    choose   pick among what was fitted: a damping, a range, the state to stop at, a layer's         3, 11, 19, ...
             own way back; sensitivities
    fit      everything that is fitted, statistics included                                         all others

No sample has two roles, so that no step is judged by samples that its own statistics, fit or choice saw, and what is
reported was measured on samples that had no part in the model. The final ranges of activations are the exception, and
no step judges them: comparisons of ranges are made with ranges fitted without the judges, and what wins is fitted once
more to all samples but the report's. With evaluation data nothing is set apart for the report.

Every eighth sample, not the last eighth: data is often sorted by class.

Of few samples, here n, some roles get none; `Roles.shortage` says so, and what is done without them:

    n < 8    judge: the last one. report, if wanted: the one before it. choose: the one before these. fit: the rest
    n = 3    choose has none, where a report is wanted: layers choose by every eighth position, the network is not tuned
    n = 2    choose and report have none: agreement is measured on the judge
    n = 1    fit alone: judged and reported by the sample that everything was fitted to
"""

from __future__ import annotations

import dataclasses

import numpy as np

_PERIOD, _CHOOSE, _REPORT, _JUDGE = 8, 3, 5, 7
_NONE = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Roles:
    """Positions [k] int64 of the samples of each role: ascending, disjoint, together 0 to count - 1."""

    fit: np.ndarray
    choose: np.ndarray
    judge: np.ndarray
    report: np.ndarray

    @classmethod
    def of(cls, count: int, *, report: bool = False) -> Roles:
        """The roles of `count` samples; report: some are kept for measuring agreement."""
        positions = np.arange(count)
        if count >= _PERIOD:
            place = positions % _PERIOD
            kept = (place == _REPORT) & report
            fit = (place != _CHOOSE) & (place != _JUDGE) & ~kept
            chosen = (fit, place == _CHOOSE, place == _JUDGE, kept)
            return cls(*(np.flatnonzero(flags) for flags in chosen))
        taken = {name: _NONE for name in ("judge", "report", "choose")}
        for name in ("judge", "report", "choose") if report else ("judge", "choose"):
            if len(positions) > 1 and (name == "judge" or count > 2):
                taken[name], positions = positions[-1:], positions[:-1]
        return cls(positions, taken["choose"], taken["judge"], taken["report"])

    def __len__(self) -> int:
        return sum(len(part) for part in (self.fit, self.choose, self.judge, self.report))

    @property
    def seen(self) -> np.ndarray:
        """What fits and choices may look at: fit and choose."""
        return np.union1d(self.fit, self.choose)

    @property
    def judging(self) -> np.ndarray:
        """What steps are judged by: the judges, or of a single sample that one."""
        return self.judge if len(self.judge) else self.fit

    @property
    def reporting(self) -> np.ndarray:
        """What agreement is measured on without evaluation data: the report's, or of one or two the judging ones."""
        return self.report if len(self.report) else self.judging

    def without_report(self) -> Roles:
        """The roles of the samples that are left, numbered anew, when those of the report are taken away."""
        left = np.setdiff1d(np.arange(len(self)), self.report)
        fit, choose, judge = (np.searchsorted(left, part) for part in (self.fit, self.choose, self.judge))
        return Roles(fit, choose, judge, _NONE)

    def shortage(self, *, report: bool) -> str:
        """One line on what is done without the roles that got no sample; empty where none is missing."""
        if not len(self.judge):
            missing = "it was fitted to, judges and is reported on" if report else "it was fitted to and judges too"
        elif not len(self.choose):
            missing = (
                "none is left to choose by, so layers choose by every eighth position and the network is not tuned"
            )
            if report and not len(self.report):
                missing += ", and agreement is measured on the sample that judged the steps"
        else:
            return ""
        plural = "" if len(self) == 1 else "s"
        return f"{len(self)} calibration sample{plural}: {missing}; give 8 or more"
