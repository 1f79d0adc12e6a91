"""Calibration samples that are made from the model: inputs by which every batch normalisation reads what it expects.

A BatchNormalization keeps mean m and variance v, channel by channel, of what it read in training. For a batch x of
inputs, with the mean a and the variance b of what each of the L normalisations reads of it,

    minimise over x     1 / L * sum over L of mean over channels of (a - m)^2 / v + (sqrt(b / v) - 1)^2
                        + lambda * mean |differences of neighbours|                                      of the range

with Adam, one batch after the other. x starts as smooth noise, of which all frequencies f have the amplitude 1 / f, as
in natural images, and stays within its range. The range is that of the preprocessing where one is named; else of
[0, r] and [-r, r] the one in which the starts agree best with the first normalisation.

Sources: Cai et al. 2020 (arXiv:2001.00281), "ZeroQ", for statistics of batch normalisations; Yin et al. 2020
(arXiv:1912.08795), "DeepInversion", for the total variation; both start from white noise.

Scope: float inputs; models with a BatchNormalization that is not folded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfq.data.preprocess import normalizations
from tfq.data.samples import InputSignature, Samples
from tfq.data.signatures import input_signatures
from tfq.errors import UserError
from tfq.execution.resources import DEFAULT, Resources
from tfq.models.graph import Graph, Node, build_model
from tfq.numerics.adam import Adam

MOST = 256  # samples
_BATCH = 32
_STEPS, _RATE = 100, 0.04  # of Adam; in widths of the range
_SMOOTHNESS = 0.1  # lambda
_SPREAD = 0.2  # standard deviation of the starts, in widths of the range
_LARGEST = 2.0 ** np.arange(-2, 13)  # r of the ranges that are tried
_EPSILON = 1e-12

Range = tuple[float, float]


def synthetic_samples(
    graph: Graph, count: int, *, preprocess: str = "none", seed: int = 0, resources: Resources = DEFAULT
) -> Samples:
    """`count` inputs, MOST at most, made from the batch normalisations of the graph.

    Args:
      graph: of the model as it was loaded.
      count: how many are wanted.
      preprocess: what real inputs would go through, which says their range; "none": it is found.
      seed: of the starts.
      resources: progress is told about every step.

    Raises:
      UserError: the model has no batch normalisation, or inputs that are no floats.
    """
    count, signatures = min(count, MOST), input_signatures(graph)
    nodes = [node for node in graph.nodes if node.kind == "BatchNormalization"]
    if not nodes:
        raise UserError(
            "calibration data cannot be made from the model: it has no batch normalisation, whose statistics say what"
            " its inputs are like (those of a .tflite are folded away); give real inputs"
        )
    whole = next((s for s in signatures if np.dtype(s.dtype).kind != "f"), None)
    if whole is not None:
        raise UserError(
            f"calibration data cannot be made from the model: its input {whole.name!r} holds {whole.dtype}, which no"
            " gradient leads to; give real inputs"
        )
    rng = np.random.default_rng(seed)
    ranges = _known_ranges(signatures, preprocess) or _found_ranges(graph, nodes[0], signatures, rng)
    improve, parts = _improver(graph, nodes, signatures, ranges), []
    batches = -(-count // _BATCH)
    with resources.progress.task("make calibration data", batches * _STEPS) as advance:
        for _ in range(batches):
            parts.append(improve([_start(s.shape, _BATCH, rng) for s in signatures], advance))
    arrays = {s.name: np.concatenate([part[i] for part in parts])[:count] for i, s in enumerate(signatures)}
    spans = ", ".join(f"{low:g} to {high:g}" for low, high in ranges)
    note = (
        f"calibration data was made from the model: {count} input{'s' * (count > 1)} within {spans}, which"
        f" agree{'s' * (count == 1)} with the statistics of its batch normalisations ({len(nodes)}); real inputs are"
        " better"
    )
    return Samples(arrays, np.arange(count), warnings=(note,))


def _known_ranges(signatures: Sequence[InputSignature], preprocess: str) -> list[Range]:
    """Of pixels by the preprocessing; empty where it says nothing of all inputs."""
    found = normalizations(signatures, preprocess)
    if len(found) < len(signatures):
        return []
    ends = [found[s.name](np.array([[0.0], [255.0]])) for s in signatures]
    return [(float(values.min()), float(values.max())) for values in ends]


def _found_ranges(
    graph: Graph, first: Node, signatures: Sequence[InputSignature], rng: np.random.Generator
) -> list[Range]:
    """The same range for all inputs: in which smooth noise agrees best with the first normalisation."""
    loss = _loss(graph, [first], signatures)
    starts = [_start(s.shape, _BATCH, rng) for s in signatures]
    tried = [ends for largest in _LARGEST for ends in ((0.0, float(largest)), (-float(largest), float(largest)))]
    tried.append((0.0, 255.0))
    best = min(tried, key=lambda ends: float(loss([_within(start, ends) for start in starts])))
    return [best] * len(signatures)


def _within(unit: Any, ends: Range) -> Any:
    """Of 0 to 1 to the range."""
    return ends[0] + (ends[1] - ends[0]) * unit


def _start(shape: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise float32 [count, *shape] within 0 and 1; most of it is common to all channels."""
    if len(shape) == 1:
        return np.clip(0.5 + _SPREAD * rng.normal(size=(count, *shape)), 0, 1).astype(np.float32)
    places, axes = shape[:-1], tuple(range(1, len(shape)))
    radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*map(np.fft.fftfreq, places), indexing="ij")))
    amplitude = 1 / np.maximum(radius, 1 / max(places))

    def smooth(channels: int) -> np.ndarray:
        noise = np.fft.fftn(rng.normal(size=(count, *places, channels)), axes=axes)
        values = np.fft.ifftn(noise * amplitude[..., None], axes=axes).real
        return values / values.std()

    mixed = 0.85 * smooth(1) + 0.5 * smooth(shape[-1])
    return np.clip(0.5 + _SPREAD * mixed, 0, 1).astype(np.float32)


def _loss(graph: Graph, nodes: Sequence[Node], signatures: Sequence[InputSignature]) -> Callable[[Sequence[Any]], Any]:
    """The first sum of the equation, of inputs by the order of the signatures."""
    import tensorflow as tf

    model = build_model(graph, outputs=[node.inputs[0] for node in nodes])
    positions = [graph.inputs.index(s.name) for s in signatures]
    wanted = [
        (node.weights["moving_mean"], np.sqrt(np.maximum(node.weights["moving_variance"], _EPSILON))) for node in nodes
    ]

    def loss(inputs: Sequence[Any]) -> Any:
        found = model([inputs[positions.index(i)] for i in range(len(positions))], training=False)
        found, total = found if len(nodes) > 1 else [found], 0.0
        for values, (mean, deviation) in zip(found, wanted, strict=True):
            present, variance = tf.nn.moments(values, list(range(values.shape.rank - 1)))
            total += tf.reduce_mean(tf.square((present - mean) / deviation))
            total += tf.reduce_mean(tf.square(tf.sqrt(variance + _EPSILON) / deviation - 1))
        return total / len(nodes)

    return loss


def _improver(
    graph: Graph, nodes: Sequence[Node], signatures: Sequence[InputSignature], ranges: Sequence[Range]
) -> Callable[[Sequence[np.ndarray], Callable[[int], None]], list[np.ndarray]]:
    """What takes a batch of starts, within 0 and 1, to inputs, and tells of each step."""
    import tensorflow as tf

    loss = _loss(graph, nodes, signatures)

    @tf.function
    def slopes(units: Sequence[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(units)
            total = loss([_within(unit, ends) for unit, ends in zip(units, ranges, strict=True)])
            for unit in units:
                if len(unit.shape) > 2:
                    total += _SMOOTHNESS * _total_variation(unit)
        return tape.gradient(total, units)

    def improve(starts: Sequence[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        units = [start.copy() for start in starts]
        moved = [Adam(unit, _RATE) for unit in units]
        for index in range(_STEPS):
            share = 0.5 * (1 + math.cos(math.pi * index / _STEPS))
            for unit, adam, slope in zip(units, moved, slopes([tf.constant(u) for u in units]), strict=True):
                adam.step(slope.numpy(), share)
                np.clip(unit, 0.0, 1.0, out=unit)
            advance(1)
        return [_within(unit, ends) for unit, ends in zip(units, ranges, strict=True)]

    return improve


def _total_variation(values: Any) -> Any:
    """Mean size of the differences between neighbours along every axis but the first and the last."""
    import tensorflow as tf

    found = []
    for axis in range(1, len(values.shape) - 1):
        size = values.shape[axis]
        later, earlier = (tf.gather(values, range(start, size - 1 + start), axis=axis) for start in (1, 0))
        found.append(tf.reduce_mean(tf.abs(later - earlier)))
    return tf.add_n(found)
