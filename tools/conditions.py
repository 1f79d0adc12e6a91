"""Conditions on what was measured, for a build that has to stop at a model that is not good enough.

    drop>0.5,latency>1.0          any of them that holds is a failure

    drop          the score of float less that of the model, in the unit of the score (points where it is in %);
                  the other way round for metrics where lower is better
    agreement     with the float model, in %
    sqnr          of the first output against the float model's, dB
    latency       of the model, times float's, on this machine
    size, download    bytes of the model, as it is and compressed, times float's

What is compared is the measured value, not its interval.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.metrics import METRICS

_TEXT = re.compile(r"\s*([a-z]+)\s*([<>])\s*(\d+(?:\.\d*)?|\.\d+|-\d+(?:\.\d*)?)\s*")


@dataclasses.dataclass(frozen=True)
class Condition:
    """That a figure is above (">") or below ("<") a number."""

    figure: str
    sign: str
    number: float

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.number:g}"


def _drop(evaluation: Evaluation, model: ModelEvaluation) -> float | None:
    metric = METRICS.get(evaluation.metric)
    if model.difference is None or model.difference.value is None or metric is None:
        return None
    return -model.difference.value if metric.higher_is_better else model.difference.value


def _size(name: str) -> Callable[[Evaluation, ModelEvaluation], float | None]:
    def ratio(evaluation: Evaluation, model: ModelEvaluation) -> float | None:
        baseline = evaluation.models[0].size
        if baseline is None or model.size is None:
            return None
        return float(getattr(model.size, name) / getattr(baseline, name))

    return ratio


def _estimate(found: Estimate | None, missing: float | None = None) -> float | None:
    return missing if found is None or found.value is None else found.value


_FIGURES: Mapping[str, Callable[[Evaluation, ModelEvaluation], float | None]] = {
    "drop": _drop,
    "agreement": lambda _, model: _estimate(model.agreement),
    # without a value the outputs are equal in every bit
    "sqnr": lambda _, model: None if model.sqnr is None else _estimate(model.sqnr, math.inf),
    "latency": lambda _, model: None if model.latency is None else _estimate(model.latency.ratio),
    "size": _size("file_bytes"),
    "download": _size("download_bytes"),
}


def conditions(text: str) -> tuple[Condition, ...]:
    """Those of a text, as "drop>0.5,latency>1.0"; none of an empty one.

    Raises UserError for anything else.
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        match = _TEXT.fullmatch(part)
        if match is None or match[1] not in _FIGURES:
            raise UserError(
                f"--fail_if has {part.strip()!r}; expected one of {', '.join(_FIGURES)}, then > or <, then a number, as"
                " drop>0.5,latency>1.0"
            )
        found.append(Condition(match[1], match[2], float(match[3])))
    return tuple(found)


def failures(wanted: tuple[Condition, ...], evaluation: Evaluation) -> list[str]:
    """One line for every condition that holds for the last model, or whose figure was not measured."""
    model, lines = evaluation.models[-1], []
    for condition in wanted:
        value = _FIGURES[condition.figure](evaluation, model)
        if value is None:
            lines.append(f"{condition}: {condition.figure} was not measured")
        elif value > condition.number if condition.sign == ">" else value < condition.number:
            over = f"{abs(value - condition.number):.3g} {'over' if condition.sign == '>' else 'under'}"
            lines.append(f"{condition}: {condition.figure} is {value:.4g}, {over}")
    return lines
