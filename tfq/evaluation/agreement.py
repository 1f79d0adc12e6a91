"""Whether a model predicts the baseline's classes on the same samples; needs no labels, only a classifier."""

from __future__ import annotations

import numpy as np

from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metrics import class_indices, mean_of
from tfq.execution.views import Arrays


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
    sums = outputs.sum(axis=-1, dtype=np.float64)
    return judged_so or bool((outputs >= 0).all() and np.allclose(sums, 1.0, atol=0.05))


def class_agreement(outputs: np.ndarray, baseline: np.ndarray) -> Statistic:
    """Share of equal predicted classes, in %; for outputs [n, ..., classes] the mean over positions."""
    same = class_indices(outputs, "agreement") == class_indices(baseline, "agreement")
    return mean_of(100.0 * same.reshape(len(same), -1).mean(axis=1))
