"""The points of accuracy that a model loses against float, estimated on calibration samples.

With p the float model's probabilities, a its class and b its second, what a change from a to b costs is

    with labels      w = [a = y] - [b = y]
    without labels   w = p(a) - p(b)

Few samples change class, and which ones is chance: counting takes thousands. The margin of every sample tells more:

    margin    L = log p(a) - log p(b)            error   e = log q(a) - log max_{j != a} q(j) - L
    drop      100 mean(w F(L))                   F(L) = share of e < -L among the 32 to 64 nearest margins

which has the same mean as counting, as samples of nearly equal margins might have had each other's errors, and less
variance; but every change is priced as one to b, so that large drops, with many changes to a third class, come out too
low (by an eighth where 24 points are lost). The standard error is that of the bootstrap: the spread of the estimate
over samples drawn anew from those at hand.

Samples so sure that q holds no second class (p(b) < 1/64) have no error of the margin; they are counted as they are,
w of the classes before and after. So are all where fewer than 32 have one; one change more, between classes whose odds
differ by a half, is then added to the squares of the error: that n samples hold none does not mean that there are none.

Without labels the float model's own probabilities say how often each class is right: where they are (on average over
the samples that change class) what they claim to be, the estimate has no bias; where the float model is more confident
than it should be, it is too high, and the model that is chosen too good. Changes between classes of equal odds cost
nothing, as they do on average.

What was fitted to samples departs less from float on them than on others. With D the mean divergence of the outputs
from the float model's (`tfq.simulate.judge`), and D_8 that of the 8-bit model, to which only ranges were fitted, so
that it tells how much easier the samples that judge (`tfq.data.roles`) happen to be, a drop and its error on all
samples are multiplied by

    optimism = max(1, geometric mean over models of  D judging / D others * D_8 others / D_8 judging)

and the drop is held below all that the float model has to lose. One model's ratio, of a few dozen samples that judge,
is mostly chance; the mean is over those looked at so far. The drop itself is not measured on those that judge alone:
they are few, and few of them change class. So this is an estimate of what is lost on samples that nothing was fitted
to, by the departure there; it is not a measurement of it.

Source: the share of the neighbours' errors is the conditional mean of Rao and Blackwell, by nearest neighbours; the
bootstrap is Efron's (1979).

Scope: classifiers of one output, of one class per sample or per position; logits go through a softmax first.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.errors import UserError
from tfq.simulate.divergence import is_distribution

_UNSEEN = 0.5  # difference of the odds of a change that the samples do not hold
_LEAST_SECOND, _LEAST = 1 / 64, 1 / 512  # of p(b) for a margin to have an error; of q, half a step of an 8-bit softmax
_NEIGHBOURS = (32, 64)  # a third of the samples, within these bounds
_RESAMPLES, _MOST_MARGINS = 100, 2**16


@dataclasses.dataclass(frozen=True)
class Drop:
    """Points of accuracy lost (negative: gained), with the standard error of the paired difference over n samples.

    No model can lose more than `most`: the float model's own accuracy, by the labels or by its own probabilities.
    """

    points: float
    standard_error: float
    n: int
    most: float = 100.0

    @property
    def on_the_safe_side(self) -> float:
        """The points with their standard error on top."""
        return min(self.points + self.standard_error, self.most)

    def corrected(self, optimism: float) -> Drop:
        """The drop on samples that nothing was fitted to; a gain is left as it is."""
        error = min(optimism * self.standard_error, 100.0)
        points = self.points if self.points <= 0 else min(optimism * self.points, self.most)
        return dataclasses.replace(self, points=points, standard_error=error)


def accuracy_drop(
    float_outputs: np.ndarray, outputs: np.ndarray, labels: np.ndarray | None = None, *, seed: int = 0
) -> Drop:
    """What the quantised model loses.

    Args:
      float_outputs, outputs: of the float and of the quantised model on the same samples [n, ..., classes].
      labels: class numbers [n, ...]; None: the float model's probabilities take their place.
      seed: of the samples that the bootstrap draws.

    Raises:
      UserError: outputs that are no scores of classes, or labels that do not fit them.
    """
    if float_outputs.ndim < 2 or float_outputs.shape[-1] < 2:
        raise UserError(
            f"an accuracy drop needs scores of two classes or more; the model gives {float_outputs.shape[1:]} numbers a"
            " sample, so set `size_budget` or `latency_budget` instead"
        )
    chosen, before = outputs.argmax(-1)[..., None], float_outputs.argmax(-1)[..., None]
    odds, after = _probabilities(float_outputs, outputs)
    first, second = (_at(odds, place) for place in (before, _second(odds, before)))
    if labels is None:
        weights, counted = first - second, first - _at(odds, chosen)
        most = 100.0 * float(first.mean())
    else:
        if labels.shape != before.shape[:-1]:
            raise UserError(f"labels have the shape {labels.shape}; {before.shape[:-1]} are needed, one for each class")
        weights = (before[..., 0] == labels).astype(np.float64) - (_second(odds, before)[..., 0] == labels)
        counted = (before[..., 0] == labels).astype(np.float64) - (chosen[..., 0] == labels)
        most = 100.0 * float((before[..., 0] == labels).mean())
    seen = second >= _LEAST_SECOND
    if not _NEIGHBOURS[0] <= np.count_nonzero(seen) <= _MOST_MARGINS:
        each = 100.0 * counted.reshape(len(counted), -1).mean(1)
        error = float(np.sqrt(len(each) * each.var() + (100.0 * _UNSEEN) ** 2)) / len(each)
        return Drop(float(each.mean()), error, len(each), most)
    margins = np.log(first / np.where(seen, second, 1.0))
    kept, other = (np.maximum(_at(after, place), _LEAST) for place in (before, _second(after, before)))
    errors = np.log(kept / other) - margins

    def lost(chosen: np.ndarray) -> float:
        """Points on the samples of these numbers."""
        near, own = seen[chosen], counted[chosen]
        own[near] = _smoothed(*(values[chosen][near] for values in (weights, margins, errors)))
        return 100.0 * float(own.mean())

    everything, rng = np.arange(len(seen)), np.random.default_rng(seed)
    drawn = [lost(rng.choice(everything, len(everything))) for _ in range(_RESAMPLES)]
    return Drop(min(lost(everything), most), float(np.std(drawn, ddof=1)), len(everything), most)


def _smoothed(weights: np.ndarray, margins: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """w F(L) of samples [m] by their w, L and e."""
    order = np.argsort(margins, kind="stable")
    count = len(order)
    neighbours = min(count, int(np.clip(count // 3, *_NEIGHBOURS)))
    start = np.clip(np.arange(count) - neighbours // 2, 0, count - neighbours)
    near = order[start[:, None] + np.arange(neighbours)]  # numbers of the neighbours of the sample at each place
    found = np.empty(count)
    found[order] = weights[order] * (errors[near] < -margins[order, None]).mean(1)
    return found


def optimism(divergences: np.ndarray, unfitted: np.ndarray, held_back: np.ndarray) -> float:
    """By how much more a model departs from float where nothing was fitted: the ratio of one model.

    Args:
      divergences, unfitted: of each sample [n], of the model and of one to which nothing was fitted.
      held_back: which samples judge, as flags [n].
    """
    if not held_back.any() or held_back.all():
        return 1.0
    held, fitted = (
        np.array([values[flags].mean() for values in (divergences, unfitted)]) for flags in (held_back, ~held_back)
    )
    if not (fitted > 0).all() or not (held > 0).all():
        return 1.0
    return float(held[0] / fitted[0] * fitted[1] / held[1])


def _second(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Class of the largest of `values` [n, ..., classes] but the class `first` [n, ..., 1]."""
    others = values.copy()
    np.put_along_axis(others, first, -np.inf, -1)
    return others.argmax(-1)[..., None]


def _at(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`values` [n, ..., classes] of the classes [n, ..., 1]: [n, ...]."""
    return np.take_along_axis(values, classes, -1)[..., 0]


def _probabilities(*outputs: np.ndarray) -> list[np.ndarray]:
    """Of float and quantised outputs; the first tells which they are, the sum of the rounded ones is not exactly 1."""
    scores = [values.astype(np.float64) for values in outputs]
    if is_distribution(scores[0]):
        return scores
    powers = [np.exp(values - values.max(-1, keepdims=True)) for values in scores]
    return [values / values.sum(-1, keepdims=True) for values in powers]
