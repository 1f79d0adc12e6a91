"""AdaQuant: weights, scales, bias and the input's range of one layer, learned together.

Equation, for the float layer's output z and activation f:

    minimise over V, s, b, s_x, z_x   | f(z) - f( Q_s(W + V) * Q_sx,zx(x) + b ) |^2        (2, 3)
    Q_s(w) = s * clip(round(w / s), -k, k)         Q_sx,zx(x) = s_x * (clip(round(x / s_x) + z_x, n, p) - z_x)

x is the float layer's input (parallel) or what the quantised predecessors compute (sequential). Unlike AdaRound a
weight may move by any number of steps. Gradients pass through round unchanged, and through clip inside alone; the
range gets its own through both (as in LSQ: q - x / s_x inside, the end of the grid outside).
Weights are learned in steps of their grid, so that the gradient of a scale is that of s * q with the codes as they
are: LSQ's, q - w / s, vanishes for weights that have settled on their codes, and the scale drifts.

Learned with Adam from the present weights rounded to the nearest, with the scales of the smallest squared error
(`mse_scales`), each in its own unit, so that one set of rates serves all layers and all bits:

    W = s * u             u in steps of the grid             b = b_0 + sigma_z * v                 per output
    s = s_0 * exp(a)      per scale                          r = r_0 * exp(c), low = low_0 + r_0 * d

A weight whose best value lies between two codes ends up on the threshold between them and keeps jumping from one
to the other; where it is in the end is chance. Added to the loss, in units of the error of rounding to the nearest,
is therefore the dampening

    lambda * t^2 * mean over the weights (clip(u) - q)^2        t from 0 to 1 over the steps, q held fixed

which lets weights wander first and settle then. Published is none, at rates that hardly move a weight.

The input's range [low, low + r] is learned where it belongs to this layer alone (`Problem.input_is_free`); its
zero-point is rounded, straight through, so that 0.0 has a code. Published are rates in absolute units (1e-5 for
weights, which move by a fraction of a step at 4 bits), min-max scales to begin with and asymmetric weight grids;
TFLite's are symmetric.

Source: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer
Programming", 2020 (arXiv:2006.10518), section 3, equations 1-3; the activation inside the loss and the batches from
fresh permutations are those of the released code. The dampening is that of Nagel et al., "Overcoming Oscillations in
Quantization-Aware Training", 2022 (arXiv:2203.11086), equation 4.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfq.calibration.specify import activation_grid
from tfq.numerics import reference
from tfq.reconstruction.descent import (
    Tensors,
    minimise,
    nearest_integer,
    round_straight_through,
    rounding_noise,
    tf_product,
)
from tfq.reconstruction.problem import Problem, Solution
from tfq.reconstruction.weight_scales import output_scales
from tfq.spec import TensorQuantization

STEPS, BATCH, DAMPENING = 1000, 256, 36.0
WEIGHT_RATE, SCALE_RATE, BIAS_RATE, RANGE_RATE = 2e-2, 1e-3, 1e-2, 1e-3


def adaquant(
    problem: Problem,
    seed: int,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    weight_rate: float = WEIGHT_RATE,
    scale_rate: float = SCALE_RATE,
    bias_rate: float = BIAS_RATE,
    range_rate: float = RANGE_RATE,
    penalty: float = DAMPENING,
) -> Solution:
    """Codes, scales, bias and, where it is free, the input's grid of a small error on the rows of `problem`.

    Args:
      problem: the layer.
      seed: of the choice of rows.
      steps, batch: number of steps, rows in each.
      weight_rate: Adam's rate for the weights, in steps of their grids.
      scale_rate: for the scales, relative, where they are not given.
      bias_rate: for the bias, in standard deviations of the output.
      range_rate: for both ends of the input's range, relative to it.
      penalty: lambda.
    """
    start, top = output_scales(problem), problem.largest_code
    grid = problem.input_grid if problem.input_is_free else None
    learned = {
        "weights": (problem.matrix / start[:, None], weight_rate),
        "scales": (np.zeros(problem.tied.max() + 1), 0.0 if problem.scales_are_given else scale_rate),
    }
    given = {
        "scales": start[:, None].astype(np.float32),
        "tied": problem.tied,
        "bias": problem.bias.astype(np.float32),
        "deviation": np.maximum(problem.targets.std(0, dtype=np.float64), 1e-9).astype(np.float32),
        "top": np.array(top, np.float32),
        "penalty": np.array(penalty, np.float32),
    }
    inputs = problem.quantized_inputs()
    unit = rounding_noise(inputs, start)
    if problem.has_bias:
        learned["bias"] = (np.zeros(problem.bias.shape), bias_rate)
    if grid is not None:
        inputs = problem.inputs
        learned |= {name: (np.zeros(()), range_rate) for name in ("widening", "shift")}
        given |= range_facts(grid)
    model = _LearnedLayer(problem.has_bias, grid is not None)
    found = minimise(problem, model, learned, given, inputs=inputs, unit=unit, steps=steps, batch=batch, seed=seed)
    bias = problem.bias
    return Solution(
        np.rint(np.clip(found["weights"], -top, top)).astype(np.int8),
        start * np.exp(found["scales"])[problem.tied],
        bias + found["bias"] * given["deviation"] if problem.has_bias else bias,
        None if grid is None else moved_grid(grid, found["widening"], found["shift"]),
    )


@dataclasses.dataclass(frozen=True)
class _LearnedLayer:
    """Equation 2 and the dampening."""

    has_bias: bool
    has_range: bool

    def outputs(self, learned: Tensors, given: Tensors, rows: tf.Tensor) -> tf.Tensor:
        codes = nearest_integer(learned["weights"], -given["top"], given["top"])
        ratios = tf.exp(tf.gather(learned["scales"], given["tied"]))[:, None]
        x = on_learned_range(rows, learned, given) if self.has_range else rows
        y = tf_product(x, given["scales"] * ratios * codes) + given["bias"]
        return y + learned["bias"] * given["deviation"] if self.has_bias else y

    def penalty(self, learned: Tensors, given: Tensors, progress: tf.Tensor) -> tf.Tensor:
        return given["penalty"] * progress**2 * squared_distance(learned["weights"], given["top"])


def squared_distance(steps: tf.Tensor, top: tf.Tensor | int) -> tf.Tensor:
    """Mean over weights in steps of the squared distance to their codes, which are held fixed."""
    inside = tf.clip_by_value(steps, -top, top)
    return tf.reduce_mean((inside - tf.round(tf.stop_gradient(inside))) ** 2)


def range_facts(grid: TensorQuantization) -> dict[str, np.ndarray]:
    """What `on_learned_range` computes with, besides c ("widening") and d ("shift")."""
    (lowest, highest), (low, high) = grid.integer_range, grid.real_range
    found = {"lowest": lowest, "highest": highest, "low": low, "width": high - low}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def on_learned_range(values: tf.Tensor, learned: Tensors, given: Tensors) -> tf.Tensor:
    """The values on the grid whose range is learned; gradients as in the module's text."""
    scale, zero_point = _parameters(learned["widening"], learned["shift"], given)
    levels = tf.clip_by_value(values / scale + zero_point, given["lowest"], given["highest"])
    return (round_straight_through(levels) - zero_point) * scale


def moved_grid(grid: TensorQuantization, widening: np.ndarray, shift: np.ndarray) -> TensorQuantization:
    """The grid of the same bits for c and d."""
    scale, zero_point = (float(value) for value in _parameters(tf.constant(widening), shift, range_facts(grid)))
    return activation_grid(float(reference.activation_scale(scale, grid.bits)), int(zero_point), grid.bits)


def _parameters(widening: tf.Tensor, shift: tf.Tensor, given: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
    low, width = given["low"] + given["width"] * shift, given["width"] * tf.exp(widening)
    scale = width / (given["highest"] - given["lowest"])
    return scale, nearest_integer(given["lowest"] - low / scale, given["lowest"], given["highest"])
