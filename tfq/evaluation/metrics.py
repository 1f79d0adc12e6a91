"""Scores of a model's outputs: top-1, top-5, AUC, F1, MSE, SQNR, cosine, or any function of the user's.

Every metric turns `Predictions` into a `Statistic`: a function of the samples' weights, so that the
bootstrap can resample single samples and whole sets alike. With weights w:

    top-k   100 * sum w[i] * (rank of label i in output i < k) / sum w      equal outputs rank by index, as argmax does
    auc     P(score of a positive > score of a negative) + P(equal) / 2     (Mann-Whitney)
            score: mean square of (output - input), or the output itself where it is one unit per sample
    f1      100 * 2 TP / (2 TP + FP + FN): of class 1 where there are two classes, else the mean over the
            classes that occur in labels or predictions
    mse     sum w[i] * mean((output i - target i)^2) / sum w
    sqnr    10 log10(sum w[i] * |target i|^2 / sum w[i] * |output i - target i|^2)  in dB
    cosine  sum w[i] * mean(o . t / (|o| |t|)) / sum w       o, t: rows of the last axis of output i and target i;
            two rows of zeros agree (1), one of zeros and another do not (0)

The target is the label where labels have the output's shape, and the baseline's output otherwise.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tfq.data.functions import import_function
from tfq.errors import UserError, described
from tfq.evaluation.bootstrap import Statistic
from tfq.execution.views import Arrays, View

_SLOW_RESAMPLES = 200
_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a metric judges.

    Attributes:
      outputs: of the model, [n, ...] float32 each; the built-in metrics judge the first.
      labels: [n] or [n, ...]; None without.
      inputs: [n, ...] by input name, in real values.
      baseline: outputs of the baseline model on the same samples.
    """

    outputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    inputs: Arrays
    baseline: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
      name: as the user writes it.
      unit: of the score: "%", "dB" or "".
      higher_is_better: None where only the user knows.
      needs_labels: it is undefined without labels.
      classifies: its outputs are class scores, so that the agreement of classes means something.
      statistic: makes the score of one model's predictions.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    needs_labels: bool
    classifies: bool
    statistic: Callable[[Predictions], Statistic]


UserMetric: TypeAlias = Callable[..., Any]
"""(outputs, labels) or (outputs, labels, inputs) -> a score for each sample, or one number; see `find_metric`."""


def find_metric(metric: str | UserMetric) -> Metric:
    """The metric of this name, or the user's own: a function, or "module:function".

    The function takes (outputs, labels) or (outputs, labels, inputs): the output [n, ...] (a tuple where
    the model has several), the labels (None without), the inputs by name. It returns a score for each
    sample [n], which is averaged, or one number. Modules are found as Python finds them, and in the
    working directory.

    Raises UserError for an unknown name.
    """
    if not isinstance(metric, str):
        if callable(metric):
            return _user_metric(metric, getattr(metric, "__name__", type(metric).__name__))
        raise UserError(f"`metric` is of type {type(metric).__name__}; expected a name or a function")
    if metric in METRICS:
        return METRICS[metric]
    if ":" in metric:
        return _user_metric(_imported(metric), metric)
    raise UserError(f"`metric` is {metric!r}; it must be one of {', '.join(METRICS)}, or module:function")


def class_indices(outputs: np.ndarray, name: str) -> np.ndarray:
    """[n, ...] predicted classes: the largest of the last axis, or of one unit whether it exceeds 0.5."""
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        if outputs.size and (outputs.min() < 0 or outputs.max() > 1):
            raise UserError(
                f"metric {name} takes a single output unit as a probability, but it reaches {outputs.min():.4g} to"
                f" {outputs.max():.4g}; use module:function as the metric"
            )
        return (outputs.reshape(outputs.shape[0], *outputs.shape[1:-1]) > 0.5).astype(np.int64)
    return outputs.argmax(axis=-1)


def _classes(outputs: np.ndarray) -> int:
    return max(2, outputs.shape[-1]) if outputs.ndim > 1 else 2


def _class_labels(labels: np.ndarray, outputs: np.ndarray, name: str) -> np.ndarray:
    """Labels as class indices of the shape of the predicted classes; one-hot rows are understood."""
    expected = outputs.shape[:-1] if outputs.ndim > 1 else outputs.shape
    classes = _classes(outputs)
    if labels.shape == outputs.shape and outputs.ndim > 1 and classes == outputs.shape[-1]:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all()):
            raise UserError(f"metric {name} needs class indices or one-hot labels; these are neither")
        return labels.argmax(axis=-1)
    if labels.shape == (*expected, 1):
        labels = labels[..., 0]
    if labels.shape != expected:
        raise UserError(f"metric {name} needs labels of shape {expected} for this output, got {labels.shape}")
    if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.rint(labels)):
        raise UserError(f"metric {name} needs class indices as labels; these hold fractions")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"metric {name}: the labels reach {labels.min()} to {labels.max()}, the model has {classes} classes"
            " (0 is the first)"
        )
    return labels.astype(np.int64)


def _labels(predictions: Predictions, name: str) -> np.ndarray:
    if predictions.labels is None:
        raise UserError(f"metric {name} needs labels, and the data has none; give them as the array 'y'")
    return predictions.labels


def mean_of(scores: np.ndarray) -> Statistic:
    """The weighted mean of scores [n]."""
    scores = scores.astype(np.float64)
    return Statistic(lambda weights: weights @ scores / weights.sum(axis=1))


def _per_sample(values: np.ndarray) -> np.ndarray:
    """[n, ...] -> [n]: the mean over all axes but the first."""
    return values.reshape(len(values), -1).mean(axis=1)


def _top(k: int) -> Callable[[Predictions], Statistic]:
    name = f"top{k}"

    def statistic(predictions: Predictions) -> Statistic:
        outputs = predictions.outputs[0]
        labels = _class_labels(_labels(predictions, name), outputs, name)
        if (classes := _classes(outputs)) <= k:
            raise UserError(f"metric {name} needs more than {k} classes, the model has {classes}; use top1")
        if outputs.ndim < 2 or outputs.shape[-1] == 1:
            return mean_of(100.0 * _per_sample(class_indices(outputs, name) == labels))
        own = np.take_along_axis(outputs, labels[..., None], axis=-1)
        earlier = np.arange(outputs.shape[-1]) < labels[..., None]
        rank = ((outputs > own) | ((outputs == own) & earlier)).sum(axis=-1)
        return mean_of(100.0 * _per_sample(rank < k))

    return statistic


def reconstruction_error(outputs: np.ndarray, inputs: np.ndarray | View) -> np.ndarray:
    """[n] mean squares of output - input; in blocks, since inputs may lie on disk."""
    starts = range(0, len(outputs), _ROWS)
    return np.concatenate(
        [_per_sample(np.square(outputs[s : s + _ROWS].astype(np.float64) - inputs[s : s + _ROWS])) for s in starts]
    )


def _anomaly_scores(predictions: Predictions) -> np.ndarray:
    outputs = predictions.outputs[0]
    shapes = {name: values.shape for name, values in predictions.inputs.items()}
    if len(shapes) == 1 and outputs.shape in shapes.values():
        return reconstruction_error(outputs, next(iter(predictions.inputs.values())))
    if outputs.size == len(outputs):
        return outputs.reshape(-1).astype(np.float64)
    raise UserError(
        f"metric auc needs an autoencoder (one input, of the output's shape {outputs.shape[1:]}) or one output unit;"
        f" the inputs are {', '.join(f'{n!r} {s[1:]}' for n, s in shapes.items())}"
    )


def _auc(predictions: Predictions) -> Statistic:
    labels = _labels(predictions, "auc").reshape(len(predictions.outputs[0]), -1)
    if labels.shape[1] != 1 or set(np.unique(labels).tolist()) != {0, 1}:
        raise UserError("metric auc needs one label a sample, 0 (normal) or 1 (anomaly), and both must occur")
    scores = _anomaly_scores(predictions)
    order = np.argsort(scores, kind="stable")
    _, ties = np.unique(scores[order], return_index=True)
    positive = labels[order, 0].astype(np.float64)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * positive, ties, axis=1)
        negatives = np.add.reduceat(ordered * (1 - positive), ties, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        with np.errstate(invalid="ignore"):
            return (positives * (below + negatives / 2)).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))

    return Statistic(of_weights)


def _f1(predictions: Predictions) -> Statistic:
    outputs = predictions.outputs[0]
    labels = _class_labels(_labels(predictions, "f1"), outputs, "f1")
    predicted = class_indices(outputs, "f1")
    classes = _classes(outputs)
    counted = range(1, 2) if classes == 2 else range(classes)

    def rate(hits: np.ndarray) -> np.ndarray:
        return _per_sample(hits.astype(np.float64))

    both = np.stack([rate((predicted == c) & (labels == c)) for c in counted], axis=1)
    either = np.stack([rate(predicted == c) + rate(labels == c) for c in counted], axis=1)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        hits, occurrences = 2 * (weights @ both), weights @ either
        occurs = occurrences > 0
        each = np.divide(hits, occurrences, out=np.zeros_like(hits), where=occurs)
        with np.errstate(invalid="ignore"):
            return 100.0 * each.sum(axis=1) / occurs.sum(axis=1)

    return Statistic(of_weights)


def _target(predictions: Predictions) -> np.ndarray:
    """What the output should be: the labels where there is one for each of its elements, else the baseline's output."""
    outputs, labels = predictions.outputs[0], predictions.labels
    return predictions.baseline[0] if labels is None or labels.size != outputs.size else labels.reshape(outputs.shape)


def _mse(predictions: Predictions) -> Statistic:
    return mean_of(reconstruction_error(predictions.outputs[0], _target(predictions)))


def _sqnr(predictions: Predictions) -> Statistic:
    return sqnr_against(predictions.outputs[0], _target(predictions))


def sqnr_against(outputs: np.ndarray, target: np.ndarray) -> Statistic:
    """Signal to noise in dB of outputs [n, ...], `target` being the signal; infinite where they are equal."""
    signal = reconstruction_error(target, np.zeros_like(target))
    noise = reconstruction_error(outputs, target)
    return Statistic(lambda weights: decibels(weights @ signal, weights @ noise))


def decibels(signal: np.ndarray | float, noise: np.ndarray | float) -> np.ndarray:
    """SQNR in dB by the sums of squares of signal and error: infinite without an error, NaN without either."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * (np.log10(signal) - np.log10(noise))  # the quotient could underflow


def finite_decibels(signal: float, noise: float) -> float | None:
    """`decibels`; None for what JSON has no number for."""
    found = float(decibels(signal, noise))
    return found if np.isfinite(found) else None


def _cosine(predictions: Predictions) -> Statistic:
    outputs, target = (
        np.asarray(values, np.float64).reshape(len(values), -1, values.shape[-1] if values.ndim > 1 else 1)
        for values in (predictions.outputs[0], _target(predictions))
    )
    norms = np.linalg.norm(outputs, axis=-1) * np.linalg.norm(target, axis=-1)
    alike = (outputs == target).all(axis=-1)
    cosines = np.divide((outputs * target).sum(axis=-1), norms, out=alike.astype(np.float64), where=norms > 0)
    return mean_of(_per_sample(cosines))


def _imported(name: str) -> UserMetric:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_function(name)
    except UserError as error:
        raise UserError(f"`metric` is {name!r}, which cannot be loaded: {error}") from error


def _user_metric(function: UserMetric, name: str) -> Metric:
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

    return Metric(name, "", None, needs_labels=False, classifies=False, statistic=statistic)


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
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", "%", True, needs_labels=True, classifies=True, statistic=_top(1)),
        Metric("top5", "%", True, needs_labels=True, classifies=True, statistic=_top(5)),
        Metric("auc", "", True, needs_labels=True, classifies=False, statistic=_auc),
        Metric("f1", "%", True, needs_labels=True, classifies=True, statistic=_f1),
        Metric("mse", "", False, needs_labels=False, classifies=False, statistic=_mse),
        Metric("sqnr", "dB", True, needs_labels=False, classifies=False, statistic=_sqnr),
        Metric("cosine", "", True, needs_labels=False, classifies=False, statistic=_cosine),
    )
}
