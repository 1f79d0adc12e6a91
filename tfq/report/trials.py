"""What remedies gain: the same run with other options, beside the run itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfq.evaluation.evaluate import Evaluation
from tfq.report.summary import number
from tfq.report.table import format_table


@dataclasses.dataclass(frozen=True)
class Trial:
    """One remedy.

    Attributes:
      causes: what it is to mend.
      changes: options that differ from the run's.
      evaluation: of its model; None where it could not be made.
      refused: why not; "" where it was.
    """

    causes: tuple[str, ...]
    changes: Mapping[str, Any]
    evaluation: Evaluation | None
    refused: str = ""


def trial_table(before: Evaluation, trials: Sequence[Trial]) -> str:
    """One row a trial; sizes and times are those of float as 1."""
    if not trials:
        return "No remedy is known that is an option."
    rows = [["as it is", "", *_figures(before)]]
    for trial in trials:
        options = ", ".join(f"{name}={value}" for name, value in trial.changes.items())
        figures = [trial.refused, "", "", ""] if trial.evaluation is None else _figures(trial.evaluation)
        rows.append(["; ".join(trial.causes), options, *figures])
    return format_table(["cause", "remedy", "SQNR", "score", "size, x float", "latency, x float"], rows, left=2)


def _figures(found: Evaluation) -> list[str]:
    baseline, model = found.models[0], found.models[-1]
    size = model.size.file_bytes / baseline.size.file_bytes if model.size and baseline.size else None
    latency = model.latency.ratio.value if model.latency else None
    ratios = ("" if value is None else f"{value:.2f}" for value in (size, latency))
    same = model.sqnr is not None and model.sqnr.value is None
    return ["equal" if same else number(model.sqnr, 1), number(model.score), *ratios]
