"""Range tuning: the range of every activation by what the end of the network loses.

A range clips what lies beyond it and rounds what lies within. Its error e = Q(v) - v moves the end y of the network, to
first order, by J e. With random signs r over the numbers of the end (Hutchinson) and g = J' r, a gradient,

    E |J e|^2 = E (g . e)^2 ~ mean of (sum over v < l of g (l - v) + sum over v > h of g (h - v))^2   clipping
                              + s^2 / 12 mean of (sum over v != 0 of g^2),  s = (h - l) / (2^b - 1)     rounding

over samples and signs. Clipping errors of one sample have a direction and add up, or cancel; rounding errors are
independent of each other, and 0 has none. l and h are searched together, on geometric lattices of fractions of the
minimum and the maximum. One pass forward, and one back for each draw of signs, serves all tensors.

What is clipped is rare: few samples show it, and the next ones show more of it. So clipping counts two standard errors
of its mean more: threefold where a single sample shows it, hardly more where hundreds do.

y is what a softmax reads, less its mean over the classes, which no softmax sees, by places; or another output divided
by the root of its mean square sum, as the divergence has it. It is not the divergence itself: where the float model is
sure of its class the gradient of that vanishes, and ranges would be clipped until the model is not. The squared error
of a tensor by itself (`tfq.calibration.mse`) does not know that a network goes by the rare large values of one tensor,
and that nobody reads those of another.

Inputs, outputs, what a softmax reads, and tensors that no gradient reaches keep their ranges.

Sources: the error at the end in place of the tensor's own: Liu et al. 2023, PD-Quant (arXiv:2212.07048), which runs the
network for every candidate; its expansion around the float model, of weights there: Nagel et al. 2020, AdaRound
(arXiv:2004.10568).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.calibration.statistics import Range
from tfq.data.samples import Samples
from tfq.execution.resources import DEFAULT, Resources
from tfq.models.graph import Graph, build_model
from tfq.simulate.divergence import ends

_SAMPLES, _DRAWS, _MOST_DRAWS = 64, 2, 8
# Of all tensors together: small ones show their rare large values on more samples only, and of a few samples that hold
# them a few signs tell little.
_NUMBERS = 1 << 20
_LARGEST_BATCH = 16
_BINS = 1024
_FRACTIONS = np.geomspace(0.05, 1.0, 48)
_CAUTION = 2.0  # standard errors
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Ranges to choose among for tensors that share one grid.

    Attributes:
      tensors: whose values are put on it, not those that only move or select them.
      widest: from the least to the largest value; candidates are fractions of both ends.
      present: the range they have, a candidate too.
      bits: of the grid.
      centred: the zero-point is 0, so that one end follows from the other.
    """

    tensors: tuple[str, ...]
    widest: Range
    present: Range
    bits: int
    centred: bool = False

    @property
    def lows(self) -> np.ndarray:
        """Lower ends [n], the present one last; [1] where nothing lies below 0."""
        return _fractions(self.widest.low, self.present.low)

    @property
    def highs(self) -> np.ndarray:
        """Upper ends [n], likewise."""
        return _fractions(self.widest.high, self.present.high)


def _fractions(widest: float, present: float) -> np.ndarray:
    return np.append(widest * _FRACTIONS, present) if widest else np.zeros(1)


class _Clipped:
    """Of one group: for every draw the sums of clipping errors at each candidate end, and of rounding's weights."""

    def __init__(self, candidates: Candidates, draws: int) -> None:
        """draws: of each sample."""
        self._candidates, self._draws = candidates, draws
        low, high = candidates.widest.low, candidates.widest.high
        self._low, self._per_bin = low, _BINS / (high - low)
        values = low + (np.arange(_BINS) + 0.5) / self._per_bin
        self._below = np.maximum(candidates.lows - values[:, None], 0.0)
        self._above = np.minimum(candidates.highs - values[:, None], 0.0)
        self._sums: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, values: Sequence[np.ndarray], slopes: Sequence[np.ndarray]) -> None:
        """One draw of signs for some samples: values [n, ...] and gradients of each tensor of the group."""
        count = len(values[0])
        weights, squares = np.zeros((count, _BINS)), np.zeros(count)
        for value, slope in zip(values, slopes, strict=True):
            v, g = value.reshape(count, -1), slope.reshape(count, -1)
            bins = np.clip(((v - self._low) * self._per_bin).astype(np.int64), 0, _BINS - 1)
            bins += np.arange(count)[:, None] * _BINS
            weights += np.bincount(bins.ravel(), g.ravel(), count * _BINS).reshape(count, _BINS)
            squares += np.einsum("np,np,np->n", g, g, v != 0, dtype=np.float64)
        self._sums.append((weights @ self._below, weights @ self._above, squares))

    def best(self) -> tuple[Range, float, float]:
        """The range of the smallest error, that error, and the present range's."""
        below, above, squares = (np.concatenate(parts) for parts in zip(*self._sums, strict=True))
        lows, highs = self._candidates.lows, self._candidates.highs
        steps = (highs - lows[:, None]) / (2**self._candidates.bits - 1)
        clipping, fourth = _moment(below, above, 2), _moment(below, above, 4)
        deviation = np.sqrt(np.maximum(fourth - np.square(clipping), 0.0) * self._draws / len(below))
        errors = clipping + _CAUTION * deviation + np.square(steps) / 12 * squares.mean()
        if self._candidates.centred:
            errors = np.where(np.eye(len(lows), dtype=bool), errors, np.inf)
        low, high = np.unravel_index(errors.argmin(), errors.shape)
        return Range(float(lows[low]), float(highs[high])), float(errors[low, high]), float(errors[-1, -1])


def _moment(below: np.ndarray, above: np.ndarray, power: int) -> np.ndarray:
    """Mean over draws of (below + above) ** power for every pair of ends, [lows, highs], of [draws, ends] each."""
    return sum(math.comb(power, k) * (below ** (power - k)).T @ above**k for k in range(power + 1)) / len(below)


def tune_ranges(
    graph: Graph,
    samples: Samples,
    candidates: Mapping[str, Candidates],
    *,
    seed: int = 0,
    resources: Resources = DEFAULT,
) -> dict[str, Range]:
    """The ranges of the smallest error at the end, of groups where that is not the present one.

    Args:
      graph: the prepared float graph.
      samples: at least one; some are enough.
      candidates: by group of tensors.
      seed: of the signs.

    Raises:
      LookupError: TensorFlow has no gradient of an operation.
    """
    compared = ends(graph)
    tensors = [name for group in candidates.values() for name in group.tensors]
    if not tensors:
        return {}
    model = build_model(graph, outputs=[*tensors, *(end.tensor for end in compared)])
    run = _slopes(model, len(tensors), [end.logits for end in compared])
    numbers = sum(math.prod(t.shape[1:]) for t in model.outputs)
    samples = samples.spread(max(_SAMPLES, _NUMBERS // numbers))
    draws = min(max(_DRAWS, _NUMBERS // (numbers * len(samples))), _MOST_DRAWS)
    groups = {name: _Clipped(found, draws) for name, found in candidates.items()}
    size = resources.batch(8 * numbers, _LARGEST_BATCH)
    rng = np.random.default_rng(seed)
    reached: set[str] = set()
    with resources.progress.task("tune ranges", len(samples)) as advance:
        for batch in samples.batches(size):
            feeds = [tf.constant(batch[name], t.dtype) for name, t in zip(graph.inputs, model.inputs, strict=True)]
            count = int(feeds[0].shape[0])
            for _ in range(draws):
                signs = [rng.choice((-1.0, 1.0), (count, *t.shape[1:])) for t in model.outputs[len(tensors) :]]
                values, slopes = run(feeds, [tf.constant(r, tf.float32) for r in signs])
                found = {
                    n: (v.numpy(), g.numpy()) for n, v, g in zip(tensors, values, slopes, strict=True) if g is not None
                }
                for name, group in candidates.items():
                    if all(tensor in found for tensor in group.tensors):
                        reached.add(name)
                        groups[name].add(*zip(*(found[tensor] for tensor in group.tensors), strict=True))
            advance(count)
    best = {name: groups[name].best() for name in candidates if name in reached}
    return {name: found for name, (found, error, present) in best.items() if error < present}


def _slopes(model: tf_keras.Model, tensors: int, logits: Sequence[bool]) -> Callable[..., Any]:
    """A function of inputs and signs r: the first outputs of the model, and J' r of each; None where it has none."""

    inputs = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in model.inputs]
    drawn = [tf.TensorSpec((None, *t.shape[1:]), tf.float32) for t in model.outputs[tensors:]]

    @tf.function(input_signature=[inputs, drawn], autograph=False)
    def run(feeds: Sequence[tf.Tensor], signs: Sequence[tf.Tensor]) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch([feed for feed in feeds if feed.dtype.is_floating])
            outputs = tf.nest.flatten(model(feeds, training=False))
            ends_of_graph = zip(outputs[tensors:], signs, logits, strict=True)
            score = tf.add_n([tf.reduce_sum(r * _in_its_measure(y, is_logits)) for y, r, is_logits in ends_of_graph])
        return outputs[:tensors], tape.gradient(score, outputs[:tensors])

    return run


def _in_its_measure(y: tf.Tensor, is_logits: bool) -> tf.Tensor:
    y = tf.cast(y, tf.float32)
    numbers = math.prod(y.shape[1:])
    if is_logits:
        return (y - tf.reduce_mean(y, -1, keepdims=True)) / math.sqrt(numbers / y.shape[-1])
    return y / tf.stop_gradient(tf.sqrt(numbers * tf.reduce_mean(tf.square(y))) + _TINY)
