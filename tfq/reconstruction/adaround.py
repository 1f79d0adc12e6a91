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
within 1e-2 of 0 or 1. At the end the bias takes over the mean error (`mean_error`); published, it stays.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020 (arXiv:2004.10568),
equations 21-25 and section 5; the settings are those of its appendix and of the code released with AIMET.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfq.reconstruction.descent import Arrays, Pull, minimise, rounding_noise, slope_by_matrix
from tfq.reconstruction.mean_error import with_corrected_bias
from tfq.reconstruction.problem import Problem, Solution, product
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
    inputs, (lowest, highest) = problem.quantized_inputs(), problem.codes.ends
    unit = rounding_noise(inputs, scales)
    exact = problem.matrix / scales[:, None]
    low = np.clip(np.floor(exact), lowest, highest - 1)
    # a weight beyond the grid starts at its end, where the gradient is zero: it stays clipped
    learned = {"v": (_inverse(np.clip(exact - low, 0.0, 1.0)), rate)}
    model = RoundedLayer(
        floor=low.astype(np.float32),
        scales=scales[:, None].astype(np.float32),
        bias=problem.bias.astype(np.float32),
        penalty=penalty,
    )
    found = minimise(problem, model, learned, inputs=inputs, unit=unit, steps=steps, batch=batch, seed=seed)
    return low, rectified_sigmoid(found["v"])[0]


@dataclasses.dataclass(frozen=True, eq=False)
class RoundedLayer:
    """Equations 22 to 25.

    Attributes:
      floor: floor(W / s), clipped, [groups, taps, outputs].
      scales: s [groups, 1, outputs].
      bias: [groups, outputs].
      penalty: lambda.
    """

    floor: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    penalty: float

    def outputs(self, learned: Arrays, rows: np.ndarray) -> tuple[np.ndarray, Pull]:
        """y of a batch, and the way back."""
        h, slope_of_h = rectified_sigmoid(learned["v"])
        y = product(rows, (self.floor + h) * self.scales) + self.bias

        def pull(slope: np.ndarray, progress: float) -> dict[str, np.ndarray]:
            to_h = slope_by_matrix(rows, slope) * self.scales
            if progress >= WARM_UP:
                beta, sides = annealed(progress), 2 * h - 1
                towards = np.sign(sides) * np.abs(sides) ** (beta - 1)
                to_h -= (2 * beta * self.penalty / h.size) * towards
            return {"v": to_h * slope_of_h}

        return y, pull


def rectified_sigmoid(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h(V), in [0, 1], and its derivative."""
    sigmoid = 1 / (1 + np.exp(-v))
    stretched = sigmoid * (_ZETA - _GAMMA) + _GAMMA
    h = np.clip(stretched, 0, 1)
    return h, (_ZETA - _GAMMA) * sigmoid * (1 - sigmoid) * (h == stretched)


def annealed(progress: float) -> float:
    """beta at `progress` 0..1 of all steps."""
    first, last = BETAS
    done = max(progress - WARM_UP, 0.0) / (1.0 - WARM_UP)
    return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * done))


def _inverse(h: np.ndarray) -> np.ndarray:
    """The V where the rectified sigmoid is h."""
    sigmoid = (h - _GAMMA) / (_ZETA - _GAMMA)
    return np.log(sigmoid / (1.0 - sigmoid))
