"""Scores of what is told apart by a threshold or by its neighbours: AUC, equal error rate, retrieval.

    auc      P(score of a positive > score of a negative) + P(equal) / 2     (Mann-Whitney)
             score: mean square of (output - input), or the output itself where it is one unit per sample
    eer      the error rate at the threshold where as large a share of the positives is below it as of the
             negatives is not; on the line between two thresholds where none is. Positive are samples, by the scores
             of auc and labels 0 and 1; or, of embeddings, pairs of samples with one label, by their cosine
    recall@k 100 * samples with one of their own label among the k others of the largest cosine (recall1, recall5)
             / samples that have one; what is searched is the whole set, in a resample too

A pair weighs as much as the product of its samples' weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import Predictions, labels_of, mean_of
from tfq.evaluation.signals import reconstruction_error

_MOST_PAIRED = 2048  # samples
_SLOW_RESAMPLES = 200


def _anomaly_scores(predictions: Predictions, name: str) -> np.ndarray:
    outputs = predictions.outputs[0]
    shapes = {name: values.shape for name, values in predictions.inputs.items()}
    if len(shapes) == 1 and outputs.shape in shapes.values():
        return reconstruction_error(outputs, next(iter(predictions.inputs.values())))
    if outputs.size == len(outputs):
        return outputs.reshape(-1).astype(np.float64)
    raise UserError(
        f"metric {name} needs an autoencoder (one input, of the output's shape {outputs.shape[1:]}) or one output unit;"
        f" the inputs are {', '.join(f'{n!r} {s[1:]}' for n, s in shapes.items())}"
    )


def _positive(predictions: Predictions, name: str) -> np.ndarray:
    """The labels 0 and 1, [n]."""
    labels = labels_of(predictions, name).reshape(len(predictions.outputs[0]), -1)
    if labels.shape[1] != 1 or set(np.unique(labels).tolist()) != {0, 1}:
        raise UserError(f"metric {name} needs one label a sample, 0 (normal) or 1 (anomaly), and both must occur")
    return labels[:, 0]


def auc(predictions: Predictions) -> Statistic:
    labels, scores = _positive(predictions, "auc"), _anomaly_scores(predictions, "auc")
    order = np.argsort(scores, kind="stable")
    _, ties = np.unique(scores[order], return_index=True)
    positive = labels[order].astype(np.float64)

    def of_weights(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * positive, ties, axis=1)
        negatives = np.add.reduceat(ordered * (1 - positive), ties, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        with np.errstate(invalid="ignore"):
            return (positives * (below + negatives / 2)).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))

    return Statistic(of_weights)


def _embeddings(outputs: np.ndarray) -> np.ndarray:
    """[n, d] of length 1, or 0."""
    rows = outputs.reshape(len(outputs), -1).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _identities(predictions: Predictions, name: str) -> np.ndarray:
    labels = labels_of(predictions, name).reshape(len(predictions.outputs[0]), -1)
    if labels.shape[1] != 1:
        raise UserError(f"metric {name} needs one label a sample, whose it is; got {labels.shape[1]}")
    if len(np.unique(labels)) == len(labels):
        raise UserError(f"metric {name} needs samples that share a label; all {len(labels)} differ")
    return labels[:, 0]


def eer(predictions: Predictions) -> Statistic:
    outputs = predictions.outputs[0]
    inputs = [values.shape for values in predictions.inputs.values()]
    if outputs.size == len(outputs) or (len(inputs) == 1 and outputs.shape in inputs):
        positive, scores = _positive(predictions, "eer").astype(bool), _anomaly_scores(predictions, "eer")
        crossing = _crossing(scores, positive)
        return Statistic(lambda weights: np.array([crossing(row) for row in weights]), resamples=_SLOW_RESAMPLES)
    if len(outputs) > _MOST_PAIRED:
        raise UserError(f"metric eer compares all pairs, of at most {_MOST_PAIRED} samples; got {len(outputs)}")
    labels, rows = _identities(predictions, "eer"), _embeddings(outputs)
    first, second = np.triu_indices(len(rows), 1)
    crossing = _crossing((rows @ rows.T)[first, second], labels[first] == labels[second])
    return Statistic(
        lambda weights: np.array([crossing(row[first] * row[second]) for row in weights]), resamples=_SLOW_RESAMPLES
    )


def _crossing(scores: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], float]:
    """The equal error rate by weights [m] of these scores [m]; NaN where there are no positives or negatives."""
    order = np.argsort(scores, kind="stable")
    _, ties = np.unique(scores[order], return_index=True)
    is_positive = positive[order]

    def crossing(weights: np.ndarray) -> float:
        ordered = weights[order]
        missed, passed = (
            np.concatenate([[0.0], np.cumsum(np.add.reduceat(ordered * flags, ties))])
            for flags in (is_positive, ~is_positive)
        )
        if not missed[-1] or not passed[-1]:
            return float("nan")
        low, high = missed / missed[-1], 1 - passed / passed[-1]  # at rising thresholds: errors of either kind
        after = int(np.argmax(low >= high))
        gaps = high[after - 1] - low[after - 1], low[after] - high[after]
        share = gaps[0] / (gaps[0] + gaps[1])
        return float(low[after - 1] + share * (low[after] - low[after - 1]))

    return crossing


def recall(k: int) -> Callable[[Predictions], Statistic]:
    name = f"recall{k}"

    def statistic(predictions: Predictions) -> Statistic:
        labels, rows = _identities(predictions, name), _embeddings(predictions.outputs[0])
        if len(rows) <= k:
            raise UserError(f"metric {name} needs more than {k} samples; got {len(rows)}")
        found = np.empty(len(rows))
        for place, row in enumerate(rows):
            cosines = rows @ row
            cosines[place] = -np.inf
            nearest = np.argsort(-cosines, kind="stable")[:k]
            found[place] = (labels[nearest] == labels[place]).any()
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return mean_of(100.0 * found, counts[inverse] > 1)

    return statistic
