"""Adam over sampled rows: the loop that the gradient methods share.

    loss = mean over the rows of a batch of  sum over groups and outputs |f(y) - f(z)|^2 / unit     y = outputs(x)

with the fused activation f inside. `unit` is what rounding is expected to cost (`rounding_noise`), so that neither
the loss nor a penalty beside it depends on the layer's units, size or bits. Every variable brings its own learning
rate, in units of what it moves (steps of the grid, standard deviations of the output, ...): one setting serves all
layers. Adam's steps do not depend on the size of the gradients as long as its epsilon is far below them, which 1e-7
is not: a gradient is shared out among all weights of a layer.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the rates fall to zero along a half cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.reconstruction.problem import Problem, clamp

_BATCH_NUMBERS = 2**19  # products of one batch that are held at a time in the elementwise form, at most
_EPSILON = 1e-14

Penalty = Callable[[tf.Tensor], tf.Tensor]


def minimise(
    problem: Problem,
    outputs: Callable[[tf.Tensor], tf.Tensor],
    variables: Sequence[tuple[tf.Variable, float]],
    *,
    inputs: np.ndarray,
    unit: float,
    steps: int,
    batch: int,
    seed: int,
    penalty: Penalty | None = None,
) -> None:
    """Minimise the loss over the rows of `problem`; the variables hold the result.

    Args:
      problem: gives targets, offset and activation.
      outputs: y, without the offset, of a batch of inputs [rows, groups, taps].
      variables: with the learning rates they start with.
      inputs: of all rows [n, groups, taps].
      unit: of the loss: squared error of one row.
      steps, batch: number of steps, rows in each.
      seed: of the choice of rows: one random permutation after the other.
      penalty: added to the loss, of the progress 0..1.
    """
    groups, taps, channels = problem.matrix.shape
    if groups > 1:
        batch = min(batch, max(1, _BATCH_NUMBERS // (groups * taps * channels)))
    order = tf.constant(shuffled_rows(len(inputs), steps, batch, seed))
    x, z = tf.constant(inputs), tf.constant(clamp(problem.targets, problem.activation))
    offset = None if problem.offset is None else tf.constant(problem.offset)
    own = [variable for variable, _ in variables]
    optimisers = []
    for variable, rate in variables:
        schedule = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
        optimisers.append(tf_keras.optimizers.Adam(schedule, epsilon=_EPSILON, jit_compile=False))
        optimisers[-1].build([variable])

    @tf.function
    def descend() -> None:
        for index in tf.range(steps):
            rows = order[index]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(own)
                y = outputs(tf.gather(x, rows))
                if offset is not None:
                    y += tf.gather(offset, rows)
                errors = tf.math.squared_difference(tf_clamp(y, problem.activation), tf.gather(z, rows))
                loss = tf.reduce_mean(tf.reduce_sum(errors, [1, 2])) / unit
                if penalty is not None:
                    loss += penalty(tf.cast(index, tf.float32) / steps)
            gradients = tape.gradient(loss, own)
            for optimiser, variable, gradient in zip(optimisers, own, gradients, strict=True):
                optimiser.apply_gradients([(gradient, variable)])

    descend.get_concrete_function()()


def shuffled_rows(count: int, steps: int, batch: int, seed: int) -> np.ndarray:
    """Row numbers int32 [steps, min(batch, count)]: fresh random permutations, one after the other."""
    batch = min(batch, count)
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(count) for _ in range(-(-steps * batch // count))]
    return np.concatenate(passes)[: steps * batch].reshape(steps, batch).astype(np.int32)


def rounding_noise(inputs: np.ndarray, scales: np.ndarray) -> float:
    """Expected squared error of one row when weights on grids of these scales [groups, outputs] are rounded.

    The error of a weight is even over a step, of variance s^2 / 12, whatever the weights are: some lie on their grid.
    """
    power = np.einsum("ngk,ngk->g", inputs, inputs, dtype=np.float64) / len(inputs)
    return float((power[:, None] * np.square(scales)).sum() / 12) or 1.0


def tf_product(rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """[n, groups, taps] @ [groups, taps, outputs] -> [n, groups, outputs]."""
    if matrix.shape[0] == 1:
        return (rows[:, 0] @ matrix[0])[:, None]
    return tf.reduce_sum(rows[..., None] * matrix, 2)


def tf_clamp(values: tf.Tensor, activation: str | None) -> tf.Tensor:
    """The fused activation."""
    if activation is None:
        return values
    return tf.nn.relu6(values) if activation == "relu6" else tf.nn.relu(values)


@tf.custom_gradient
def round_straight_through(values: tf.Tensor) -> Any:
    """round(values), with the gradient of the identity."""
    return tf.round(values), lambda upstream: upstream


def nearest_integer(values: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """The nearest integer in [low, high]; the gradient passes inside the range alone."""
    return round_straight_through(tf.clip_by_value(values, low, high))
