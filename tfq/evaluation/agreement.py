"""Whether a model predicts the baseline's classes on the same samples, and whether these mean anything.

It needs no labels, only a classifier.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import class_indices, mean_of
from tfq.execution.views import Arrays

_SUM = 0.05  # how far probabilities may be from the sum 1


@dataclasses.dataclass(frozen=True)
class Decisions:
    """How a classifier decides on the samples.

    Attributes:
      classes: how many it tells apart.
      given: how many different ones it gives.
      certainty: mean of its largest probability; None where its outputs are no probabilities.
    """

    classes: int
    given: int
    certainty: float | None

    @classmethod
    def of(cls, outputs: np.ndarray) -> Decisions:
        """Of class scores [n, ..., classes], or [n, ..., 1] or [n] where one unit stands for two classes."""
        given = len(np.unique(class_indices(outputs, "agreement")))
        if outputs.ndim < 2 or outputs.shape[-1] == 1:
            return cls(2, given, float(np.maximum(outputs, 1 - outputs).mean(dtype=np.float64)))
        certainty = float(outputs.max(axis=-1).mean(dtype=np.float64)) if are_probabilities(outputs) else None
        return cls(outputs.shape[-1], given, certainty)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether each row of [n, ..., classes] is a distribution."""
    sums = outputs.sum(axis=-1, dtype=np.float64)
    return bool((outputs >= 0).all() and np.allclose(sums, 1.0, atol=_SUM))


def gives_classes(outputs: np.ndarray, inputs: Arrays, *, judged_so: bool) -> bool:
    """Whether the largest of outputs [n, ..., classes] means a class.

    It does where the metric judges classes (`judged_so`) or every output is a distribution: never below
    0, with the sum 1 +- 0.05. It never does for an output of an input's shape (an autoencoder), or for a
    single unit that leaves [0, 1].
    """
    if any(outputs.shape == values.shape for values in inputs.values()):
        return False
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        return judged_so and bool((outputs >= 0).all() and (outputs <= 1).all())
    return judged_so or are_probabilities(outputs)


def class_agreement(outputs: np.ndarray, baseline: np.ndarray) -> Statistic:
    """Share of equal predicted classes, in %; for outputs [n, ..., classes] the mean over positions."""
    same = class_indices(outputs, "agreement") == class_indices(baseline, "agreement")
    return mean_of(100.0 * same.reshape(len(same), -1).mean(axis=1))
