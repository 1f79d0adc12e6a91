"""Every m-th channel, by a transposition.

Slices copy runs of what lies side by side. Where channels of m parts take turns, as behind the shuffle of a ShuffleNet,
each run is a single element, and most of the time goes into starting them. With P places of G x m channels

    x[P, G, m][..., j]  =  y[P, j G : (j + 1) G]       y[P, m G] = transposed x[P, G, m]

and the transposition serves all j. So does x[P, C][..., j::m]. Measured with LiteRT 2.3 on an x86-64, both halves of
44 x 44 x 48 channels and their concatenation in int8: 0.94 ms by slices, 0.11 ms so. One of 4 parts alone is still 1.5
times as fast.
"""

from __future__ import annotations

import math

from tfq.models.equality import tensor_shapes
from tfq.models.fuse import merge_duplicates
from tfq.models.graph import Graph, Node
from tfq.models.reshapes import cancel_reshapes
from tfq.models.rewrite import made_by, rewrite
from tfq.models.rules.rule import Shape

_LEAST = 1024  # elements, below which further operations cost more than the runs


def split_interleaved(graph: Graph, most: int) -> tuple[Graph, tuple[str, ...]]:
    """The graph with slices of up to so many parts that take turns written anew, and the names of these slices."""
    slices = [node for node in graph.nodes if node.kind == "Slice"]
    shapes = tensor_shapes(graph) if slices else {}
    found = {node.name: _turn(node, shapes[node.inputs[0]], shapes[node.name], most) for node in slices}
    chosen = {name: turn for name, turn in found.items() if turn is not None}
    if not chosen:
        return graph, ()
    anew = rewrite(graph, lambda node: _transposed(node, *chosen[node.name]) if node.name in chosen else None)
    return cancel_reshapes(merge_duplicates(anew)), tuple(chosen)


def _turn(node: Node, read: Shape, given: Shape, most: int) -> tuple[Shape, Shape, int] | None:
    """(shape [..., G, m] of what is read, shape of what is given, j); None for another slice."""
    begin, _, step = slice(*(node.config[name][-1] for name in ("begin", "end", "strides"))).indices(read[-1])
    if read[:-1] != given[:-1] or math.prod(given) < _LEAST:
        return None
    if step > 1 and read[-1] == step * given[-1] and begin < step:
        read = (*read[:-1], given[-1], step)
    elif given[-1] > 1 or len(read) < 2:
        return None
    return (read, given, begin) if 1 < read[-1] <= most else None


def _transposed(node: Node, read: Shape, given: Shape, turn: int) -> list[Node]:
    *places, channels, parts = read
    apart = made_by(node, "apart", "Reshape", node.inputs, {"target_shape": (math.prod(places), channels, parts)})
    transposed = made_by(node, "transposed", "Permute", (apart.name,), {"dims": (1, 3, 2)})
    beside = made_by(node, "beside", "Reshape", (transposed.name,), {"target_shape": (*places, parts * channels)})
    free = (None,) * len(places)
    config = {
        "begin": (*free, turn * channels),
        "end": (*free, (turn + 1) * channels),
        "strides": (*free, None),
    }
    part = made_by(node, "part", "Slice", (beside.name,), config)
    return [
        apart,
        transposed,
        beside,
        part,
        node.replace(kind="Reshape", config={"target_shape": given}, inputs=(part.name,)),
    ]
