"""Adam over sampled rows: the loop that the gradient methods share.

    loss = mean over the rows of a batch of  sum over groups and outputs |f(y) - f(z)|^2 / unit     y = outputs(x)

with the fused activation f inside. `unit` is what rounding is expected to cost (`rounding_noise`), so that neither
the loss nor a penalty beside it depends on the layer's units, size or bits. Every variable brings its own learning
rate, in units of what it moves (steps of the grid, standard deviations of the output, ...): one setting serves all
layers. Adam's steps do not depend on the size of the gradients as long as its epsilon is far below them, which 1e-7
is not: a gradient is shared out among all weights of a layer.

What is learned and how it acts is a `Model`, with its derivatives written out: for arrays as small as those of one
layer, NumPy on one core is faster than TensorFlow on two, which also traces a graph for every shape of a layer.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the rates fall to zero along a half cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from tfq.numerics.adam import Adam
from tfq.reconstruction.problem import UNLIMITED, Limits, Problem, clamp

_BATCH_NUMBERS = 2**19  # products of one batch in a layer of many groups, at most

Arrays = Mapping[str, np.ndarray]
"""float32 by name."""
Pull = Callable[[np.ndarray, float], dict[str, np.ndarray]]
"""From the slope of the loss by the outputs, and the progress from 0 to 1: those of loss and penalty by what is
learned."""


class Model(Protocol):
    """How a method computes a layer."""

    def outputs(self, learned: Arrays, rows: np.ndarray) -> tuple[np.ndarray, Pull]:
        """y, without the offset, of a batch of inputs [rows, groups, taps]; and the way back."""


def minimise(
    problem: Problem,
    model: Model,
    learned: Mapping[str, tuple[np.ndarray, float]],
    *,
    inputs: np.ndarray,
    unit: float,
    steps: int,
    batch: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """What `learned` has become when the loss over the rows of `problem` is minimised; float32.

    Args:
      problem: gives targets, offset and limits.
      model: the layer.
      learned: by name where it starts, and its learning rate at first.
      inputs: of all rows [n, groups, taps].
      unit: of the loss: squared error of one row.
      steps, batch: number of steps, rows in each.
      seed: of the choice of rows: one random permutation after the other.
    """
    groups, taps, channels = problem.matrix.shape
    if groups > 1:
        batch = min(batch, max(1, _BATCH_NUMBERS // (groups * taps * channels)))
    targets = clamp(problem.targets, problem.limits)
    values, found = _joined({name: start for name, (start, _) in learned.items()})
    rates, _ = _joined({name: np.broadcast_to(rate, found[name].shape) for name, (_, rate) in learned.items()})
    slope, slopes = _joined(found)
    adam = Adam(values, rates)
    for index, rows in enumerate(shuffled_rows(len(inputs), steps, batch, seed)):
        progress = index / steps
        y, pull = model.outputs(found, inputs[rows])
        if problem.offset is not None:
            y += problem.offset[rows]
        for name, values_of_one in pull(output_slope(y, targets[rows], problem.limits, unit), progress).items():
            slopes[name][...] = values_of_one
        adam.step(slope, 0.5 * (1 + math.cos(math.pi * progress)))
    return found


def _joined(arrays: Arrays) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One float32 vector with the values of all, and each as a view of its part: a step moves them all at once."""
    vector = np.concatenate([np.ravel(values) for values in arrays.values()]).astype(np.float32)
    parts = np.split(vector, np.cumsum([np.size(values) for values in arrays.values()])[:-1])
    return vector, {name: part.reshape(np.shape(arrays[name])) for name, part in zip(arrays, parts, strict=True)}


def output_slope(y: np.ndarray, targets: np.ndarray, limits: Limits, unit: float) -> np.ndarray:
    """The slope of the loss by y [n, groups, outputs], for targets f(z)."""
    slope = clamp(y, limits) - targets
    slope *= 2 / (len(y) * unit)
    if limits != UNLIMITED:
        slope *= (y > limits[0]) & (y < limits[1])
    return slope


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


def slope_by_matrix(rows: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """[groups, taps, outputs]: that of rows @ matrix, for rows [n, groups, taps] and the slope by the product."""
    if rows.shape[1] == 1:
        return (rows[:, 0].T @ slope[:, 0])[None]
    return np.einsum("ngk,ngc->gkc", rows, slope)


def slope_by_rows(slope: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[n, groups, taps]: the same by the rows."""
    if len(matrix) == 1:
        return (slope[:, 0] @ matrix[0].T)[:, None]
    return np.einsum("ngc,gkc->ngk", slope, matrix)
