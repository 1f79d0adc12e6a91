"""Cross-layer equalisation: channels of like range between two layers, the function unchanged.

A weighted layer, nodes that commute with positive scaling, a weighted layer, each the only reader of the one
before it. For factors f > 0, one per channel c between the two:

    W1' = W1 / f,   b1' = b1 / f,   W2' = W2 * f          along output, output and input channels.

`equalize_published`: f = sqrt(r1 / r2), r the largest magnitude of a channel in W1 and in W2; then both are
sqrt(r1 r2). That is right for one scale a tensor. With a scale for every output channel W1's absorbs f, and what f
still changes is how the input channels of W2 share a scale, and how the channels of the activation do.

`equalize` takes from a family of factors the one with the smallest error to be expected at W2's output,

    f = m^a * r2^-b,   a, b in {0, 1/4, 1/2, 3/4, 1},   and the published f and f = 1,

m being the channel's largest activation. a + b = 1 is SmoothQuant's, b = 0 AWQ's, and a = 1, b = 0 gives every
channel the whole activation grid, which is best in front of a depthwise layer, whose scales absorb the rest. The
error is the rounding error of both kernels and of the activation, taken as independent of one another:

    noise_o = sum_c E[y_c^2] (W2' - Q(W2'))_co^2 + (n1_c + step^2 / 12 + clip_c) W2'_co^2,
    n1_c    = sum_i E[x_i^2] (W1' - Q(W1'))_ic^2,
    clip_c  = 2 t^2 / N exp(-(R - h_c) / t),   t = h_c / ln N,

each output channel's taken relative to its signal. clip_c is what the end R of the activation grid will cut off
samples not seen yet: the tail of a channel whose largest of N elements is h_c, taken as exponential. It keeps small
channels, of which little was seen, away from the end of the grid.

ReLU, LeakyReLU and PReLU commute with positive scaling whatever their slopes. A ReLU6 does not: through one only
those channels are scaled that stay below 6 with a margin over all samples, and by factors that keep them there.
Layers called several times are left alone.

Sources: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019
(arXiv:1906.04721), section 4.1; Xiao et al., "SmoothQuant", 2023 (arXiv:2211.10438), equation 4; Lin et al., "AWQ",
2024 (arXiv:2306.00978), equation 5.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.fold import AffineMap, accepts, carried, scale_input, scale_output
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import sole_readers
from tfq.numerics import reference
from tfq.operations.matrix import Matrix
from tfq.operations.table import OPERATORS, matrix_of
from tfq.reconstruction.channel_statistics import ChannelStatistics

_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BOUND = 32.0  # factors lie within 1/32 .. 32 of their geometric mean: a channel seldom seen may be larger than seen
_MARGIN = 0.75  # of a clamp's limit
_SWEEPS = 20
_CONVERGED = 0.01  # a factor's distance from 1 that is not worth another sweep
_GAIN = 0.99  # a change must cut the expected error to this
_SILENT = 1e-3  # of the mean signal: an output channel below it counts as if it had so much
_ACTIVATION_STEPS = 255
_FEWEST = 8  # elements on whose largest one a tail can be based

_Shapes = Mapping[str, tuple[int, ...]]
_Statistics = dict[str, ChannelStatistics]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two weighted layers and what lies between them.

    Attributes:
      first, last: the layers.
      tensors: from the output of `first` to the input of `last`.
      limits: tensor -> where a clamp ends it.
      channels: of the output of `first`; those of the other tensors are runs of them.
    """

    first: str
    last: str
    tensors: tuple[str, ...]
    limits: Mapping[str, float]
    channels: int


def measured_tensors(graph: Graph) -> tuple[str, ...]:
    """The tensors whose channel statistics the equalisation of `graph` needs."""
    names = [name for pair in _pairs(graph) for name in (graph[pair.first].inputs[0], *pair.tensors)]
    return tuple(dict.fromkeys(names))


def equalize_published(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> Graph:
    """The graph with the factors sqrt(r1 / r2), taken pair by pair until they are 1.

    Args:
      graph: the prepared graph.
      statistics: of `measured_tensors(graph)`; they say what may be scaled through a ReLU6.
    """

    def factors(pair: _Pair, first: Node, last: Node, found: _Statistics) -> np.ndarray:
        return _allowed(np.sqrt(_ratio(_output_peaks(first), _input_peaks(last, pair.channels))), pair, found)

    return _equalized(graph, statistics, factors)


def equalize(
    graph: Graph, statistics: Mapping[str, ChannelStatistics], *, weight_bits: int = 8, per_channel: bool = True
) -> Graph:
    """The graph with the factors of the smallest expected error, taken pair by pair until nothing is gained.

    Args:
      graph: the prepared graph.
      statistics: of `measured_tensors(graph)`.
      weight_bits, per_channel: how the weights will be quantised, as in `specify`.
    """

    def factors(pair: _Pair, first: Node, last: Node, found: _Statistics) -> np.ndarray:
        def error(factors: np.ndarray) -> float:
            return _expected_error(factors, pair, first, last, found, weight_bits=weight_bits, per_channel=per_channel)

        best = np.ones(pair.channels)
        smallest = _GAIN * error(best)
        for candidate in _candidates(pair, first, last, found):
            expected = error(candidate)
            if expected < smallest:
                best, smallest = candidate, expected
        return best

    return _equalized(graph, statistics, factors)


def _equalized(
    graph: Graph,
    statistics: Mapping[str, ChannelStatistics],
    factors_of: Callable[[_Pair, Node, Node, _Statistics], np.ndarray],
) -> Graph:
    pairs, nodes, found = list(_pairs(graph)), dict(graph.by_name), dict(statistics)
    settled: dict[str, tuple[Node, Node]] = {}  # by first layer: a pair of these layers gains nothing
    for _ in range(_SWEEPS):
        moved = 0.0
        for pair in pairs:
            first, last = nodes[pair.first], nodes[pair.last]
            seen = settled.get(pair.first, (None, None))
            if seen[0] is first and seen[1] is last:
                continue
            factors = factors_of(pair, first, last, found)
            if (factors == 1).all():
                settled[pair.first] = first, last
                continue
            moved = max(moved, float(np.abs(np.log(factors)).max()))
            nodes[pair.first] = scale_output(first, _map(first, 1 / factors))
            nodes[pair.last] = scale_input(last, _map(last, _runs(factors, nodes[pair.last])))
            for name in pair.tensors:
                found[name] = found[name].scaled(np.tile(1 / factors, len(found[name].low) // pair.channels))
        if moved < _CONVERGED:
            break
    return graph.with_nodes(*nodes.values())


def _map(node: Node, scale: np.ndarray) -> AffineMap:
    return AffineMap(node, scale, np.zeros_like(scale))


def _pairs(graph: Graph) -> Iterator[_Pair]:
    """In topological order of their first layers."""
    shapes, readers, nodes = tensor_shapes(graph), sole_readers(graph), graph.by_name
    calls = collections.Counter(node.group for node in graph.nodes)
    for first in graph.nodes:
        if matrix_of(first.kind) is None or calls[first.group] > 1:
            continue
        node, moving, tensors = first, _map(first, np.ones(shapes[first.name][-1])), [first.name]
        limits = {}
        while True:
            limit = _limit(node)
            if limit is not None:
                limits[node.name] = limit
            name = readers[node.name]
            if name is None:
                break
            source, node = node.name, nodes[name]
            if matrix_of(node.kind) is not None:
                if calls[node.group] == 1 and accepts(node, moving):
                    yield _Pair(first.name, node.name, tuple(tensors), limits, shapes[first.name][-1])
                break
            passed = moving if _homogeneous(node) else carried(node, source, moving, shapes)
            if passed is None:
                break
            moving = passed
            tensors.append(node.name)


def _homogeneous(node: Node) -> bool:
    """Whether node(f x) == f node(x) for f > 0, but for a limit."""
    if node.kind == "ReLU":
        return not node.config.get("threshold")
    return node.kind in ("LeakyReLU", "PReLU", "Requantize")


def _limit(node: Node) -> float | None:
    """Where the node clamps its output."""
    if node.activation == "relu6":
        return 6.0
    return node.config.get("max_value") if node.kind == "ReLU" else None


def _kernel(node: Node) -> np.ndarray:
    return np.asarray(node.weights[OPERATORS[node.kind].kernel], np.float64)


def _output_peaks(node: Node) -> np.ndarray:
    """Largest magnitude of every output channel of the kernel."""
    return _matrix(node).of_outputs(np.abs(_kernel(node))).max(1)


def _input_peaks(node: Node, channels: int) -> np.ndarray:
    """Largest magnitude of every input channel of the kernel, runs of `channels` put together."""
    return _matrix(node).of_inputs(np.abs(_kernel(node))).max(1).reshape(-1, channels).max(0)


def _runs(factors: np.ndarray, last: Node) -> np.ndarray:
    """The factors of all input channels of `last`."""
    return np.tile(factors, _kernel(last).shape[_matrix(last).input_axis] // len(factors))


def _matrix(node: Node) -> Matrix:
    found = OPERATORS[node.kind].matrix
    assert found is not None
    return found


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """1 where either is 0: such a channel holds nothing that could be equalised."""
    used = (numerator > 0) & (denominator > 0)
    return np.where(used, numerator, 1.0) / np.where(used, denominator, 1.0)


def _allowed(factors: np.ndarray, pair: _Pair, found: _Statistics) -> np.ndarray:
    """The factors within their bounds, and 1 where a clamp forbids them."""
    centre = np.exp(np.mean(np.log(factors)))
    factors = np.clip(factors, centre / _BOUND, centre * _BOUND)
    for name, limit in pair.limits.items():
        reached = found[name].folded(pair.channels).high / (_MARGIN * limit)
        factors = np.where(reached <= 1, np.maximum(factors, reached), 1.0)
    return factors


def _candidates(pair: _Pair, first: Node, last: Node, found: _Statistics) -> Iterator[np.ndarray]:
    read = found[pair.tensors[-1]].folded(pair.channels)
    activation, second = np.maximum(read.high, -read.low), _input_peaks(last, pair.channels)
    live = (activation > 0) & (second > 0)
    if not live.any():
        return
    raw = [np.sqrt(_ratio(_output_peaks(first), second))]
    for a, b in itertools.product(_EXPONENTS, repeat=2):
        raw.append(np.where(live, activation, 1.0) ** a * np.where(live, second, 1.0) ** -b)
    for factors in raw:
        factors = np.where(live, factors / np.exp(np.mean(np.log(factors[live]))), 1.0)
        yield _allowed(factors, pair, found)
        for name, limit in pair.limits.items():  # the largest activation allowed
            high = found[name].folded(pair.channels).high
            free = live & (high <= _MARGIN * limit)
            if free.any():
                yield _allowed(factors * np.max(high[free] / factors[free]) / (_MARGIN * limit), pair, found)


def _rounding(node: Node, bits: int, *, per_channel: bool) -> np.ndarray:
    """Squared rounding error of every element of the kernel, on min-max scales."""
    operator, kernel = OPERATORS[node.kind], _kernel(node)
    axis = operator.channel_axis if per_channel else None
    low, high = reference.integer_range(bits, symmetric=True)
    scales = reference.along_axis(reference.symmetric_scales(kernel, bits, axis).astype(np.float64), kernel.ndim, axis)
    return np.square(kernel - scales * np.clip(np.rint(kernel / scales), low, high))


def _through(node: Node, squares: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Power of every output channel for squared weights and the power of every input channel, all independent."""
    return _matrix(node).through(squares, power)


def _expected_error(
    factors: np.ndarray,
    pair: _Pair,
    first: Node,
    last: Node,
    found: _Statistics,
    *,
    weight_bits: int,
    per_channel: bool,
) -> float:
    """Noise of the last layer's output relative to its signal, mean over output channels."""
    runs = _runs(factors, last)
    read = found[pair.tensors[-1]]
    signal = _through(last, np.square(_kernel(last)), read.power)
    first, last = scale_output(first, _map(first, 1 / factors)), scale_input(last, _map(last, runs))
    read = read.scaled(1 / runs)
    own = _through(first, _rounding(first, weight_bits, per_channel=per_channel), found[first.inputs[0]].power)
    low, high = min(read.low.min(), 0.0), max(read.high.max(), 0.0)
    limit = min((pair.limits.get(name, np.inf) for name in pair.tensors), default=np.inf)
    own = np.resize(own, len(runs)) + ((high - low) / _ACTIVATION_STEPS) ** 2 / 12
    own += _overshoot(-read.low, -low, read.count) + _overshoot(read.high, high, read.count) * (read.high < limit)
    noise = _through(last, _rounding(last, weight_bits, per_channel=per_channel), read.power)
    noise += _through(last, np.square(_kernel(last)), own)
    return float(np.mean(noise / np.maximum(signal, _SILENT * signal.mean() or 1.0)))


def _overshoot(peaks: np.ndarray, end: float, count: int) -> np.ndarray:
    """Mean square of what a grid that ends at `end` cuts off channels of which `count` elements reached `peaks`."""
    tail = np.maximum(peaks, 0.0) / np.log(max(count, _FEWEST))
    distance = np.divide(end - peaks, tail, out=np.zeros_like(tail), where=tail > 0)
    return 2 * np.square(tail) / count * np.exp(-distance)
