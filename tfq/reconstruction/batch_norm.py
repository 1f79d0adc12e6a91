"""Batch-norm tuning: every channel of a quantised layer gets back the mean and deviation that it has in the float net.

Rounded weights give a channel another mean and variance than float weights do. Behind the rounded weights of every
layer a batch normalisation is inserted, the identity as long as the mean m and the deviation d are as in float:

    BN_r(x) = d' (x - mean) / sqrt(variance + eps) + m,     mean = m,  variance = d^2,  d' = sqrt(d^2 + eps)

m and d are those of the float network on the same samples, batch by batch: what the samples are like drops out, as
long as the ranges hold them. The calibration samples run through the quantised network in training mode: every batch is
normalised by its own statistics, in all layers at once. Over all samples these give mean and variance, with which BN_r
is folded again, f = d' / sqrt(variance + eps):

    scale'[o] = scale[o] f[o],     b'[o] = (b[o] - mean[o]) f[o] + m[o]

The integers of the weights do not change; f > 0, held within [1/4, 4], so that a channel whose weights were all
rounded to 0 is not blown up. eps is 1e-5 of the layer's mean d^2: a channel without variance keeps its scale.

Scope: int8 convolutions and dense layers with a bias and one scale per output channel. Left
alone are layers with one scale per tensor or for several channels (a depth multiplier above 1), which cannot take a
factor per channel, coarse grids, whose one scale is what makes them small, and the calls of a layer that is called
several times, which must keep equal weights. It can make things worse (few samples): compare with
`tfq.simulate.judge`.

Source: Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", 2021
(arXiv:2006.10518), and its released code. Unlike there, the variance is that over all samples, not the mean of the
batches' variances, which misses what lies between batches; and m and d are not those that the folded batch
normalisation had in training, nor is what moves damped: both departed further from float on every network measured
(docs/reconstruction.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.calibration.specify import with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.data.samples import Samples
from tfq.execution.resources import DEFAULT, Resources
from tfq.grid import Grid
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node, build_model
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import integers, reals, snap
from tfq.simulate.wrap import build_simulation

_Statistics = dict[str, tuple[np.ndarray, np.ndarray]]  # layer -> mean and variance of its channels, [channels]
_G = TypeVar("_G", bound=Graph)
_EPSILON = 1e-5
_LARGEST_FACTOR = 4.0
# Five batches, as published, of at least 32 samples where there are as many, and where the six or so copies of the
# largest tensor that a normalisation in training mode holds fit into the memory.
_BATCHES, _LEAST_BATCH = 5, 32
_COPIES = 6


def tune_batch_norm(
    reference: Graph,
    model: QuantizedModel,
    samples: Samples,
    *,
    recalibrate: Callable[[Graph], Mapping[str, Range]] | None = None,
    resources: Resources = DEFAULT,
) -> QuantizedModel:
    """The model with weight scales and biases that restore mean and deviation of every channel.

    Args:
      reference: the float graph that `model` was quantised from, node for node.
      model: the quantised model.
      samples: run once, a batch at a time.
      recalibrate: ranges of the graph with its new weights, which it gets; they replace those of the model.
      resources: a batch is as large as the memory allows, at most what is published.

    Returns:
      Another model, or `model` itself where it has no layer to tune. Kernels lie on their grids, on the same integers
      as those of `model`.
    """
    tuned = tunable_layers(model)
    if not tuned:
        return model
    wanted, measured = _measure(model, reference, tuned, samples, resources)
    snapped = snap(model)

    def refolded(name: str) -> Node:
        node = snapped[name]
        return _refold(node, snapped.grids[node.inputs[0]], wanted[name], measured[name])

    found = snapped.with_nodes(*map(refolded, tuned))
    return found if recalibrate is None else with_ranges(found, recalibrate(snap(found)))


def tunable_layers(model: QuantizedModel) -> list[str]:
    """Names of the layers that batch-norm tuning changes (see the scope above)."""
    calls = Counter(node.group for node in model.nodes if node.weights)

    def tunable(node: Node) -> bool:
        if not is_weighted(node) or calls[node.group] > 1:
            return False
        grids = node.weight_grids
        if "bias" not in grids:  # or a float layer
            return False
        kernel = grids[OPERATORS[node.kind].kernel]
        return len(kernel.scale) == len(node.weights["bias"]) and not kernel.entropy_bits

    return [node.name for node in model.nodes if tunable(node)]


def _epsilon(variance: np.ndarray) -> float:
    return float(max(_EPSILON * variance.mean(), np.finfo(np.float32).tiny))


def _split(graph: _G, layers: Sequence[str], behind: Callable[[Node], Node]) -> _G:
    """Every named layer as `<name>.raw`, without activation and grid, and `behind(layer)`, which has them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name in layers:
            raw = node.replace(name=f"{node.name}.raw", activation=None, grid=None)
            nodes += [raw, behind(node).replace(inputs=(raw.name,), weight_grids={})]
        else:
            nodes.append(node)
    return graph.replace_nodes(nodes)


def _batch_normalization(node: Node) -> Node:
    """BN_r with the node's activation; momentum 0, so that its moving statistics are those of the last batch.

    Its gamma and beta are set for every batch. Not fused: the fused operation gives the unbiased variance.
    """
    channels = len(node.weights["bias"])
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    weights = {"gamma": ones, "beta": zeros, "moving_mean": zeros, "moving_variance": ones}
    config = {"momentum": 0.0, "epsilon": 0.0, "fused": False}
    return node.replace(kind="BatchNormalization", config=config, weights=weights)


def _identity(node: Node) -> Node:
    return node.replace(kind="Identity", config={}, weights={})


def _batches(graph: Graph, samples: int, resources: Resources) -> list[np.ndarray]:
    """Positions of the samples of each batch, all batches of about the same size."""
    largest = 4 * max(int(np.prod(shape)) for shape in tensor_shapes(graph).values())
    size = resources.batch(_COPIES * largest, max(-(-samples // _BATCHES), _LEAST_BATCH))
    return np.array_split(np.arange(samples), -(-samples // size))


def _float_statistics(reference: Graph, layers: Sequence[str]) -> Callable[[Sequence[np.ndarray]], _Statistics]:
    """What computes mean and variance of the layers' outputs before their activations, for one batch."""
    split = _split(reference, layers, _identity)
    model = build_model(split, outputs=[f"{name}.raw" for name in layers])

    @tf.function(reduce_retracing=True)  # in a graph a tensor is dropped as soon as its moments are known
    def moments(feeds: Sequence[tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor]]:
        found = model(list(feeds))
        return [tf.nn.moments(y, list(range(y.shape.rank - 1))) for y in (found if len(layers) > 1 else [found])]

    def run(feeds: Sequence[np.ndarray]) -> _Statistics:
        found = moments([tf.constant(feed) for feed in feeds])
        return {
            n: (np.asarray(m, np.float64), np.asarray(v, np.float64)) for n, (m, v) in zip(layers, found, strict=True)
        }

    return run


class _Pooled:
    """Mean and variance over all samples from those of the batches."""

    def __init__(self) -> None:
        self._count, self._first, self._second = 0, np.zeros(()), np.zeros(())

    def add(self, count: int, mean: np.ndarray, variance: np.ndarray) -> None:
        self._count += count
        self._first = self._first + count * mean
        self._second = self._second + count * (variance + mean**2)

    @property
    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self._first / self._count
        return mean, np.maximum(self._second / self._count - mean**2, 0)


def _measure(
    model: QuantizedModel,
    reference: Graph,
    layers: Sequence[str],
    samples: Samples,
    resources: Resources,
) -> tuple[_Statistics, _Statistics]:
    """(wanted statistics, those of the quantised layers while the layers before them are normalised by batch)."""
    split = _split(model, layers, _batch_normalization)
    simulation = build_simulation(split, outputs=split.outputs)
    inner = [getattr(layer, "layer", layer) for layer in simulation.layers]  # without their quantising wrappers
    inserted = {x.name: x for x in inner if isinstance(x, tf_keras.layers.BatchNormalization)}
    statistics = _float_statistics(reference, layers)
    wanted, measured = ({name: _Pooled() for name in layers} for _ in range(2))
    with resources.progress.task("batch-norm tuning", len(samples)) as advance:
        for part in _batches(model, len(samples), resources):
            feeds = [samples.arrays[name][part] for name in model.inputs]
            for name, (mean, variance) in statistics(feeds).items():
                wanted[name].add(len(part), mean, variance)
                layer, layer_epsilon = inserted[name], _epsilon(variance)
                layer.epsilon = layer_epsilon
                layer.gamma.assign(np.sqrt(variance + layer_epsilon))
                layer.beta.assign(mean)
            simulation(feeds, training=True)
            for name, layer in inserted.items():
                measured[name].add(
                    len(part), *(np.asarray(v, np.float64) for v in (layer.moving_mean, layer.moving_variance))
                )
            advance(len(part))
    return {n: p.statistics for n, p in wanted.items()}, {n: p.statistics for n, p in measured.items()}


def _refold(
    node: Node, input_grid: Grid, wanted: tuple[np.ndarray, np.ndarray], measured: tuple[np.ndarray, np.ndarray]
) -> Node:
    """The node, its weights on their grids, with BN_r of these means and variances folded in."""
    (wanted_mean, wanted_variance), (mean, variance) = wanted, measured
    eps = _epsilon(wanted_variance)
    factor = np.sqrt((wanted_variance + eps) / (variance + eps)).clip(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    kernel = OPERATORS[node.kind].kernel
    before = node.weight_grids[kernel]
    bias = node.weights["bias"].astype(np.float64) - mean

    def with_bias(applied: np.ndarray) -> Node:
        return node.replace(weights={**node.weights, "bias": (bias * applied + wanted_mean).astype(np.float32)})

    scaled = with_scales(with_bias(factor), np.asarray(before.scale) * factor, input_grid)
    after = scaled.weight_grids[kernel]
    # scales are rounded, and none becomes too small for TFLite: the bias follows what they became
    found = with_bias(np.asarray(after.scale) / np.asarray(before.scale))
    values = reals(integers(node.weights[kernel], before), after)
    return found.replace(weights={**found.weights, kernel: values}, weight_grids=scaled.weight_grids)
