"""Scores of classifiers. With weights w, and classes by the largest output:

    top-k           100 * sum w[i] * (rank of label i in output i < k) / sum w      equal outputs rank by index, as
                    argmax does
    f1              100 * 2 TP / (2 TP + FP + FN): of class 1 where there are two classes, else the mean over the
                    classes that occur in labels or predictions
    matthews        (c s - p . t) / sqrt((s^2 - p . p) (s^2 - t . t)): c hits of s samples, p and t how often each class
                    is predicted and true (Gorodkin 2004); 0 where the root is
    token_accuracy  100 * right places / places with a label
    exact_match     100 * samples whose places with a label are all right / samples

Places have no label where it is below 0, as -100 of padding, or 255 where the model has no such class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import (
    Predictions,
    class_count,
    class_indices,
    class_labels,
    labels_of,
    mean_of,
    per_sample,
    ratio_of,
)


def top(k: int) -> Callable[[Predictions], Statistic]:
    name = f"top{k}"

    def statistic(predictions: Predictions) -> Statistic:
        outputs = predictions.outputs[0]
        labels = class_labels(labels_of(predictions, name), outputs, name)
        if (classes := class_count(outputs)) <= k:
            raise UserError(f"metric {name} needs more than {k} classes, the model has {classes}; use top1")
        if outputs.ndim < 2 or outputs.shape[-1] == 1:
            return mean_of(100.0 * per_sample(class_indices(outputs, name) == labels))
        own = np.take_along_axis(outputs, labels[..., None], axis=-1)
        earlier = np.arange(outputs.shape[-1]) < labels[..., None]
        rank = ((outputs > own) | ((outputs == own) & earlier)).sum(axis=-1)
        return mean_of(100.0 * per_sample(rank < k))

    return statistic


def f1(predictions: Predictions) -> Statistic:
    outputs = predictions.outputs[0]
    labels = class_labels(labels_of(predictions, "f1"), outputs, "f1")
    predicted = class_indices(outputs, "f1")
    classes = class_count(outputs)
    counted = range(1, 2) if classes == 2 else range(classes)

    def rate(hits: np.ndarray) -> np.ndarray:
        return per_sample(hits.astype(np.float64))

    both = np.stack([rate((predicted == c) & (labels == c)) for c in counted], axis=1)
    either = np.stack([rate(predicted == c) + rate(labels == c) for c in counted], axis=1)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        hits, occurrences = 2 * (weights @ both), weights @ either
        occurs = occurrences > 0
        each = np.divide(hits, occurrences, out=np.zeros_like(hits), where=occurs)
        with np.errstate(invalid="ignore"):
            return 100.0 * each.sum(axis=1) / occurs.sum(axis=1)

    return Statistic(of_weights)


def matthews(predictions: Predictions) -> Statistic:
    outputs = predictions.outputs[0]
    labels = class_labels(labels_of(predictions, "matthews"), outputs, "matthews")
    predicted, classes = class_indices(outputs, "matthews"), class_count(outputs)

    def counts(found: np.ndarray) -> np.ndarray:
        return np.stack([(found == c).reshape(len(found), -1).sum(1) for c in range(classes)], axis=1).astype(float)

    hits, places = (predicted == labels).reshape(len(labels), -1).sum(1), labels[0].size
    guessed, true = counts(predicted), counts(labels)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        total, right = weights.sum(axis=1) * places, weights @ hits
        p, t = weights @ guessed, weights @ true
        above = right * total - (p * t).sum(axis=1)
        below = np.sqrt((total**2 - (p * p).sum(axis=1)) * (total**2 - (t * t).sum(axis=1)))
        return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

    return Statistic(of_weights)


def token_accuracy(predictions: Predictions) -> Statistic:
    right, counted = _places(predictions, "token_accuracy")
    return ratio_of(100.0 * right.sum(1), counted.sum(1))


def exact_match(predictions: Predictions) -> Statistic:
    right, counted = _places(predictions, "exact_match")
    return mean_of(100.0 * (right.sum(1) == counted.sum(1)))


def _places(predictions: Predictions, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(which places are right, which have a label) as flags [n, places]."""
    outputs = predictions.outputs[0]
    labels = class_labels(labels_of(predictions, name), outputs, name, masked=True)
    labels, predicted = (values.reshape(len(outputs), -1) for values in (labels, class_indices(outputs, name)))
    return predicted == labels, labels >= 0
