"""AdaRound: every weight is rounded down or up, whichever serves the layer's output.

Equation, with fixed scales s of the smallest squared error of the weights (`mse_scales`):

    W~ = s * clip(floor(W / s) + h(V), n, p)                      (22)
    h(V) = clip(sigmoid(V) * (zeta - gamma) + gamma, 0, 1)        (23)    zeta = 1.1, gamma = -0.1
    minimise over V   |f(z) - f(W~ x^)|^2 + lambda * sum 1 - |2 h(V) - 1|^beta     (24, 25)

x^ are the inputs as the quantised network computes them ("asymmetric"), f is the fused activation. V starts where
h(V) is the fraction of W / s. The penalty starts after WARM_UP of the steps; beta then falls from 20 to 2 along a
half cosine, so that first those h that are near 0 or 1 settle, then all. The error is in units of that of rounding
to the nearest, and the penalty is the mean over the weights, so that lambda does not depend on the layer.

What differs from the published method: 10,000 steps at the rate 1e-2 are STEPS at RATE, of about the same product,
as V has the same way to go; the rate falls, and lambda and WARM_UP (published: 20 %) are such that nearly all h end
within 1e-2 of 0 or 1. At the end the bias takes over the mean error (`bias_correction`); published, it stays.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020 (arXiv:2004.10568),
equations 21-25 and section 5; the settings are those of its appendix and of the code released with AIMET.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfq.reconstruction.bias_correction import with_corrected_bias
from tfq.reconstruction.descent import Tensors, minimise, rounding_noise, tf_product
from tfq.reconstruction.problem import Problem, Solution
from tfq.reconstruction.weight_scales import output_scales

STEPS, BATCH, RATE = 1000, 256, 0.1
PENALTY, WARM_UP, BETAS = 300.0, 0.1, (20.0, 2.0)
_ZETA, _GAMMA = 1.1, -0.1


def adaround(
    problem: Problem, seed: int, *, steps: int = STEPS, batch: int = BATCH, rate: float = RATE, penalty: float = PENALTY
) -> Solution:
    """Codes and bias of a small error on the rows of `problem`, the scales those of the smallest weight error.

    Args:
      problem: the layer.
      seed: of the choice of rows.
      steps, batch: number of steps, rows in each.
      rate: Adam's learning rate for V.
      penalty: lambda.
    """
    scales = output_scales(problem)
    low, h = learned_rounding(problem, scales, seed, steps=steps, batch=batch, rate=rate, penalty=penalty)
    return with_corrected_bias(problem, Solution((low + (h >= 0.5)).astype(np.int8), scales, problem.bias))


def learned_rounding(
    problem: Problem, scales: np.ndarray, seed: int, *, steps: int, batch: int, rate: float, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """(integers below the weights, h(V) at the end), both [groups, taps, outputs]; arguments as in `adaround`."""
    inputs, top = problem.quantized_inputs(), problem.largest_code
    unit = rounding_noise(inputs, scales)
    exact = problem.matrix / scales[:, None]
    low = np.clip(np.floor(exact), -top, top - 1)
    # a weight beyond the grid starts at its end, where the gradient is zero: it stays clipped
    learned = {"v": (_inverse(np.clip(exact - low, 0.0, 1.0)), rate)}
    given = {
        "floor": low.astype(np.float32),
        "scales": scales[:, None].astype(np.float32),
        "bias": problem.bias.astype(np.float32),
        "penalty": np.array(penalty, np.float32),
    }
    model = _RoundedLayer()
    found = minimise(problem, model, learned, given, inputs=inputs, unit=unit, steps=steps, batch=batch, seed=seed)
    return low, rectified_sigmoid(found["v"]).numpy()


@dataclasses.dataclass(frozen=True)
class _RoundedLayer:
    """Equations 22 to 24."""

    def outputs(self, learned: Tensors, given: Tensors, rows: tf.Tensor) -> tf.Tensor:
        codes = given["floor"] + rectified_sigmoid(learned["v"])
        return tf_product(rows, codes * given["scales"]) + given["bias"]

    def penalty(self, learned: Tensors, given: Tensors, progress: tf.Tensor) -> tf.Tensor:
        rest = 1.0 - tf.reduce_mean(tf.abs(2.0 * rectified_sigmoid(learned["v"]) - 1.0) ** annealed(progress))
        return tf.where(progress < WARM_UP, 0.0, given["penalty"] * rest)


def rectified_sigmoid(v: tf.Tensor) -> tf.Tensor:
    """h(V), in [0, 1]."""
    return tf.clip_by_value(tf.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA, 0.0, 1.0)


def annealed(progress: tf.Tensor) -> tf.Tensor:
    """beta at `progress` 0..1 of all steps."""
    first, last = BETAS
    done = tf.maximum(progress - WARM_UP, 0.0) / (1.0 - WARM_UP)
    return last + 0.5 * (first - last) * (1.0 + tf.cos(np.pi * done))


def _inverse(h: np.ndarray) -> np.ndarray:
    """The V where the rectified sigmoid is h."""
    sigmoid = (h - _GAMMA) / (_ZETA - _GAMMA)
    return np.log(sigmoid / (1.0 - sigmoid))
