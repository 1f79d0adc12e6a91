"""Bias tuning: the biases alone learn to make the quantised network's outputs those of the float network.

    minimise over all biases    sum over the outputs  D(float output, quantised output)

    D = KL(softmax(y) || softmax(q))           y, q: what a softmax at the end of the graph reads
        |y - q|^2 / mean over samples |y|^2    for every other output (logits cannot be told from a regression)

    x = (1 - l) x_i + l x_j,  l uniform in [0, 1/2)       i, j: two of the samples; y is the float network's for x

No labels are needed, so inputs can be mixed: a few hundred samples are soon learned by heart, and biases learned from
them alone are worse on others. Inputs of whole numbers, which nothing lies between, stay as they are. Weights, scales
and ranges stay; gradients pass straight through the roundings, inside the ranges.
q is taken before the softmax, whose own grid of 1/256 has hardly a gradient, and no effect on which class wins.

    b <- b - u * rate(k) * Adam(dD/db * u),     rate(k) = rate / 2 (1 + cos(pi k / steps))

u is the step of the layer's output grid, so `rate` counts steps of that grid and does not depend on the network's
units: one step of Adam moves a bias by at most about `rate` of the 255 steps between the smallest and the largest
output. The state with the smallest D on the samples to choose by (`tfq.data.roles`) is kept if it proves itself there
against that before the first step (`tfq.simulate.judge`).

Scope: int8 layers with a bias, of any network; calls of one layer share its biases. The biases are float32 here;
the model rounds them to int32 afterwards.

Source: Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", 2021
(arXiv:2006.10518), and its released code. That takes 800 steps of SGD with momentum 0.9 at rates of 1e-4,
1e-5 and 1e-6 in the units of the network, on the samples as they are, and holds none back. Mixtures:
Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018 (arXiv:1710.09412).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.calibration.specify import with_scales
from tfq.data.calibration_set import CalibrationSet
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import View
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node, build_model
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.judge import is_proved
from tfq.simulate.weights import snap
from tfq.simulate.wrap import build_simulation

_LOOKS = 8  # times that the samples to choose by are looked at
_MOST_OF_THE_OTHER = 0.5  # in a mixture of two samples
_TINY = 1e-7
_COPIES = 4  # a layer, its activation, its grid and a gradient, of every tensor
_MOST_NUMBERS = 2**26  # of all tensors of the samples of a step, which its time grows with
_PREDICTED = 8


def tune_biases(
    reference: Graph,
    model: QuantizedModel,
    calibration: CalibrationSet,
    *,
    steps: int = 200,
    rate: float = 0.1,
    batch_size: int = 32,
    seed: int = 0,
    resources: Resources = DEFAULT,
) -> QuantizedModel:
    """The model with biases that bring its outputs nearer to the float network's.

    Args:
      reference: the prepared float graph; its outputs, or what the softmaxes before them read, are called as in
        the model.
      model: the quantised model.
      calibration: read are the samples to fit and those to choose by.
      steps: of Adam.
      rate: how far a step moves a bias at first, in steps of the layer's output grid.
      batch_size: samples a step, fewer of a large network (`_MOST_NUMBERS`).
      seed: of the order of the samples.
      resources: where the tensors of a step do not fit into the memory, its gradient is summed over parts of it.

    Returns:
      Another model, or `model` itself where the samples to choose by show no improvement or there are
      none, and where no layer has a bias to tune.
    """
    groups, fit, choose = _groups(model), calibration.fit, calibration.choose
    if not groups or not len(choose):
        return model
    ends = [_end(reference, name) for name in reference.outputs]
    exposed = [name for name, _ in ends]
    elements = sum(int(np.prod(shape)) for shape in tensor_shapes(reference).values())
    batch_size = min(batch_size, max(1, _MOST_NUMBERS // elements), len(fit))
    at_once = resources.batch(_COPIES * 4 * elements, batch_size)
    float_model = build_model(reference, outputs=exposed)
    batches = fit.batches(min(_PREDICTED, at_once))
    floats = (float_model.predict_on_batch([batch[name] for name in reference.inputs]) for batch in batches)
    sizes = _sizes(floats, [softmax for _, softmax in ends], len(fit))
    simulation = build_simulation(model, outputs=exposed)
    biases = _Biases(simulation, model, groups)
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(rate, steps), epsilon=1e-12, jit_compile=False
    )
    optimizer.build(biases.moves)

    def loss(x: Sequence[tf.Tensor]) -> tf.Tensor:
        y, q = _listed(float_model(list(x))), _listed(simulation(list(x)))
        return tf.add_n(
            [
                _divergence(a, b, softmax=softmax, size=size)
                for a, b, (_, softmax), size in zip(y, q, ends, sizes, strict=True)
            ]
        )

    @tf.function(reduce_retracing=True)
    def measure(x: Sequence[tf.Tensor]) -> tf.Tensor:
        return loss(x)

    @tf.function(reduce_retracing=True)
    def slopes(x: Sequence[tf.Tensor], share: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(biases.variables)
            value = share * tf.reduce_mean(loss(x))
        return biases.gradients(tape.gradient(value, biases.variables))

    @tf.function
    def move(gradients: Sequence[tf.Tensor]) -> None:
        optimizer.apply_gradients(zip(gradients, biases.moves, strict=True))
        biases.assign()

    def learn(x: Sequence[np.ndarray]) -> None:
        parts = [
            slopes([feed[part] for feed in x], tf.constant(len(part) / batch_size, tf.float32))
            for part in _parts(batch_size, at_once)
        ]
        move(parts[0] if len(parts) == 1 else [tf.add_n(found) for found in zip(*parts, strict=True)])

    def chosen_by() -> np.ndarray:
        batches = (choose.at(part) for part in _parts(len(choose), at_once))
        found = [measure([batch[name] for name in reference.inputs]) for batch in batches]
        return np.concatenate(found).astype(np.float64)

    best, first = None, chosen_by()
    least = first
    look = max(1, steps // _LOOKS)
    mixtures = _mixtures([fit.arrays[name] for name in reference.inputs], batch_size, np.random.default_rng(seed))
    with resources.progress.task("bias tuning", steps) as advance:
        for step in range(1, steps + 1):
            learn(next(mixtures))
            if step % look == 0 or step == steps:
                found = chosen_by()
                if found.mean() < least.mean():
                    best, least = biases.values(), found
            advance(1)
    return model if best is None or not is_proved(least - first) else _with_biases(model, best)


def _parts(count: int, at_once: int) -> list[np.ndarray]:
    """`count` positions, as few parts as may be of at most `at_once`, all of about the same size."""
    return np.array_split(np.arange(count), -(-count // at_once))


def _groups(model: QuantizedModel) -> dict[str, list[Node]]:
    """Group -> the calls of an int8 layer with a bias."""
    groups: dict[str, list[Node]] = {}
    for node in model.nodes:
        if "bias" in node.weight_grids:
            groups.setdefault(node.group, []).append(node)
    return groups


def _end(graph: Graph, output: str) -> tuple[str, bool]:
    """(tensor to compare for this output, whether it is what a softmax reads)."""
    node = graph[output]
    while node.kind != INPUT and OPERATORS[node.kind].moves:
        node = graph[node.inputs[0]]
    return (node.inputs[0], True) if node.kind == "Softmax" else (output, False)


def _sizes(floats: Iterable[Any], softmax: Sequence[bool], samples: int) -> list[float]:
    """Mean over samples of |y|^2, of every output of the float model, batch by batch; 1 of what a softmax reads."""
    if all(softmax):
        return [1.0] * len(softmax)
    squares = np.zeros(len(softmax))
    for outputs in map(_listed, floats):
        squares += [float(np.square(y.astype(np.float64)).sum()) for y in outputs]
    return [1.0 if own else max(size, _TINY) for own, size in zip(softmax, squares / samples, strict=True)]


def _listed(found: Any) -> list[Any]:
    """The outputs of a Keras model, which gives a single one as it is."""
    return found if isinstance(found, list) else [found]


def _divergence(y: tf.Tensor, q: tf.Tensor, *, softmax: bool, size: float) -> tf.Tensor:
    """D of every sample, [n]."""
    if softmax:
        each = tf.reduce_sum(tf.nn.softmax(y) * (tf.nn.log_softmax(y) - tf.nn.log_softmax(q)), -1)
        return tf.reduce_mean(tf.reshape(each, [tf.shape(y)[0], -1]), -1)
    return tf.reduce_sum(tf.reshape(tf.math.squared_difference(y, q), [tf.shape(y)[0], -1]), -1) / size


def _mixtures(feeds: Sequence[np.ndarray | View], size: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Batches of `size` inputs, mixed in pairs where all of them are floating-point numbers."""
    order = _shuffled(len(feeds[0]), size, rng)
    mixed = all(np.issubdtype(feed.dtype, np.floating) for feed in feeds)
    for first in order:
        if mixed:
            second, share = next(order), rng.uniform(0.0, _MOST_OF_THE_OTHER, size)
            yield [_between(feed[first], feed[second], share.astype(feed.dtype)) for feed in feeds]
        else:
            yield [feed[first] for feed in feeds]


def _between(values: np.ndarray, others: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(1 - share) * values + share * others, for each sample its share [n]."""
    return values + share.reshape(-1, *[1] * (values.ndim - 1)) * (others - values)


def _shuffled(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of `size` positions, without end, each pass in an order of its own."""
    while True:
        shuffled = rng.permutation(count)
        for start in range(0, len(shuffled) - size + 1, size):
            yield shuffled[start : start + size]


class _Biases:
    """The bias variables of a simulation, and how far they have moved in steps of their layers' output grids."""

    def __init__(self, simulation: tf_keras.Model, model: QuantizedModel, groups: Mapping[str, Sequence[Node]]):
        layers = {layer.layer.name: layer.layer for layer in simulation.layers if hasattr(layer, "quantize_config")}
        self._calls = {group: [layers[node.name].bias for node in nodes] for group, nodes in groups.items()}
        self._steps = [np.float32(model.grids[nodes[0].name].scale[0]) for nodes in groups.values()]
        self._start = [tf.identity(calls[0]) for calls in self._calls.values()]
        self.moves = [tf.Variable(tf.zeros_like(start)) for start in self._start]
        self.variables = [bias for calls in self._calls.values() for bias in calls]

    def gradients(self, found: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients of the moves from those of the variables: calls of one layer add up."""
        each = iter(found)
        return [
            step * tf.add_n([next(each) for _ in calls])
            for step, calls in zip(self._steps, self._calls.values(), strict=True)
        ]

    def assign(self) -> None:
        """Put the moved biases into the simulation."""
        for start, step, move, calls in zip(self._start, self._steps, self.moves, self._calls.values(), strict=True):
            for bias in calls:
                bias.assign(start + step * move)

    def values(self) -> dict[str, np.ndarray]:
        """Group -> its bias."""
        return {group: calls[0].numpy() for group, calls in self._calls.items()}


def _with_biases(model: QuantizedModel, biases: Mapping[str, np.ndarray]) -> QuantizedModel:
    snapped = snap(model)

    def tuned(node: Node) -> Node:
        if node.group not in biases or "bias" not in node.weights:
            return node
        node = node.replace(weights={**node.weights, "bias": biases[node.group]})
        scales = np.asarray(node.weight_grids[OPERATORS[node.kind].kernel].scale)
        # the same scales, but where an int32 could not hold the bias
        return with_scales(node, scales, snapped.grids[node.inputs[0]])

    return snapped.with_nodes(*map(tuned, snapped.layers))
