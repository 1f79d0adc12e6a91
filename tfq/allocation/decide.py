"""A precision for every layer: survey what can be chosen, then choose and check (`tfq.allocation.allocate`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfq.allocation.allocate import Allocated, Goal, allocate
from tfq.allocation.candidates import Unit
from tfq.allocation.latency_table import LatencyTable
from tfq.allocation.sensitivity import Sensitivities
from tfq.allocation.survey import At, survey
from tfq.allocation.wish import DOWNLOAD, LATENCY, Wish, budgets_of
from tfq.calibration.statistics import Range
from tfq.reconstruction.steps import Setting
from tfq.simulate.guard import Version


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was found out, and what was decided.

    Attributes:
      version: the model.
      allocated: the precisions, and the rounds that led to them.
      sensitivities: by (unit, candidate).
      units: with their nodes.
    """

    version: Version
    allocated: Allocated
    sensitivities: Sensitivities
    units: tuple[Unit, ...]


def decide(
    setting: Setting,
    base: Version,
    at: At,
    wish: Wish,
    *,
    labels: np.ndarray | None = None,
    table: LatencyTable | None = None,
    narrow: Mapping[str, Range] | None = None,
    ledger: Path | None = None,
) -> Decision:
    """A precision for every unit, and the model that has them. Arguments and errors as of `survey`."""
    found = survey(setting, base, at, wish, labels=labels, table=table, narrow=narrow, ledger=ledger)
    objective = LATENCY if wish.objective == "latency" else DOWNLOAD
    goal = Goal(budgets_of(setting.graph, found.units, wish), wish.max_drop, objective)
    version, allocated = allocate(found.problem, goal, found.bench, progress=setting.progress)
    return Decision(version, allocated, found.sensitivities, found.units)
