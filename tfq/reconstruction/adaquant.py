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

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfq.calibration.specify import activation_grid
from tfq.numerics import reference
from tfq.reconstruction.descent import minimise, nearest_integer, round_straight_through, rounding_noise, tf_product
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
      scale_rate: for the scales, relative.
      bias_rate: for the bias, in standard deviations of the output.
      range_rate: for both ends of the input's range, relative to it.
      penalty: lambda.
    """
    start = output_scales(problem)
    first = tf.constant(start[:, None], tf.float32)
    weights = tf.Variable(problem.matrix / start[:, None], dtype=tf.float32)
    relative = tf.Variable(np.zeros(problem.tied.max() + 1), dtype=tf.float32)
    bias = tf.Variable(np.zeros(problem.bias.shape), dtype=tf.float32)
    deviation = np.maximum(problem.targets.std(0, dtype=np.float64), 1e-9)

    def ratios() -> tf.Tensor:
        return tf.exp(tf.gather(relative, problem.tied))[:, None]

    def outputs(rows: tf.Tensor) -> tf.Tensor:
        matrix = first * ratios() * nearest_integer(weights, -problem.largest_code, problem.largest_code)
        return tf_product(learned(rows), matrix) + problem.bias + bias * deviation

    def dampening(progress: tf.Tensor) -> tf.Tensor:
        return penalty * progress**2 * squared_distance(weights, problem.largest_code)

    variables = [(weights, weight_rate), (relative, scale_rate)]
    if problem.has_bias:
        variables.append((bias, bias_rate))
    learned: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    inputs = problem.quantized_inputs()
    unit = rounding_noise(inputs, start)
    grid = problem.input_grid if problem.input_is_free else None
    if grid is not None:
        span, inputs = LearnedRange(grid), problem.inputs
        learned = span.quantize
        variables += [(variable, range_rate) for variable in span.variables]

    minimise(
        problem,
        outputs,
        variables,
        inputs=inputs,
        unit=unit,
        steps=steps,
        batch=batch,
        seed=seed,
        penalty=dampening,
    )
    return Solution(
        nearest_integer(weights, -problem.largest_code, problem.largest_code).numpy().astype(np.int8),
        start * ratios().numpy()[:, 0],
        problem.bias + bias.numpy() * deviation,
        None if grid is None else span.grid(),
    )


def squared_distance(steps: tf.Tensor, top: int) -> tf.Tensor:
    """Mean over weights in steps of the squared distance to their codes, which are held fixed."""
    inside = tf.clip_by_value(steps, -top, top)
    return tf.reduce_mean((inside - tf.round(tf.stop_gradient(inside))) ** 2)


class LearnedRange:
    """An asymmetric grid whose range can be learned; it starts at a given one and keeps its bits."""

    def __init__(self, grid: TensorQuantization):
        self._bits = grid.bits
        self._lowest, self._highest = (float(end) for end in grid.integer_range)
        low, high = grid.real_range
        self._low, self._width = low, high - low
        self._widening, self._shift = tf.Variable(0.0), tf.Variable(0.0)

    @property
    def variables(self) -> tuple[tf.Variable, tf.Variable]:
        """c and d: r = r_0 * exp(c), low = low_0 + r_0 * d."""
        return self._widening, self._shift

    def quantize(self, values: tf.Tensor) -> tf.Tensor:
        """The values on the grid; gradients as in the module's text."""
        scale, zero_point = self._parameters()
        levels = tf.clip_by_value(values / scale + zero_point, self._lowest, self._highest)
        return (round_straight_through(levels) - zero_point) * scale

    def grid(self) -> TensorQuantization:
        scale, zero_point = (float(value) for value in self._parameters())
        return activation_grid(float(reference.exact_scale(scale, self._bits)), int(zero_point), self._bits)

    def _parameters(self) -> tuple[tf.Tensor, tf.Tensor]:
        low, width = self._low + self._width * self._shift, self._width * tf.exp(self._widening)
        scale = width / (self._highest - self._lowest)
        return scale, nearest_integer(self._lowest - low / scale, self._lowest, self._highest)
