"""What a model loses against float by any metric, estimated on calibration samples.

    drop = score(float) - score(model), the other way round where lower is better

The labels are those of the calibration data. Without any, what the float model gives stands in for them
(`Metric.stand_in`): its classes, its values, its boxes. A box counts as much as its score says that it is there, so
that few points are lost with a box of which the float model is not sure either; what both models miss is not seen.
Against such labels float is nearly as good as can be and the model is not, so the drop is rather too large.
The standard error is that of the paired bootstrap (`tfq.evaluation.bootstrap`): both models see the same resamples.

Top-1 has an estimate of less variance (`tfq.allocation.drop`), which also corrects what fitted samples flatter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfq.allocation.drop import Drop, accuracy_drop
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic, point, resampled
from tfq.evaluation.metric import Metric, Predictions
from tfq.execution.views import Arrays

DropOf = Callable[[Sequence[np.ndarray]], Drop]
"""The outputs [n, ...] of a model -> what it loses."""
_LABELS = "give calibration data with labels ('y')"


def check_drop(metric: Metric, labels: np.ndarray | None) -> None:
    """Raises UserError where the drop by this metric cannot be told for want of labels."""
    if labels is None and metric.stand_in is None:
        raise UserError(
            f"`max_accuracy_drop` is given and metric {metric.name} needs labels, which no output of float can"
            f" replace; {_LABELS}"
        )


def drop_of(
    metric: Metric,
    reference: Sequence[np.ndarray],
    names: Sequence[str],
    inputs: Arrays,
    labels: np.ndarray | None,
    *,
    seed: int,
) -> DropOf:
    """How drops by this metric are estimated.

    Args:
      reference: outputs of the float model [n, ...], which have these `names`.
      inputs: the samples.
      labels: of the samples; None: the float model's outputs take their place.
      seed: of the bootstrap.

    Raises UserError where the metric cannot judge the float model.
    """
    if metric.name == "top1":
        first = metric.first(names)
        return lambda outputs: accuracy_drop(reference[first], outputs[first], labels, seed=seed)
    check_drop(metric, labels)
    baseline = Predictions(tuple(reference), labels, inputs, tuple(reference), tuple(names))
    if labels is None and metric.stand_in is not None:
        baseline = dataclasses.replace(baseline, labels=metric.stand_in(baseline))
    statistic, n, sign = (
        metric.statistic(baseline),
        len(reference[0]),
        -1.0 if metric.higher_is_better is False else 1.0,
    )
    best = point(statistic, n)
    if not np.isfinite(best):
        raise UserError(f"metric {metric.name} of the float model is {best}, from which nothing can be lost; {_LABELS}")
    if metric.higher_is_better is None:
        _check_rises(metric, baseline, best)
    of_float = resampled([statistic], n, seed=seed)[0]
    most = best if metric.unit == "%" and sign > 0 else np.inf

    def lost(outputs: Sequence[np.ndarray]) -> Drop:
        found: Statistic = metric.statistic(dataclasses.replace(baseline, outputs=tuple(outputs)))
        drawn = sign * (of_float - resampled([found], n, seed=seed)[0])
        drawn = drawn[np.isfinite(drawn)]
        error = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else 0.0
        return Drop(sign * (best - point(found, n)), error, n, most)

    return lost


def _check_rises(metric: Metric, baseline: Predictions, best: float) -> None:
    """Raises UserError where the user's metric is not larger for the float model than for one that mixes samples up."""
    mixed = dataclasses.replace(baseline, outputs=tuple(np.roll(values, 1, axis=0) for values in baseline.outputs))
    if not (worse := point(metric.statistic(mixed), len(baseline.outputs[0]))) < best:
        raise UserError(
            f"metric {metric.name} is {best:.4g} for the float model and {worse:.4g} for its outputs of other samples;"
            f" `max_accuracy_drop` needs one that is larger for better outputs: change it, or {_LABELS}"
        )
