"""Cross-layer equalisation: channels of like range between layers, the function unchanged.

For factors f > 0, one for each channel c of a stream of tensors (`tfq.reconstruction.streams`), with W1 every layer
that writes it and W2 every layer that reads it:

    W1' = W1 / f,   b1' = b1 / f,   W2' = W2 * f          along output, output and input channels.

`equalize_published`: f = sqrt(r1 / r2), r the largest magnitude of a channel in all W1 and in all W2; of two layers
both are then sqrt(r1 r2). That is right for one scale a tensor. With a scale for every output channel W1's absorbs f,
and what f still changes is how the input channels of W2 share a scale, and how the channels of the activations do.

`equalize` takes from a family of factors the one with the smallest error to be expected at the outputs of the W2,

    f = m^a * r2^-b,   a, b in {0, 1/4, 1/2, 3/4, 1},   and the published f and f = 1,

m being the channel's largest activation, in the tensor that is read where it is largest beside the others. a + b = 1
is SmoothQuant's, b = 0 AWQ's, and a = 1, b = 0 gives every channel the whole activation grid, which is best in front of
a depthwise layer, whose scales absorb the rest. The error is the rounding error of all kernels and of every tensor of
the stream that has a grid of its own, taken as independent of one another, and added up along the stream. Tensors that
must share a grid, as those that are joined, have one of the range of all of them.

    noise_o = sum_c E[y_c^2] (W2' - Q(W2'))_co^2 + n_c W2'_co^2                  of every layer that reads y
    n_c     = sum of the n_c of what y is computed from + round_c + clip_c    of every tensor y
            = sum_i E[x_i^2] (W1' - Q(W1'))_ic^2 + round_c + clip_c           of the output of a layer that reads x
    round_c = min(step^2 / 12, E[y_c^2]),   as 0 lies on the grid
    clip_c  = 2 t^2 / N exp(-(R - h_c) / t),   t = h_c / ln N,

each output channel's taken relative to its signal, and the layers' mean over channels added up. A gate passes as much
of the noise as of the power, an average over k positions a k-th of it. clip_c is what the end R of the activation grid
will cut off samples not seen yet: the tail of a channel whose largest of N elements is h_c, taken as exponential. It
keeps small channels, of which little was seen, away from the end of the grid.

Sources: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019
(arXiv:1906.04721), section 4.1; Xiao et al., "SmoothQuant", 2023 (arXiv:2211.10438), equation 4; Lin et al., "AWQ",
2024 (arXiv:2306.00978), equation 5.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfq.calibration.collect import decides_on_grid
from tfq.models.fold import AffineMap, scale_input, scale_output
from tfq.models.graph import Graph, Node
from tfq.models.grids import grid_groups
from tfq.numerics import reference
from tfq.operations.matrix import Matrix
from tfq.operations.table import OPERATORS, matrix_of
from tfq.reconstruction.channel_statistics import ChannelStatistics
from tfq.reconstruction.streams import Stream, streams

_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BOUND = 32.0  # factors lie within 1/32 .. 32 of their geometric mean: a channel seldom seen may be larger than seen
_MARGIN = 0.75  # of a clamp's limit
_SWEEPS = 20
_CONVERGED = 0.01  # a factor's distance from 1 that is not worth another sweep
_GAIN = 0.99  # a change must cut the expected error to this
_SILENT = 1e-3  # of the mean signal: an output channel below it counts as if it had so much
_ACTIVATION_STEPS = 255
_OUTPUTS = 64  # channels, about as many, of a layer that reads
_FEWEST = 8  # elements on whose largest one a tail can be based


def measured_tensors(graph: Graph) -> tuple[str, ...]:
    """The tensors whose channel statistics the equalisation of `graph` needs."""
    names = ((*(graph[name].inputs[0] for name in stream.writers), *stream.tensors) for stream in streams(graph))
    found = tuple(dict.fromkeys(itertools.chain.from_iterable(names)))
    groups = grid_groups(graph)
    shared = {groups[name] for name in found if name in groups}
    others = (n.name for n in graph.nodes if groups.get(n.name) in shared and decides_on_grid(n))
    return tuple(dict.fromkeys((*found, *others)))


def equalize_published(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> Graph:
    """The graph with the factors sqrt(r1 / r2), taken stream by stream until they are 1.

    Args:
      graph: the prepared graph.
      statistics: of `measured_tensors(graph)`; they say what may be scaled through a ReLU6.
    """

    def factors(stream: Stream, state: _State) -> np.ndarray:
        return _allowed(_published(stream, state), stream, state)

    return graph.with_nodes(*_equalized(_State.of(graph, statistics), factors).nodes.values())


def equalize(
    graph: Graph,
    statistics: Mapping[str, ChannelStatistics],
    *,
    weight_bits: int = 8,
    per_channel: bool = True,
    worthwhile: float = math.inf,
) -> Graph:
    """The graph with the factors of the smallest expected error, taken stream by stream until nothing is gained.

    Args:
      graph: the prepared graph.
      statistics: of `measured_tensors(graph)`.
      weight_bits, per_channel: how the weights will be quantised, as in `specify`.
      worthwhile: unless the expected error falls to less than this share, the graph is given back as it is.
    """
    rounding: dict[str, Any] = {"weight_bits": weight_bits, "per_channel": per_channel}

    def factors(stream: Stream, state: _State) -> np.ndarray:
        error = _error_of(stream, state, **rounding)
        best = np.ones(len(stream.free))
        smallest = _GAIN * error(best)
        for candidate in _candidates(stream, state):
            expected = error(candidate)
            if expected < smallest:
                best, smallest = candidate, expected
        return best

    before = _State.of(graph, statistics)
    state = _equalized(before, factors)
    is_worthwhile = _expected(state, **rounding) < worthwhile * _expected(before, **rounding)
    return graph.with_nodes(*state.nodes.values()) if is_worthwhile else graph


def expected_error(
    graph: Graph, statistics: Mapping[str, ChannelStatistics], *, weight_bits: int = 8, per_channel: bool = True
) -> float:
    """Of all layers that read a stream, summed; arguments as in `equalize`."""
    return _expected(_State.of(graph, statistics), weight_bits=weight_bits, per_channel=per_channel)


@dataclasses.dataclass(frozen=True)
class _State:
    """The nodes as they are and what their tensors hold; the streams, and which tensors share a grid."""

    nodes: Mapping[str, Node]
    statistics: Mapping[str, ChannelStatistics]
    streams: tuple[Stream, ...]
    groups: Mapping[str, str]

    @classmethod
    def of(cls, graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> _State:
        return cls(graph.by_name, statistics, streams(graph), grid_groups(graph))

    def scaled(self, stream: Stream, factors: np.ndarray) -> _State:
        """With the tensors of the stream divided by the factors."""
        nodes, statistics = dict(self.nodes), dict(self.statistics)
        for name in stream.writers:
            nodes[name] = scale_output(nodes[name], _map(nodes[name], 1 / factors[stream.tensors[name].factors]))
        for name in stream.readers:
            source = nodes[name].inputs[0]
            nodes[name] = scale_input(nodes[name], _map(nodes[name], factors[stream.tensors[source].factors]))
        for name, channels in stream.tensors.items():
            statistics[name] = statistics[name].scaled(1 / factors[channels.factors])
        return dataclasses.replace(self, nodes=nodes, statistics=statistics)

    def ends(self, stream: Stream) -> dict[str, tuple[float, float]]:
        """By tensor of the stream, those of the range that it shares with the tensors of its grid."""
        wanted = {self.groups.get(name, name) for name in stream.tensors}
        found: dict[str, tuple[float, float]] = {}
        for name, held in self.statistics.items():
            group = self.groups.get(name, name)
            if group in wanted:
                low, high = found.get(group, (0.0, 0.0))
                found[group] = min(float(held.low.min()), low), max(float(held.high.max()), high)
        return {name: found[self.groups.get(name, name)] for name in stream.tensors}


def _map(node: Node, scale: np.ndarray) -> AffineMap:
    return AffineMap(node, scale, np.zeros_like(scale))


def _expected(state: _State, *, weight_bits: int, per_channel: bool) -> float:
    return sum(
        _error_of(stream, state, weight_bits=weight_bits, per_channel=per_channel)(np.ones(len(stream.free)))
        for stream in state.streams
    )


def _equalized(state: _State, factors_of: Callable[[Stream, _State], np.ndarray]) -> _State:
    settled = dict[int, list[int]]()
    for _ in range(_SWEEPS):
        moved = 0.0
        for number, stream in enumerate(state.streams):
            layers = [id(state.nodes[name]) for name in (*stream.writers, *stream.readers)]
            if settled.get(number) == layers:  # they gained nothing, and nothing has scaled them since
                continue
            factors = factors_of(stream, state)
            if (factors == 1).all():
                settled[number] = layers
                continue
            moved = max(moved, float(np.abs(np.log(factors)).max()))
            state = state.scaled(stream, factors)
        if moved < _CONVERGED:
            break
    return state


def _kernel(node: Node) -> np.ndarray:
    return np.asarray(node.weights[OPERATORS[node.kind].kernel], np.float64)


def _matrix(node: Node) -> Matrix:
    found = OPERATORS[node.kind].matrix
    assert found is not None
    return found


def _output_peaks(node: Node) -> np.ndarray:
    """Largest magnitude of every output channel of the kernel."""
    return _matrix(node).of_outputs(np.abs(_kernel(node))).max(1)


def _input_peaks(node: Node) -> np.ndarray:
    """Largest magnitude of every input channel of the kernel."""
    return _matrix(node).of_inputs(np.abs(_kernel(node))).max(1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """1 where either is 0: such a channel holds nothing that could be equalised."""
    used = (numerator > 0) & (denominator > 0)
    return np.where(used, numerator, 1.0) / np.where(used, denominator, 1.0)


def _read_peaks(stream: Stream, state: _State) -> np.ndarray:
    nodes = (state.nodes[name] for name in stream.readers)
    return stream.largest((node.inputs[0], _input_peaks(node)) for node in nodes)


def _published(stream: Stream, state: _State) -> np.ndarray:
    written = stream.largest((name, _output_peaks(state.nodes[name])) for name in stream.writers)
    return np.sqrt(_ratio(written, _read_peaks(stream, state)))


def _activation_peaks(stream: Stream, state: _State) -> np.ndarray:
    """Of every channel, as a share of the tensor's, in the tensor that is read where that is largest."""
    sources = dict.fromkeys(state.nodes[name].inputs[0] for name in stream.readers)
    peaks = ((name, np.maximum(of.high, -of.low)) for name in sources for of in [state.statistics[name]])
    return stream.largest((name, peak / (peak.max() or 1.0)) for name, peak in peaks)


def _allowed(factors: np.ndarray, stream: Stream, state: _State) -> np.ndarray:
    """The factors within their bounds, and 1 where they are not free or a clamp forbids them."""
    centre = _centre(factors[stream.free])
    factors = np.clip(factors, centre / _BOUND, centre * _BOUND)
    for name, limit in stream.limits.items():
        reached = stream.largest([(name, state.statistics[name].high)]) / (_MARGIN * limit)
        factors = np.where(reached <= 1, np.maximum(factors, reached), 1.0)
    return np.where(stream.free, factors, 1.0)


def _centre(factors: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(factors))))


def _candidates(stream: Stream, state: _State) -> Iterator[np.ndarray]:
    activation, second = _activation_peaks(stream, state), _read_peaks(stream, state)
    live = (activation > 0) & (second > 0) & stream.free
    if not live.any():
        return
    second = np.where(live, second, 1.0) / _centre(second[live])
    raw = [_published(stream, state)]
    for a, b in itertools.product(_EXPONENTS, repeat=2):
        raw.append(np.where(live, activation, 1.0) ** a * second**-b)
    for factors in raw:
        # beside channels that keep their factor it matters how large the others are as a whole
        centre = _centre(factors[live]) if stream.free.all() else 1.0
        factors = np.where(live, factors / centre, 1.0)
        yield _allowed(factors, stream, state)
        for name, limit in stream.limits.items():  # the largest activation allowed
            high = stream.largest([(name, state.statistics[name].high)])
            free = live & (high > 0) & (high <= _MARGIN * limit)
            if free.any():
                yield _allowed(factors * np.max(high[free] / factors[free]) / (_MARGIN * limit), stream, state)


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


def _thinned(node: Node) -> Node:
    """The layer with some of its output channels; a depthwise layer keeps all."""
    name, axis = OPERATORS[node.kind].kernel, _matrix(node).channel_axis
    kernel = node.weights[name]
    if _matrix(node).is_depthwise:
        return node
    some = np.arange(0, kernel.shape[axis], max(1, kernel.shape[axis] // _OUTPUTS))
    return node.replace(weights={name: kernel.take(some, axis)})


def _error_of(stream: Stream, state: _State, *, weight_bits: int, per_channel: bool) -> Callable[[np.ndarray], float]:
    """Gives the expected error for factors: the layers' noise relative to their signal, mean over channels, summed.

    With a scale for every output channel the codes of a layer that writes do not depend on the factors, and some of the
    output channels of one that reads tell enough.
    """

    def rounded(node: Node, held: _State) -> np.ndarray:
        """The noise that the rounding of a layer makes at its output."""
        power = held.statistics[node.inputs[0]].power
        return _through(node, _rounding(node, weight_bits, per_channel=per_channel), power)

    apart = per_channel and not set(stream.writers).intersection(stream.readers)
    if apart:
        thinned = {name: _thinned(state.nodes[name]) for name in stream.readers}
        state = dataclasses.replace(state, nodes={**state.nodes, **thinned})
    written = {name: rounded(state.nodes[name], state) for name in stream.writers}
    moving = dataclasses.replace(stream, writers=()) if apart else stream

    def error(factors: np.ndarray) -> float:
        trial = state.scaled(moving, factors)
        noises = _noises(
            stream,
            trial,
            {
                name: noise / np.square(factors[stream.tensors[name].factors])
                if apart
                else rounded(trial.nodes[name], trial)
                for name, noise in written.items()
            },
        )
        total = 0.0
        for name in stream.readers:
            node = trial.nodes[name]
            squares, source = np.square(_kernel(node)), node.inputs[0]
            signal = _through(node, squares, trial.statistics[source].power)
            noise = rounded(node, trial) + _through(node, squares, noises[source])
            total += float(np.mean(noise / np.maximum(signal, _SILENT * signal.mean() or 1.0)))
        return total

    return error


def _noises(stream: Stream, state: _State, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By tensor of the stream, n_c of every channel; own: by layer, the part of its output that its rounding makes."""
    places = np.zeros(sum(len(channels.places) for channels in stream.tensors.values()) + 1)  # the last: of no tensor
    ends = state.ends(stream)
    for name, channels in stream.tensors.items():
        node, held = state.nodes[name], state.statistics[name]
        if matrix_of(node.kind) is not None:
            noise = own[name]
        else:
            noise = np.sum([places[parents] for parents in channels.parents], axis=0) * _passed(node, stream, state)
        if OPERATORS[node.kind].output == "own":
            low, high = ends[name]
            noise = noise + np.minimum(((high - low) / _ACTIVATION_STEPS) ** 2 / 12, held.power)
            noise += _overshoot(-held.low, -low, held.count)
            noise += _overshoot(held.high, high, held.count) * (held.high < stream.limits.get(name, np.inf))
        places[channels.places] = noise
    return {name: places[channels.places] for name, channels in stream.tensors.items()}


def _passed(node: Node, stream: Stream, state: _State) -> np.ndarray | float:
    """The share of its input's noise that an unweighted node hands on."""
    averages = OPERATORS[node.kind].averages or node.kind == "Mean"
    if not averages and node.kind != "Multiply":
        return 1.0
    behind = state.statistics[node.name]
    before = next(state.statistics[source] for source in node.inputs if source in stream.tensors)
    if node.kind == "Multiply":
        return np.divide(behind.power, before.power, out=np.zeros_like(behind.power), where=before.power > 0)
    return min(1.0, behind.count / before.count)


def _overshoot(peaks: np.ndarray, end: float, count: int) -> np.ndarray:
    """Mean square of what a grid that ends at `end` cuts off channels of which `count` elements reached `peaks`."""
    tail = np.maximum(peaks, 0.0) / np.log(max(count, _FEWEST))
    distance = np.divide(end - peaks, tail, out=np.zeros_like(tail), where=tail > 0)
    return 2 * np.square(tail) / count * np.exp(-distance)
