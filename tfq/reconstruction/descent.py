"""Adam over sampled rows: the loop that the gradient methods share.

    loss = mean over the rows of a batch of  sum over groups and outputs |f(y) - f(z)|^2 / unit     y = outputs(x)

with the fused activation f inside. `unit` is what rounding is expected to cost (`rounding_noise`), so that neither
the loss nor a penalty beside it depends on the layer's units, size or bits. Every variable brings its own learning
rate, in units of what it moves (steps of the grid, standard deviations of the output, ...): one setting serves all
layers. Adam's steps do not depend on the size of the gradients as long as its epsilon is far below them, which 1e-7
is not: a gradient is shared out among all weights of a layer.

What is learned and how it acts is a `Model`: pure functions of tensors. One graph is traced for every model,
activation and set of shapes, not for every layer, and it holds the whole loop: threads may run it side by side.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the rates fall to zero along a half cosine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfq.reconstruction.problem import Problem, clamp

_BATCH_NUMBERS = 2**19  # products of one batch that are held at a time in the elementwise form, at most
_EPSILON, _MOMENTUM, _SQUARES = 1e-14, 0.9, 0.999

Tensors = Mapping[str, tf.Tensor]


class Model(Protocol):
    """How a method computes a layer; equal models share their traced graph, so it is hashable and holds no tensors."""

    def __hash__(self) -> int: ...

    def outputs(self, learned: Tensors, given: Tensors, rows: tf.Tensor) -> tf.Tensor:
        """y, without the offset, of a batch of inputs [rows, groups, taps]."""

    def penalty(self, learned: Tensors, given: Tensors, progress: tf.Tensor) -> tf.Tensor:
        """Added to the loss; `progress` goes from 0 to 1."""


def minimise(
    problem: Problem,
    model: Model,
    learned: Mapping[str, tuple[np.ndarray, float]],
    given: Mapping[str, np.ndarray],
    *,
    inputs: np.ndarray,
    unit: float,
    steps: int,
    batch: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """What `learned` has become when the loss over the rows of `problem` is minimised; float32.

    Args:
      problem: gives targets, offset and activation.
      model: the layer.
      learned: by name where it starts, and its learning rate at first.
      given: what else the model computes with.
      inputs: of all rows [n, groups, taps].
      unit: of the loss: squared error of one row.
      steps, batch: number of steps, rows in each.
      seed: of the choice of rows: one random permutation after the other.
    """
    groups, taps, channels = problem.matrix.shape
    if groups > 1:
        batch = min(batch, max(1, _BATCH_NUMBERS // (groups * taps * channels)))
    offset = problem.targets[:0] if problem.offset is None else problem.offset
    found = _descent(model, problem.activation, problem.offset is not None)(
        {name: tf.constant(start, tf.float32) for name, (start, _) in learned.items()},
        {name: tf.constant(rate, tf.float32) for name, (_, rate) in learned.items()},
        {name: tf.constant(values) for name, values in given.items()},
        tf.constant(inputs),
        tf.constant(clamp(problem.targets, problem.activation)),
        tf.constant(offset),
        tf.constant(shuffled_rows(len(inputs), steps, batch, seed)),
        tf.constant(unit, tf.float32),
    )
    return {name: values.numpy() for name, values in found.items()}


@functools.lru_cache(maxsize=64)
def _descent(model: Model, activation: str | None, has_offset: bool) -> Callable[..., dict[str, tf.Tensor]]:
    """The traced loop; its arguments are those of `minimise` as tensors."""

    @tf.function(autograph=False, reduce_retracing=False)
    def descend(
        start: Tensors,
        rates: Tensors,
        given: Tensors,
        x: tf.Tensor,
        z: tf.Tensor,
        offset: tf.Tensor,
        order: tf.Tensor,
        unit: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        steps = tf.shape(order)[0]

        def loss(learned: Tensors, rows: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
            y = model.outputs(learned, given, tf.gather(x, rows))
            if has_offset:
                y += tf.gather(offset, rows)
            errors = tf.math.squared_difference(tf_clamp(y, activation), tf.gather(z, rows))
            return tf.reduce_mean(tf.reduce_sum(errors, [1, 2])) / unit + model.penalty(learned, given, progress)

        def step(index: tf.Tensor, learned: Tensors, means: Tensors, squares: Tensors) -> tuple[Any, ...]:
            progress = tf.cast(index, tf.float32) / tf.cast(steps, tf.float32)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(learned)
                value = loss(learned, order[index], progress)
            slopes = tape.gradient(value, learned)
            done = tf.cast(index + 1, tf.float32)
            falling = 0.5 * (1.0 + tf.cos(np.pi * progress)) * tf.sqrt(1.0 - _SQUARES**done) / (1.0 - _MOMENTUM**done)
            means = {n: m + (1.0 - _MOMENTUM) * (slopes[n] - m) for n, m in means.items()}
            squares = {n: v + (1.0 - _SQUARES) * (tf.square(slopes[n]) - v) for n, v in squares.items()}
            learned = {
                n: u - rates[n] * falling * means[n] / (tf.sqrt(squares[n]) + _EPSILON) for n, u in learned.items()
            }
            return index + 1, learned, means, squares

        zeros = {name: tf.zeros_like(values) for name, values in start.items()}
        first = (tf.constant(0), dict(start), zeros, dict(zeros))
        return tf.while_loop(lambda index, *_: index < steps, step, first)[1]

    return descend


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
