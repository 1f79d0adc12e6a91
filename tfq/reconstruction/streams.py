"""Tensors that can be scaled together, channel by channel, without a change of what the network computes.

A stream is a connected set of tensors that share one factor f > 0 for each channel. Weighted layers write it, and
take 1/f into their output channels; weighted layers read it, and take f into their input channels; what lies between
commutes with f. The smallest is a layer, and the only layer that reads it. A residual network has one for every chain
of additions: all its projections write it, and every block reads it.

    commutes with f          what its tensors share
    ReLU, LeakyReLU, PReLU, Requantize, pooling, padding, reshapes    the factor of input and output
    Add, Subtract, Maximum, Minimum                                   one factor for all inputs and the output
    Multiply                                                          that of the input that is no gate

A ReLU6 commutes as long as both the tensor and the scaled tensor stay below its limit. A set that anything else
writes or reads is no stream: an input or output of the model, a sigmoid, a concatenation, a layer called twice.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.fold import AffineMap, accepts, carried
from tfq.models.graph import Graph, Node
from tfq.operations.table import matrix_of

_LINEAR = ("Add", "Subtract", "Maximum", "Minimum")  # and all their inputs


@dataclasses.dataclass(frozen=True)
class Stream:
    """Tensors with one factor for each channel.

    Attributes:
      tensors: in topological order.
      writers, readers: the weighted layers that write and read them. One may do both.
      limits: tensor -> where a clamp ends it.
      channels: of the factor; those of every tensor are runs of them.
    """

    tensors: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    limits: Mapping[str, float]
    channels: int


def streams(graph: Graph) -> tuple[Stream, ...]:
    """In topological order of their first tensors; no tensor belongs to two."""
    shapes, fixed = tensor_shapes(graph), set(graph.outputs)
    calls = collections.Counter(node.group for node in graph.nodes)
    joined = {node.name: [node.name] for node in graph.nodes}  # by tensor, all those that share its factor
    for node in graph.nodes:
        if matrix_of(node.kind) is not None:
            source = node.inputs[0]
            if calls[node.group] > 1:
                fixed.update((source, node.name))
            elif not accepts(node, _factor(node, shapes[source])):
                fixed.add(source)
            continue
        tied = _tied(node, shapes, fixed)
        fixed.update(set(node.inputs) - set(tied))
        if not tied:
            fixed.add(node.name)
        for source in tied:
            _join(joined, source, node.name)
    apart = {id(members): members for members in joined.values() if not fixed.intersection(members)}
    found = (_stream(graph, members, shapes) for members in apart.values())
    return tuple(stream for stream in found if stream is not None)


def _join(joined: dict[str, list[str]], first: str, second: str) -> None:
    if joined[first] is not joined[second]:
        joined[first].extend(joined[second])
        joined.update(dict.fromkeys(joined[second], joined[first]))


def _stream(graph: Graph, members: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> Stream | None:
    held = set(members)
    nodes = [node for node in graph.nodes if node.name in held]
    writers = tuple(node.name for node in nodes if matrix_of(node.kind) is not None)
    readers = tuple(n.name for n in graph.nodes if matrix_of(n.kind) is not None and n.inputs[0] in held)
    if not writers or not readers:
        return None
    limits = {node.name: limit for node in nodes if (limit := _limit(node)) is not None}
    channels = math.gcd(*(shapes[name][-1] for name in members))
    return Stream(tuple(node.name for node in nodes), writers, readers, limits, channels)


def _tied(node: Node, shapes: Mapping[str, tuple[int, ...]], fixed: set[str]) -> tuple[str, ...]:
    """The inputs whose factor the output of an unweighted node has; empty where it can have none."""
    shape = shapes[node.name]
    if node.kind in _LINEAR:
        return node.inputs if all(shapes[i] and shapes[i][-1] == shape[-1] for i in node.inputs) else ()
    if node.kind == "Multiply":
        whole = [i for i in dict.fromkeys(node.inputs) if shapes[i] == shape and i not in fixed]
        return (whole[0],) if whole and node.inputs.count(whole[0]) == 1 else ()
    if len(node.inputs) != 1:
        return ()
    source = node.inputs[0]
    if _homogeneous(node) or (shapes[source] and carried(node, source, _factor(node, shapes[source]), shapes)):
        return node.inputs
    return ()


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
