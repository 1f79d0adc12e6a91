"""How far a model's outputs agree with the baseline's on the same samples; needs no labels.

agreement = share of samples with the same predicted class, in %  (classifiers only)
sqnr      = 10 log10(sum |baseline|^2 / sum |output - baseline|^2), in dB  (every model)
"""

from __future__ import annotations

import numpy as np

from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metrics import class_indices, mean_of, sqnr_against


def looks_like_probabilities(outputs: np.ndarray) -> bool:
    """Whether the last axis of [n, ..., classes] holds distributions: never below 0, with the sum 1 +- 0.05."""
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        return False
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1, dtype=np.float64), 1.0, atol=0.05))


def class_agreement(outputs: np.ndarray, baseline: np.ndarray) -> Statistic:
    """Share of equal predicted classes, in %; for outputs [n, ..., classes] the mean over positions."""
    same = class_indices(outputs, "agreement") == class_indices(baseline, "agreement")
    return mean_of(100.0 * same.reshape(len(same), -1).mean(axis=1))


def signal_to_noise(outputs: np.ndarray, baseline: np.ndarray) -> Statistic:
    """SQNR of the outputs, the baseline's being the signal; infinite where both are equal."""
    return sqnr_against(outputs, baseline)
