"""Tensors that can be scaled together, channel by channel, without a change of what the network computes.

A stream is a connected set of tensors whose channels have factors f > 0. Weighted layers write it, and take 1/f into
their output channels; weighted layers read it, and take f into their input channels; what lies between commutes with f.
The smallest is a layer, and the only layer that reads it. A residual network has one for every chain of additions: all
its projections write it, and every block reads it. A ShuffleNet has one for every stage.

    commutes with f                                         the factor of a channel of the output
    ReLU, LeakyReLU, PReLU, Requantize, pooling, padding    that of the same channel of the input
    Add, Subtract, Maximum, Minimum                         the one that this channel has in all inputs
    Multiply                                                that of the input that is no gate
    Concatenate, Slice, Reshape, Flatten, Permute           that of the channel whose values it holds

So channels are followed one by one: each has a number, and what only moves values moves the numbers. Numbers that are
tied by a row of the table have one factor. A tensor whose last axis does not hold whole channels, as in the middle of a
shuffle, has no factors of its own; its channels meet again behind it.

A ReLU6 commutes as long as both the tensor and the scaled tensor stay below its limit. A channel that anything else
writes or reads keeps the factor 1: one of an input or output of the model, of a sigmoid, of a layer called twice.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.sparse.csgraph
import tensorflow as tf

from tfq.models.equality import node_function, tensor_shapes
from tfq.models.fold import AffineMap, accepts, carried
from tfq.models.graph import Graph, Node
from tfq.operations.table import matrix_of

_LINEAR = ("Add", "Subtract", "Maximum", "Minimum")  # and all their inputs
_MOVES = ("Concatenate", "Slice", "Reshape", "Flatten", "Permute")
_MOST_CHANNELS = 2**24  # numbers that float32 holds exactly


@dataclasses.dataclass(frozen=True)
class Channels:
    """Those of one tensor of a stream.

    Attributes:
      factors: which of the stream's factors each has [channels].
      places: of each among all channels of all tensors of the stream, which stand one after the other [channels].
      parents: for every input that they are computed from, the places of the channels that go into them [channels],
        -1 for one of no tensor of the stream. None for a layer that writes.
    """

    factors: np.ndarray
    places: np.ndarray
    parents: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Tensors whose channels have factors.

    Attributes:
      tensors: in topological order.
      writers, readers: the weighted layers that write and read them. One may do both.
      limits: tensor -> where a clamp ends it.
      free: whether a factor may differ from 1 [factors].
    """

    tensors: Mapping[str, Channels]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    limits: Mapping[str, float]
    free: np.ndarray

    def largest(self, found: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
        """By factor, the largest of (tensor, one number >= 0 for each of its channels); 0 where there is none."""
        values = np.zeros(len(self.free))
        for name, of_channels in found:
            np.maximum.at(values, self.tensors[name].factors, of_channels)
        return values


def streams(graph: Graph) -> tuple[Stream, ...]:
    """In topological order of their first tensors; no tensor belongs to two."""
    found = _Numbered()
    shapes, calls = tensor_shapes(graph), collections.Counter(node.group for node in graph.nodes)
    for node in graph.nodes:
        _follow(found, node, shapes, called_once=calls[node.group] == 1)
    for name in graph.outputs:
        found.fix(name)
    return tuple(_streams(graph, found))


class _Numbered:
    """Numbers of channels, filled in topological order, and what is known of them."""

    def __init__(self) -> None:
        self.own: dict[str, np.ndarray] = {}  # tensor -> numbers [channels]
        self.parents: dict[str, tuple[np.ndarray, ...]] = {}  # and those they are computed from
        self.fixed: set[int] = set()
        self.tied: list[tuple[np.ndarray, np.ndarray]] = []
        self.count = 0
        # of a tensor that holds what was elsewhere, the numbers there: [channels], or of every element
        self._moved: dict[str, np.ndarray] = {}

    def add(self, name: str, channels: int, parents: Sequence[np.ndarray] = ()) -> None:
        """New numbers, tied to these."""
        self.own[name] = np.arange(self.count, self.count + channels)
        self.parents[name] = tuple(parents)
        self.tied.extend((self.own[name], of) for of in parents)
        self.count += channels

    def move(self, name: str, numbers: np.ndarray) -> None:
        """Those at every element of a tensor that holds what was elsewhere."""
        rows = numbers.reshape(-1, numbers.shape[-1])
        self._moved[name] = numbers
        if (rows == rows[0]).all():
            self._moved[name] = rows[0]
            self.add(name, rows.shape[-1], [rows[0]])

    def of(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """The number at every element, where it was computed."""
        return np.broadcast_to(self._moved[name] if name in self._moved else self.own[name], shape)

    def fix(self, name: str) -> None:
        held = self.own[name] if name in self.own else self._moved[name]
        self.fixed.update(np.unique(held).tolist())

    def is_fixed(self, name: str) -> bool:
        return not self.fixed.isdisjoint(self.own[name].tolist())


def _follow(found: _Numbered, node: Node, shapes: Mapping[str, tuple[int, ...]], *, called_once: bool) -> None:
    """Number the output of a node."""
    shape = shapes[node.name] or (1,)
    if matrix_of(node.kind) is not None:
        source = node.inputs[0]
        found.add(node.name, shape[-1])
        if not called_once:
            found.fix(node.name)
        if not called_once or source not in found.own or not accepts(node, _factor(node, shapes[source])):
            found.fix(source)
        return
    if node.kind in _MOVES and found.count < _MOST_CHANNELS:
        numbers = [found.of(i, shapes[i] or (1,))[None].astype(np.float32) for i in node.inputs]
        found.move(node.name, node_function(node)([tf.constant(n) for n in numbers])[0].numpy().astype(np.int64))
        return
    tied = _tied(node, shapes, found)
    found.add(node.name, shape[-1], [found.own[source] for source in tied])
    for source in set(node.inputs) - set(tied):
        found.fix(source)
    if not tied:
        found.fix(node.name)


def _streams(graph: Graph, found: _Numbered) -> Iterable[Stream]:
    pairs = np.concatenate([np.stack(pair) for pair in found.tied] or [np.zeros((2, 0), int)], axis=1)
    factor = _components(pairs, found.count)  # of every number
    free = np.ones(found.count, bool)
    free[factor[list(found.fixed)]] = False
    held = [(name, numbers) for name, numbers in found.own.items() if free[factor[numbers]].any()]
    shared = [
        np.stack([np.full(of.sum(), number), len(held) + factor[numbers[of]]])
        for number, (_, numbers) in enumerate(held)
        for of in [free[factor[numbers]]]
    ]
    stream_of = _components(np.concatenate(shared, axis=1), len(held) + found.count) if shared else np.zeros(0, int)
    members: dict[int, dict[str, np.ndarray]] = {}
    for (name, numbers), stream in zip(held, stream_of, strict=False):
        members.setdefault(stream, {})[name] = numbers
    for tensors in members.values():
        nodes = [graph[name] for name in tensors]
        writers = tuple(node.name for node in nodes if matrix_of(node.kind) is not None)
        readers = tuple(n.name for n in graph.nodes if matrix_of(n.kind) is not None and n.inputs[0] in tensors)
        if writers and readers:
            limits = {node.name: limit for node in nodes if (limit := _limit(node)) is not None}
            used, slots = np.unique(factor[np.concatenate(list(tensors.values()))], return_inverse=True)
            yield Stream(_channels(tensors, slots, found), writers, readers, limits, free[used])


def _channels(tensors: Mapping[str, np.ndarray], slots: np.ndarray, found: _Numbered) -> dict[str, Channels]:
    """slots: of all channels of the tensors, one tensor after the other."""
    place = np.full(found.count, -1)
    place[np.concatenate(list(tensors.values()))] = np.arange(len(slots))
    return {
        name: Channels(slots[place[numbers]], place[numbers], tuple(place[of] for of in found.parents[name]))
        for name, numbers in tensors.items()
    }


def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    """By number, that of the connected component, of pairs [2, any]."""
    links = scipy.sparse.coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(count, count))
    return scipy.sparse.csgraph.connected_components(links, directed=False)[1]


def _tied(node: Node, shapes: Mapping[str, tuple[int, ...]], found: _Numbered) -> tuple[str, ...]:
    """The inputs whose factors the output of an unweighted node has; empty where it can have none."""
    shape = shapes[node.name]
    if not shape or not all(i in found.own and shapes[i] for i in node.inputs):
        return ()
    if node.kind in _LINEAR:
        return node.inputs if all(shapes[i][-1] == shape[-1] for i in node.inputs) else ()
    if node.kind == "Multiply":
        whole = [i for i in dict.fromkeys(node.inputs) if shapes[i] == shape and not found.is_fixed(i)]
        return (whole[0],) if whole and node.inputs.count(whole[0]) == 1 else ()
    if len(node.inputs) != 1:
        return ()
    source = node.inputs[0]
    return node.inputs if _homogeneous(node) or carried(node, source, _factor(node, shapes[source]), shapes) else ()


def _factor(node: Node, shape: tuple[int, ...]) -> AffineMap:
    """One that stands for any positive factor on a tensor of this shape."""
    return AffineMap(node, np.ones(shape[-1]), np.zeros(shape[-1]))


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
