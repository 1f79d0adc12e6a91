"""Masks in front of a softmax, as sums whose grid holds what the softmax tells apart and nothing else.

A mask makes scores as low as -1e9, so that they have no weight. On one grid with these, all other scores would be the
same. With f below all that has a weight in any row of the samples,

    softmax(x + m) = softmax(relu(x + max(m - f, -t)))

where t is above every score: what is masked becomes 0, and what is not, x - f. A selection where(mask, x, -1e9) is such
a sum too, its m what it gives for x = 0. What counts is what the samples show; a number like -1e9 is not looked for.

    T exp(f - r) < 1e-4 for the smallest largest score r of a row of T that keeps any

Behind the softmax, where(mask, y, 0) is a product with what it gives for y = 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfq.models.carried import Slot, Work
from tfq.models.equality import run_graph, tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import made_by, rewrite, sole_readers

_LOST = 10.0  # -log of the weight of all that is masked, of a row of one
_GAP = 40.0  # of scores, between what counts and what can only be masked
_NOTHING = -1e4  # the largest score of a row that keeps nothing
_CLOSE = 1e-4
_STEPS = 6  # that a chain of sums and shapes may have


@dataclasses.dataclass(frozen=True, eq=False)
class _Sum:
    """x + m, as a node computes it.

    Attributes:
      node: the sum.
      x: the tensor that is masked.
      reads: the tensors that m is computed of; none where it is constant.
      mask: m [n or 1, ...] of these.
      dtypes: of what `mask` takes.
    """

    node: Node
    x: str
    reads: tuple[str, ...]
    mask: Callable[..., Any]
    dtypes: tuple[str, ...]


def bound_masks(graph: Graph, inputs: Mapping[str, np.ndarray]) -> Graph:
    """The decomposed graph with such sums, as `inputs`, samples [n, ...] by name, show them."""
    softmaxes = [node for node in graph.nodes if node.kind == "Softmax"]
    ends = {n.name: end for n in softmaxes if (end := _read_alone(graph, n.inputs[0], n.name)) is not None}
    floors = {}
    for name, scores in _values(graph, inputs, [graph[name].inputs[0] for name in ends]).items():
        floor = _floor(scores)
        if floor is not None and scores.min() < floor - _GAP:
            floors[name] = floor
    masked = {name: floors[graph[name].inputs[0]] for name in ends if graph[name].inputs[0] in floors}
    if not masked:
        return graph
    readers = [reader for name in masked for reader in graph.readers[name]]
    seen = _values(graph, inputs, _above(graph, [*masked, *readers]))
    made: dict[str, list[Node]] = {}
    for name, floor in masked.items():
        parts = _sums(graph, seen, ends[name], floor - _GAP)
        for place, part in enumerate(reversed(parts)):
            top = float(seen[part.x].max()) if place == 0 else float(seen[graph[name].inputs[0]].max()) - floor
            shape = seen[graph[name].inputs[0]].shape[1:]
            made[part.node.name] = _bounded(seen, part, shape, 0.0 if place else floor, -top - 1.0)
        for reader in graph.readers[name] if parts else ():
            product = _product(graph, seen, graph[reader], name)
            made |= {} if product is None else {reader: product}

    def rule(node: Node) -> list[Node] | None:
        if node.name not in made:
            return None
        now = dict(zip(graph[node.name].inputs, node.inputs, strict=True))
        return [new.replace(inputs=tuple(now.get(i, i) for i in new.inputs)) for new in made[node.name]]

    return rewrite(graph, rule)


def _floor(scores: np.ndarray) -> float | None:
    """f of the equation, for scores [..., T]; None where no row keeps any."""
    largest = scores.max(axis=-1)
    kept = largest[largest > _NOTHING]
    return float(kept.min()) - _LOST - math.log(scores.shape[-1]) if kept.size else None


def _read_alone(graph: Graph, name: str, reader: str) -> Node | None:
    """The sum that `reader` alone reads at `name`, or in another shape there; None for other nodes."""
    alone = sole_readers(graph)
    while alone[name] == reader:
        if graph[name].kind != "Reshape":
            return graph[name] if graph[name].kind in ("Add", "Affine", "Carried", "Subtract") else None
        name, reader = graph[name].inputs[0], name
    return None


def _above(graph: Graph, names: Sequence[str]) -> list[str]:
    """`names` and what they are computed of, a few steps up."""
    found = list(names)
    for _ in range(_STEPS):
        found += [i for name in found for i in graph[name].inputs]
        found = list(dict.fromkeys(found))
    return found


def _values(graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    wanted = tuple(dict.fromkeys(names))
    values = run_graph(dataclasses.replace(graph, outputs=wanted, output_names=()), inputs) if wanted else []
    return dict(zip(wanted, values, strict=True))


def _sums(graph: Graph, seen: Mapping[str, np.ndarray], end: Node, low: float) -> list[_Sum]:
    """The sums that mask one after the other, the last one first; what is below `low` is masked."""
    found: list[_Sum] = []
    node: Node | None = end
    while node is not None and node.name in seen and seen[node.name].min() < low:
        part = _sum_of(graph, seen, node, low)
        if part is None or part.x not in seen:
            break
        found.append(part)
        node = _read_alone(graph, part.x, node.name)
    return found


def _sum_of(graph: Graph, seen: Mapping[str, np.ndarray], node: Node, low: float) -> _Sum | None:
    if node.kind == "Affine":
        offset = node.weights["offset"]
        return _Sum(node, node.inputs[0], (), lambda: offset, ()) if (node.weights["scale"] == 1).all() else None
    if node.kind in ("Add", "Subtract") and len(node.inputs) == 2:
        sign, (x, mask) = (1.0 if node.kind == "Add" else -1.0), node.inputs
        if node.kind == "Add" and seen[x].size < seen[mask].size:
            x, mask = mask, x
        return _Sum(node, x, (mask,), lambda m: sign * m, ("float32",)) if (sign * seen[mask]).min() < low else None
    found = (_selection(graph, seen, node, x, low) for x in node.inputs if node.kind == "Carried")
    return next((part for part in found if part is not None), None)


def _selection(graph: Graph, seen: Mapping[str, np.ndarray], node: Node, x: str, low: float) -> _Sum | None:
    """A carried node as x + m, if it is one: where(mask, x, -1e9) and the like."""
    work, expected = node.config.get("work"), seen[node.name]
    if work is None or x not in seen or seen[x].dtype != np.float32 or seen[x].size != expected.size:
        return None
    found = _with_constant(graph, work, node.inputs, x, 0.0)
    mask = _tried(found, seen, expected.shape)
    if found is None or mask is None:
        return None
    total = seen[x].reshape(expected.shape) + mask
    kept = expected > low
    difference = np.abs(total[kept] - expected[kept]).max(initial=0)
    same = difference <= _CLOSE * max(1.0, np.abs(expected[kept]).max(initial=0))
    return _Sum(node, x, *found) if same and (total[~kept] < low).all() else None


_Function = tuple[tuple[str, ...], Callable[..., Any], tuple[str, ...]]


def _with_constant(graph: Graph, work: Work, inputs: Sequence[str], x: str, value: float) -> _Function | None:
    """What a carried node computes of its inputs but x, where that is this number everywhere: tensors, function, types.

    An input that is x and a number is a number too.
    """
    if work.variables or work.outputs:
        return None
    numbers = {x: value}
    for name in inputs:
        map_ = graph[name]
        if map_.kind == "Affine" and map_.inputs == (x,) and all(np.ptp(w) == 0 for w in map_.weights.values()):
            numbers[name] = float(map_.weights["scale"][0] * value + map_.weights["offset"][0])
    reads = tuple(name for name in inputs if name not in numbers)
    shapes = tensor_shapes(graph)

    def function(*tensors: Any) -> Any:
        left = iter(tensors)
        samples = tf.shape(tensors[0])[0] if tensors else 1
        small = [numbers.get(name) for name in inputs]
        given = [next(left) if number is None else number for number in small]
        last: Exception | None = None
        for full in (False, True):  # a function that knows its shapes takes no smaller ones
            filled = [
                tf.fill((samples, *(shapes[name] if full else (1,) * len(shapes[name]))), number)
                if number is not None else tensor
                for name, number, tensor in zip(inputs, small, given, strict=True)
            ]  # fmt: skip
            try:
                return work.run(filled)[0]
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                last = error
        raise ValueError(f"{work.name} cannot be computed with a constant") from last

    types = dict(zip(inputs, work.reads, strict=True))
    return reads, function, tuple(types[name] for name in reads)


def _tried(found: _Function | None, seen: Mapping[str, np.ndarray], shape: Sequence[int]) -> np.ndarray | None:
    """What it gives on the samples, if that broadcasts to this shape."""
    if found is None or any(name not in seen for name in found[0]):
        return None
    try:
        value = np.asarray(found[1](*(tf.cast(seen[n], t) for n, t in zip(found[0], found[2], strict=True))))
        return value if value.ndim == len(shape) and np.broadcast_shapes(value.shape, shape) == tuple(shape) else None
    except ValueError:
        return None


def _bounded(
    seen: Mapping[str, np.ndarray], part: _Sum, shape: Sequence[int], shift: float, least: float
) -> list[Node]:
    """relu(x + max(m - shift, least)); `shape`: of what the softmax reads."""
    node = part.node
    if not part.reads:
        offset = np.maximum(np.asarray(part.mask()) - np.float32(shift), least)
        return _constant_sum(node, part.x, offset, seen[node.name].shape[1:], shape)

    def mask(*tensors: Any) -> Any:
        # in this order: the converter would fold the shift into a product that makes -1e9, where float32 loses it
        return tf.maximum(part.mask(*tensors), least + shift) - shift

    sample = mask(*(tf.cast(seen[n], t) for n, t in zip(part.reads, part.dtypes, strict=True))).shape[1:]
    of = node.config["work"] if node.kind == "Carried" else node.kind
    work = _work("mask", mask, part.dtypes, sample, f"{of} {shift} {least}")
    bias = made_by(node, "mask", "Carried", part.reads, {"work": work})
    x = _shaped(node, "x", part.x, seen)
    total = made_by(node, "masked", "Add", (x.name, bias.name))
    return [bias, x, total, node.replace(kind="ReLU", config={}, inputs=(total.name,))]


def _shaped(node: Node, role: str, name: str, seen: Mapping[str, np.ndarray]) -> Node:
    """The tensor of this name in the shape that `node` gives."""
    return made_by(node, role, "Reshape", (name,), {"target_shape": seen[node.name].shape[1:]})


def _work(
    name: str, function: Callable[..., Any], reads: tuple[str, ...], sample: Sequence[int], identity: str
) -> Work:
    slots = [Slot(index) for index in range(len(reads))]
    return Work(name, function, slots, {}, reads, ((None, *sample), "float32"), identity=identity)


def _constant_sum(node: Node, x: str, mask: np.ndarray, shape: Sequence[int], read_as: Sequence[int]) -> list[Node]:
    """relu(x + mask), with as few numbers as the mask has; the axes in front of those that tell it apart share them."""
    whole = np.broadcast_to(mask[0] if mask.ndim > len(shape) else mask, shape)
    whole = whole.reshape(read_as if math.prod(read_as) == whole.size else shape)
    shared = 0
    while shared < whole.ndim - 1 and (whole == whole[(slice(None),) * shared + (slice(1),)]).all():
        shared += 1
    offset = whole[(0,) * shared].reshape(-1).astype(np.float32)
    flat = made_by(node, "flat", "Reshape", (x,), {"target_shape": (whole.size // offset.size, offset.size)})
    weights = {"scale": np.ones_like(offset), "offset": offset}
    total = made_by(node, "masked", "Affine", (flat.name,), weights=weights)
    bounded = made_by(node, "bounded", "ReLU", (total.name,))
    again = node.replace(kind="Reshape", config={"target_shape": tuple(shape)}, weights={}, inputs=(bounded.name,))
    return [flat, total, bounded, again]


def _product(graph: Graph, seen: Mapping[str, np.ndarray], node: Node, y: str) -> list[Node] | None:
    """A carried node as y m: nothing where m is constant and takes nothing away."""
    work, expected = node.config.get("work"), seen[node.name]
    if work is None:
        return None
    found = _with_constant(graph, work, node.inputs, y, 1.0)
    factor = _tried(found, seen, expected.shape)
    if found is None or factor is None or seen[y].size != expected.size:
        return None
    (reads, function, types), given = found, seen[y].reshape(expected.shape)
    if np.abs(given * factor - expected).max() > _CLOSE:
        return None
    if not reads:
        return [_shaped(node, "y", y, seen)] if np.abs(given - expected).max() <= _CLOSE else None
    work = _work("mask", function, types, factor.shape[1:], f"{work}")
    mask = made_by(node, "mask", "Carried", reads, {"work": work})
    x = _shaped(node, "y", y, seen)
    return [mask, x, node.replace(kind="Multiply", config={}, inputs=(x.name, mask.name))]
