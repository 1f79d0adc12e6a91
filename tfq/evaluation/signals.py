"""Scores of outputs that are values: signals, pictures, embeddings, keypoints, regressions. With weights w:

    mse       sum w[i] * mean((output i - target i)^2) / sum w
    sqnr      10 log10(sum w[i] * |target i|^2 / sum w[i] * |output i - target i|^2)  in dB
    cosine    sum w[i] * mean(o . t / (|o| |t|)) / sum w       o, t: rows of the last axis of output i and target i;
              two rows of zeros agree (1), one of zeros and another do not (0)
    psnr      sum w[i] * 10 log10(R^2 / mean((output i - target i)^2)) / sum w  in dB
    ssim      sum w[i] * mean over windows and channels of
              (2 m_o m_t + C1) (2 s_ot + C2) / ((m_o^2 + m_t^2 + C1) (s_o^2 + s_t^2 + C2)) / sum w
              m, s: mean and (co)variance in a Gaussian window of 11 x 11, sigma 1.5; C1 = (0.01 R)^2, C2 = (0.03 R)^2
    pck       100 * labelled keypoints nearer to their place than a tenth of the longer side of the box around the
              sample's labelled keypoints / labelled keypoints
    pearson   correlation of output and label over all numbers
    spearman  the same of their ranks; equal values have the mean of theirs

The target is the label where labels have the output's shape, and the baseline's output otherwise. R is the range of
pictures by the target's values: 1 within 0..1, 2 within -1..1, else 255.
Keypoints are [n, k, 2], or any shape of as many numbers; labels [n, k, 2], or [n, k, 3] with a last 0 for a keypoint
that does not count.

Source of ssim: Wang et al. 2004; window and constants as in `tf.image.ssim`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import Predictions, labels_of, mean_of, per_sample, ratio_of, target_of
from tfq.execution.views import View

_ROWS = 256
_WINDOW, _SIGMA = 11, 1.5
_NEAR = 0.1


def reconstruction_error(outputs: np.ndarray, inputs: np.ndarray | View) -> np.ndarray:
    """[n] mean squares of output - input; in blocks, since inputs may lie on disk."""
    starts = range(0, len(outputs), _ROWS)
    return np.concatenate(
        [per_sample(np.square(outputs[s : s + _ROWS].astype(np.float64) - inputs[s : s + _ROWS])) for s in starts]
    )


def mse(predictions: Predictions) -> Statistic:
    return mean_of(reconstruction_error(predictions.outputs[0], target_of(predictions)))


def sqnr(predictions: Predictions) -> Statistic:
    return sqnr_against(predictions.outputs[0], target_of(predictions))


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


def cosine(predictions: Predictions) -> Statistic:
    outputs, target = (
        np.asarray(values, np.float64).reshape(len(values), -1, values.shape[-1] if values.ndim > 1 else 1)
        for values in (predictions.outputs[0], target_of(predictions))
    )
    norms = np.linalg.norm(outputs, axis=-1) * np.linalg.norm(target, axis=-1)
    alike = (outputs == target).all(axis=-1)
    cosines = np.divide((outputs * target).sum(axis=-1), norms, out=alike.astype(np.float64), where=norms > 0)
    return mean_of(per_sample(cosines))


def psnr(predictions: Predictions) -> Statistic:
    target = target_of(predictions)
    peak, errors = _range(target), reconstruction_error(predictions.outputs[0], target)
    return mean_of(decibels(np.full(len(errors), peak**2), errors))


def ssim(predictions: Predictions) -> Statistic:
    outputs, target = predictions.outputs[0], target_of(predictions)
    if outputs.ndim != 4 or min(outputs.shape[1:3]) < _WINDOW:
        raise UserError(
            f"metric ssim needs pictures of {_WINDOW} x {_WINDOW} pixels or more; the output's shape is"
            f" {outputs.shape[1:]}"
        )
    peak = _range(target)
    return mean_of(np.array([_likeness(o, t, peak) for o, t in zip(outputs, target, strict=True)]))


def _range(target: np.ndarray) -> float:
    """How far apart pixels can be."""
    low, high = float(target.min()), float(target.max())
    return 255.0 if high > 1 or low < -1 else 2.0 if low < 0 else 1.0


def _likeness(output: np.ndarray, target: np.ndarray, peak: float) -> float:
    """The mean of SSIM over a picture [h, w, c]."""
    places = np.arange(_WINDOW) - (_WINDOW - 1) / 2
    bell = np.exp(-np.square(places) / (2 * _SIGMA**2))
    bell /= bell.sum()

    def blurred(values: np.ndarray) -> np.ndarray:
        rows = sum(share * values[i : len(values) - _WINDOW + 1 + i] for i, share in enumerate(bell))
        return sum(share * rows[:, i : values.shape[1] - _WINDOW + 1 + i] for i, share in enumerate(bell))

    o, t = output.astype(np.float64), target.astype(np.float64)
    of_o, of_t = blurred(o), blurred(t)
    both, each = of_o * of_t, of_o**2 + of_t**2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    structure = (2 * (blurred(o * t) - both) + c2) / (blurred(o * o + t * t) - each + c2)
    return float(((2 * both + c1) / (each + c1) * structure).mean())


def pck(predictions: Predictions) -> Statistic:
    outputs, labels = predictions.outputs[0], labels_of(predictions, "pck")
    points = outputs.reshape(len(outputs), -1, 2) if outputs[0].size % 2 == 0 else outputs.reshape(len(outputs), -1)
    if labels.ndim != 3 or labels.shape[:2] != points.shape[:2] or labels.shape[2] not in (2, 3):
        raise UserError(
            f"metric pck needs labels [n, keypoints, 2 or 3], as many as the output {outputs.shape[1:]} has pairs of"
            f" coordinates; got {labels.shape}"
        )
    places = labels[..., :2].astype(np.float64)
    counted = labels[..., 2] > 0 if labels.shape[2] == 3 else np.ones(labels.shape[:2], bool)
    low = np.where(counted[..., None], places, np.inf).min(axis=1)
    high = np.where(counted[..., None], places, -np.inf).max(axis=1)
    side = (high - low).max(axis=1)
    near = (np.linalg.norm(points - places, axis=-1) < _NEAR * side[:, None]) & counted
    return ratio_of(100.0 * near.sum(1), counted.sum(1))


def _numbers(predictions: Predictions, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and labels [n, numbers a sample], float64."""
    outputs, labels = predictions.outputs[0], labels_of(predictions, name)
    if labels.size != outputs.size:
        raise UserError(
            f"metric {name} needs a label for each output; the outputs' shape is {outputs.shape}, got {labels.shape}"
        )
    return outputs.reshape(len(outputs), -1).astype(np.float64), labels.reshape(len(outputs), -1).astype(np.float64)


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of x and y [b or 1, m] by weights [b, m]; undefined where one of them is constant."""
    total = weights.sum(axis=1, keepdims=True)
    x, y = (values - (weights * values).sum(axis=1, keepdims=True) / total for values in (x, y))
    both, squares = (weights * x * y).sum(axis=1), (weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)
    return np.divide(both, np.sqrt(squares), out=np.full(len(both), np.nan), where=squares > 0)


def pearson(predictions: Predictions) -> Statistic:
    outputs, labels = _numbers(predictions, "pearson")
    repeats, x, y = outputs.shape[1], outputs.reshape(1, -1), labels.reshape(1, -1)
    return Statistic(lambda weights: _correlation(x, y, np.repeat(weights, repeats, axis=1)))


def spearman(predictions: Predictions) -> Statistic:
    outputs, labels = _numbers(predictions, "spearman")
    repeats, of_outputs, of_labels = outputs.shape[1], _ranks(outputs.reshape(-1)), _ranks(labels.reshape(-1))

    def of_weights(weights: np.ndarray) -> np.ndarray:
        weights = np.repeat(weights, repeats, axis=1)
        return _correlation(of_outputs(weights), of_labels(weights), weights)

    return Statistic(of_weights)


def _ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The ranks of values [m] in samples of weights [b, m]; equal ones have the mean of theirs."""
    order = np.argsort(values, kind="stable")
    _, ties, group = np.unique(values[order], return_index=True, return_inverse=True)
    back = np.empty_like(order)
    back[order] = group

    def ranks(weights: np.ndarray) -> np.ndarray:
        alike = np.add.reduceat(weights[:, order], ties, axis=1)
        return (np.cumsum(alike, axis=1) - (alike - 1) / 2)[:, back]

    return ranks
