"""The points of accuracy that a model loses against float, estimated on calibration samples.

    with labels      d_i = [argmax p_i = y_i] - [argmax q_i = y_i]
    without labels   d_i = p_i(argmax p_i) - p_i(argmax q_i)             p float, q quantised outputs

    drop = 100 mean(d),   standard error = 100 sqrt(sum (d - mean(d))^2 + 1/4) / n

The 1/4 is one more change, between classes whose odds differ by a half: that n samples hold none does not mean that
there are none.

Without labels the float model's own probabilities say how often each class is right: where they are (on average over
the samples that change class) what they claim to be, the estimate has no bias; where the float model is more confident
than it should be, it is too high, and the model that is chosen too good. Changes between classes of equal odds cost
nothing, as they do on average.

What was fitted to samples departs less from float on them than on others. With D the mean divergence of the outputs
from the float model's (`tfq.simulate.guard`), a drop and its error on all samples are therefore multiplied by

    optimism = max(1, D on held-back samples / D on the samples fitted to)

The drop itself cannot be measured on the held-back samples alone: they are few, and few of them change class.

Scope: classifiers of one output, of one class per sample or per position; logits go through a softmax first.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.errors import UserError
from tfq.simulate.guard import is_distribution

_UNSEEN = 0.5  # difference of the odds of a change that the samples do not hold


@dataclasses.dataclass(frozen=True)
class Drop:
    """Points of accuracy lost (negative: gained), with the standard error of the paired difference over n samples."""

    points: float
    standard_error: float
    n: int

    def corrected(self, optimism: float) -> Drop:
        """The drop on samples that nothing was fitted to; a gain is left as it is."""
        if self.points <= 0:
            return dataclasses.replace(self, standard_error=optimism * self.standard_error)
        return Drop(optimism * self.points, optimism * self.standard_error, self.n)


def accuracy_drop(float_outputs: np.ndarray, outputs: np.ndarray, labels: np.ndarray | None = None) -> Drop:
    """What the quantised model loses.

    Args:
      float_outputs, outputs: of the float and of the quantised model on the same samples [n, ..., classes].
      labels: class numbers [n, ...]; None: the float model's probabilities take their place.

    Raises:
      UserError: outputs that are no scores of classes, or labels that do not fit them.
    """
    if float_outputs.ndim < 2 or float_outputs.shape[-1] < 2:
        raise UserError(
            f"an accuracy drop needs scores of two classes or more; the model gives {float_outputs.shape[1:]} numbers a"
            " sample, so set --size_budget or --latency_budget instead"
        )
    chosen, before = outputs.argmax(-1)[..., None], float_outputs.argmax(-1)[..., None]
    if labels is None:
        odds = _probabilities(float_outputs)
        lost = np.take_along_axis(odds, before, -1) - np.take_along_axis(odds, chosen, -1)
    else:
        if labels.shape != before.shape[:-1]:
            raise UserError(f"labels have the shape {labels.shape}; {before.shape[:-1]} are needed, one for each class")
        lost = (before == labels[..., None]).astype(np.float64) - (chosen == labels[..., None])
    each = 100.0 * lost.reshape(len(lost), -1).mean(1)
    mean = float(each.mean())
    error = float(np.sqrt(np.square(each - mean).sum() + np.square(100.0 * _UNSEEN))) / len(each)
    return Drop(mean, error, len(each))


def optimism(divergences: np.ndarray, held_back: np.ndarray) -> float:
    """By how much more a model departs from float where nothing was fitted.

    Args:
      divergences: of each sample [n].
      held_back: which samples were held back, as flags [n].
    """
    if not held_back.any() or held_back.all():
        return 1.0
    fitted = float(divergences[~held_back].mean())
    return max(1.0, float(divergences[held_back].mean()) / fitted) if fitted > 0 else 1.0


def _probabilities(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    if is_distribution(scores):
        return scores
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
