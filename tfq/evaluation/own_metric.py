"""The user's own function as a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tfq.errors import UserError, described
from tfq.evaluation.agreement import gives_classes
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import Metric, Predictions, class_stand_in, mean_of

_SLOW_RESAMPLES = 200

UserMetric: TypeAlias = Callable[..., Any]
"""(outputs, labels) or (outputs, labels, inputs) -> a score for each sample, or one number; see `find_metric`."""


def user_metric(function: UserMetric, name: str) -> Metric:
    takes_inputs = _takes_inputs(function, name)

    def call(predictions: Predictions) -> np.ndarray:
        outputs = predictions.outputs[0] if len(predictions.outputs) == 1 else predictions.outputs
        arguments: tuple[Any, ...] = (outputs, predictions.labels)
        if takes_inputs:
            arguments = (*arguments, predictions.inputs)
        try:
            returned = function(*arguments)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise UserError(f"metric {name} failed: {described(error)}") from error
        return _scores_of(returned, len(predictions.outputs[0]), name)

    def statistic(predictions: Predictions) -> Statistic:
        whole = call(predictions)
        if np.isnan(whole).any():  # of a resample it may be: one without positives has no AUC
            raise UserError(f"metric {name} returned NaN; expected one number or {len(whole.reshape(-1))} scores")
        if whole.ndim:
            return mean_of(whole)

        def of_weights(weights: np.ndarray) -> np.ndarray:
            return np.array([call(_drawn(predictions, row, inputs=takes_inputs)) for row in weights])

        return Statistic(of_weights, resamples=_SLOW_RESAMPLES)

    return Metric(name, "", None, statistic, stand_in=_stand_in, reads_boxes=True)


def _stand_in(predictions: Predictions) -> np.ndarray:
    """What the float model gives: its classes, where its outputs are probabilities."""
    outputs = predictions.outputs[0]
    classes = gives_classes(outputs, predictions.inputs, judged_so=False)
    return class_stand_in(predictions) if classes else outputs


def _takes_inputs(function: Callable[..., Any], name: str) -> bool:
    """Whether it takes the inputs as a third argument. Raises UserError where it takes neither two nor three."""
    try:
        found = inspect.signature(function)
    except ValueError:  # one written in C, which does not tell
        return False
    for count in (3, 2):
        try:
            found.bind(*[None] * count)
        except TypeError:
            continue
        return count == 3 and len(found.parameters) > 2
    raise UserError(f"`metric` is {name!r}, whose parameters are {found}; expected (outputs, labels), or inputs too")


def _scores_of(returned: Any, n: int, name: str) -> np.ndarray:
    """What a metric returned as a number or [n] numbers. Raises UserError for anything else."""
    expected = f"expected one number or [{n}] scores"
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that nobody waited for it
    try:
        score = np.asarray(returned)
    except (Exception, SystemExit) as error:  # an object of the user's may raise anything when it is made an array
        raise UserError(f"metric {name} returned no array ({described(error)}); {expected}") from error
    if score.dtype.kind not in "fiub":
        what = "nothing (None)" if returned is None else f"a {type(returned).__name__} that holds no numbers"
        raise UserError(f"metric {name} returned {what}; {expected}")
    if score.shape not in ((), (n,)):
        raise UserError(f"metric {name} returned the shape {score.shape}; {expected}")
    return score.astype(np.float64)


def _drawn(predictions: Predictions, weights: np.ndarray, *, inputs: bool) -> Predictions:
    """The predictions with sample i repeated weights[i] times; the inputs, which may be large, only if needed."""
    if (weights == 1).all():
        return predictions
    indices = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
    return Predictions(
        outputs=tuple(values[indices] for values in predictions.outputs),
        labels=None if predictions.labels is None else predictions.labels[indices],
        inputs={name: values[indices] for name, values in predictions.inputs.items() if inputs},
        baseline=tuple(values[indices] for values in predictions.baseline),
        names=predictions.names,
    )
