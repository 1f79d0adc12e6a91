"""Every layer of the file alone: what the runtime computes with it, against the layer's definition.

The operations between the tensors of one layer and those of the layers that it reads are cut out of the file and run
by themselves, with the builtin kernels, on integers drawn at random from the whole grid of what they read. What comes
out is compared with the definition of the layer (`tfq.verify.definitions`) on the real values of the same integers,
with the weights that the runtime reads in the file; that of a carried layer is the layer itself, run by TensorFlow:

    | y - clip(r) | <= 3/4        y integer of the output;  r = definition / scale + zero-point

which is the rounding of the integer kernels (of those that approximate, more: `tfq.verify.rounding`); float outputs
agree to 1e-4. So order, shape and meaning of axes, strides, paddings, clamps, permutations and the order of operands
show, whatever wrote them. Convolutions and poolings are compared at some places of the image, the corners among them,
and in some channels; all else everywhere.

Random integers can drive an output against the ends of its grid, where all is equal, and an average to its middle. So
they are drawn from below and from above zero, too, and then with more and more of them at zero (_DRAWS), until _WANTED
elements told: the output lay within the grid, and _MOVED steps and more from where it lies without input. A layer of
which fewer than _LEAST told anything is named in `unseen`.
"""

from __future__ import annotations

import collections
import dataclasses
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from tfq.errors import UserError
from tfq.execution.interpreter import TensorInfo
from tfq.models.equality import node_function
from tfq.models.graph import INPUT, Graph, Node
from tfq.operations.table import OPERATORS
from tfq.verify.constants import Constant
from tfq.verify.contents import Contents, cut
from tfq.verify.definitions import FILE_ORDER, WINDOWED, define, output_size, rounded, window_of
from tfq.verify.rounding import explained

# (where the integers lie, share of them that is not zero)
_DRAWS = (("all", 1.0), ("low", 1.0), ("high", 1.0), ("all", 1 / 4), ("all", 1 / 16), ("all", 1 / 64), ("all", 1 / 256))
_TURNS, _LEAST_TURNS, _WANTED, _LEAST, _MOVED = 100, 3, 256, 16, 2.0
_PLACES, _CHANNELS = 32, 64
_EXACT = 1e-4  # of float outputs
_INT4_BLOCK, _INT4_EXACT = (32, 4), 2.0**-21  # inputs and outputs; of a sum of positive numbers in float32
_UNIT = 2.0**-23  # a function may add 1 on its way, as log(1 + exp(x)) does: the sum has no finer steps
_FAR = 2.0**24  # steps: an integer kernel may wrap around so far outside of its grid

Weights = Mapping[str, Mapping[str, Constant]]
"""Node name -> weight name -> the constant of the file."""


@dataclasses.dataclass(frozen=True)
class Alone:
    """What was compared.

    Attributes:
      layers: tensors that were computed anew, of layers and of borders between number formats.
      elements: elements compared.
      unseen: of these, layers whose outputs told too little or whose kind has no definition.
    """

    layers: int
    elements: int
    unseen: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Part:
    """Operations of the file that make the tensor `target` of `node` from the tensors `sources` (by node)."""

    node: str
    target: int
    operations: list[int]
    sources: Mapping[str, int]


def run_alone(contents: Contents, graph: Graph, weights: Weights) -> tuple[Alone, list[str]]:
    """Every layer that is in the file; what was compared, and the faults found."""
    owners = _owners(contents, graph)
    targets = {index: name for index, name in owners.items() if index in contents.writer}
    for name, node in zip(graph.output_names, graph.outputs, strict=True):
        if contents.outputs[name] not in owners:
            targets[contents.outputs[name]] = node
    done, elements, unseen, faults, reached = 0, 0, [], [], set()
    for target, name in targets.items():
        what = f"{graph[name].kind} {name!r} ({', '.join(graph[name].origin)})"
        try:
            part = _part(contents, graph, owners, target, name)
            reached |= set(part.operations)
            compared, told = _compare(contents, graph, weights, part, set(owners.values()))
        except _Fault as fault:
            faults.append(f"{what} {fault}")
            continue
        except UserError as error:
            faults.append(f"{what} does not run alone: {error}")
            continue
        done, elements = done + 1, elements + compared
        if told < _LEAST:
            unseen.append(name)
    for index in set(range(len(contents.operations))) - reached:
        operation = contents.operations[index]
        faults.append(
            f"operation {operation.kind} writes {contents.names[operation.outputs[0]]!r}, which nothing needs"
        )
    return Alone(done, elements, tuple(dict.fromkeys(unseen))), faults


class _Fault(Exception):  # noqa: N818  it is caught where it is named
    """The layer is something else; the text goes on after the layer's name."""


def _owners(contents: Contents, graph: Graph) -> dict[int, str]:
    """Tensor -> its node: the model's inputs by the signature, all others by their names.

    What a layer gives before a reshape of its own is a tensor of it, too, where other layers read that.
    """
    owners = {index: name for name, index in contents.inputs.items()}
    for label, index in contents.index.items():
        name = label.removesuffix("/quantized")
        if name in graph.by_name and not contents.is_constant(index):
            owners.setdefault(index, name)
    reads = collections.Counter(index for operation in contents.operations for index in set(operation.inputs))
    for operation in contents.operations:
        if operation.kind == "RESHAPE" and operation.outputs[0] in owners and reads[operation.inputs[0]] > 1:
            owner = owners[operation.outputs[0]]
            if contents.names[operation.inputs[0]].startswith(f"{owner}/"):
                owners.setdefault(operation.inputs[0], owner)
    return owners


def _part(contents: Contents, graph: Graph, owners: Mapping[int, str], target: int, name: str) -> _Part:
    if graph[name].kind == "Carried" and target in owners and contents.index.get(f"{name}/quantized") != target:
        # the converter lets layers share what they compute alike
        read = _read(graph, name, set(owners.values()))
        owners = {index: owner for index, owner in owners.items() if owner in read}
    operations: set[int] = set()
    sources: dict[str, int] = {}
    waiting = [contents.writer[target]]
    while waiting:
        position = waiting.pop()
        operations.add(position)
        for index in contents.operations[position].inputs:
            if index < 0 or contents.is_constant(index) or contents.is_state(index):
                continue
            if index in owners:
                owner = owners[index]
                if sources.setdefault(owner, index) != index:
                    raise _Fault(f"reads {owner!r} in two number formats")
                if index == contents.inputs.get(owner) and owner != name and f"{owner}/quantized" in contents.index:
                    raise _Fault(f"reads the input {owner!r} past its grid")
            elif index in contents.writer:
                waiting += [contents.writer[index]] if contents.writer[index] not in operations else []
            else:
                raise _Fault(f"reads {contents.names[index]!r}, which nothing writes")
    return _Part(name, target, sorted(operations), sources)


def _read(graph: Graph, name: str, present: set[str]) -> set[str]:
    """What a carried node may read: its inputs, and what makes those that are not in the file or are carried too."""
    found = present.intersection(graph[name].inputs)
    for source in graph[name].inputs:
        if source not in present or graph[source].kind == "Carried":
            found |= _read(graph, source, present)
    return found


def _compare(contents: Contents, graph: Graph, weights: Weights, part: _Part, present: set[str]) -> tuple[int, int]:
    """Run one part: how many elements were compared, and how many told; raises _Fault where it is off."""
    needed = _needed(graph, part, present)
    shaped = {e: n for n in sorted(needed) for e in same_elements(graph, n) if e != n and e in part.sources}
    if needed | set(shaped) != set(part.sources) and not (
        graph[part.node].kind == "Carried" and needed.issuperset(part.sources)  # it may ask for a shape alone
    ):
        raise _Fault(f"reads {sorted(part.sources)}, specified {sorted(needed)}")
    # drawn anew for each layer, and alike in each run
    rng = np.random.default_rng(zlib.crc32(part.node.encode()))
    model = cut(contents, part.operations, list(part.sources.values()), part.target)
    infos = dict(zip(part.sources, model.inputs, strict=True))
    (output,) = model.outputs
    node = graph[part.node]
    rows = min((n.weights["embeddings"].shape[0] for n in graph.nodes if n.kind == "Embedding"), default=2)
    compared = told = 0
    for turn in range(len(_DRAWS) if node.kind == "Carried" else _TURNS):
        draw = _DRAWS[turn % len(_DRAWS)]
        raw = {name: _drawn(rng, info, draw, output, rows) for name, info in infos.items()}
        raw |= {name: raw[other].reshape(raw[name].shape) for name, other in shaped.items()}
        real = {name: info.to_real(raw[name]).astype(np.float64) for name, info in infos.items()}
        chosen = _Chosen.of(rng, node, real, weights)
        try:
            (found,) = model.run_raw({str(i): raw[name] for i, name in enumerate(infos)})
            reference, slack = _reference(graph, part, real, weights, chosen)
            empty, _ = _reference(graph, part, {n: np.zeros_like(x) for n, x in real.items()}, weights, chosen)
        except (UserError, tf.errors.OpError):
            if node.kind == "Carried":  # not all that can be drawn is an index, or may be divided by
                return compared, told
            raise
        if reference is None or empty is None or slack is None:
            return 0, 0
        found = chosen.of_output(found) if part.node not in real else found
        if found.shape != reference.shape:
            # between layers the converter may leave a reshape that adds or drops axes of size 1 to its neighbour, and
            # around a dense layer any that keeps its rows
            sizes = [[n for n in values.shape if n != 1] for values in (found, reference)]
            rows = node.kind == "Dense" and found.size == reference.size and found.shape[-1] == reference.shape[-1]
            if part.node in graph.outputs or not (sizes[0] == sizes[1] or rows):
                raise _Fault(f"gives the shape {list(found.shape)}, specified {list(reference.shape)}")
            found = found.reshape(reference.shape)
        if output.quantized:
            most = explained(node, [x.shape for x in real.values()], reference.shape, wide=output.dtype == np.int16)
            seen = _check_integers(most + slack / output.scale[0], found, reference, empty, output)
        else:
            seen = _check_floats(found, reference, empty, slack)
        compared, told = compared + found.size, told + seen
        if told >= _WANTED and turn + 1 >= _LEAST_TURNS:
            break
    return compared, told


def _needed(graph: Graph, part: _Part, present: set[str]) -> set[str]:
    """The nodes nearest to `part.node` that are in the file; a reshape may be read past, its elements are the same, and
    by a carried node other such nodes, which the converter joins with it."""
    if part.node in part.sources or graph[part.node].kind == INPUT:
        return {part.node}
    needed: set[str] = set()
    past = ("Reshape", "Flatten", *(["Carried"] if graph[part.node].kind == "Carried" else []))
    waiting = list(graph[part.node].inputs)
    while waiting:
        name = waiting.pop()
        if name in present and (name in part.sources or graph[name].kind not in past):
            needed.add(name)
        else:
            waiting += graph[name].inputs
    return needed


def same_elements(graph: Graph, name: str) -> Iterator[str]:
    """The node, and those whose elements it only shapes anew: the converter may make one tensor of them."""
    yield name
    while graph[name].kind in ("Reshape", "Flatten"):
        (name,) = graph[name].inputs
        yield name


def _drawn(
    rng: np.random.Generator, info: TensorInfo, draw: tuple[str, float], output: TensorInfo, rows: int
) -> np.ndarray:
    """Elements for one source, by one of _DRAWS; `rows` of the smallest embedding: integers without a grid are its row
    numbers."""
    where, density = draw
    shape = tuple(abs(n) for n in info.shape)
    if info.dtype.kind in "iu" and not info.quantized:
        return rng.integers(0, rows, shape, info.dtype)
    if info.quantized:
        limits, zero = np.iinfo(info.dtype), info.dtype.type(info.zero_point[0])
        low = zero if where == "high" and zero < limits.max else limits.min
        high = zero if where == "low" and zero > limits.min else limits.max
        values = rng.integers(low, high, shape, info.dtype, endpoint=True)
    else:
        zero = info.dtype.type(0)
        values = rng.standard_normal(shape, np.float32) * np.float32(output.scale[0] * 128 if output.quantized else 1)
        values = values if where == "all" else np.abs(values) * (-1 if where == "low" else 1)
    if density < 1:
        values[rng.random(shape, np.float32) >= density] = zero
    return values.astype(info.dtype, copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """Places [n, 2] among the rows and columns of a WINDOWED node's output, and channels [m] among those of a weighted
    node's; None: all."""

    places: np.ndarray | None
    size: tuple[int, int]
    channels: np.ndarray | None
    width: int

    @classmethod
    def of(cls, rng: np.random.Generator, node: Node, real: Mapping[str, np.ndarray], weights: Weights) -> _Chosen:
        places, channels, size, width = None, None, (0, 0), 0
        own = weights.get(node.name, {})
        if node.kind in FILE_ORDER:
            width = own["kernel"].channels
            channels = np.sort(rng.permutation(width)[:_CHANNELS])
        if node.kind in WINDOWED:
            source = real.get(node.inputs[0])
            if source is None:  # what it reads is not in the file: everywhere
                return cls(None, size, channels, width)
            window = window_of(node, {name: constant.values for name, constant in own.items()})
            size = output_size(node, source.shape, window)
            places = np.stack([rng.integers(0, n, _PLACES) for n in size], -1)
            ends = [(i, j) for i in (0, size[0] - 1) for j in (0, size[1] - 1)]
            places[:4] = ends
            places[4:8, 0], places[8:12, 0] = 0, size[0] - 1
            places[12:16, 1], places[16:20, 1] = 0, size[1] - 1
        return cls(places, size, channels, width)

    def of_output(self, found: np.ndarray) -> np.ndarray:
        """Raises _Fault for an output of another shape."""
        shape = list(found.shape)
        if self.places is not None and shape[1:3] != list(self.size):
            raise _Fault(f"gives the shape {shape}, specified {list(self.size)} rows and columns")
        if self.channels is not None and shape[-1] != self.width:
            raise _Fault(f"gives the shape {shape}, specified {self.width} channels")
        found = found if self.places is None else found[0, self.places[:, 0], self.places[:, 1]]
        return found if self.channels is None else found[..., self.channels]


def _reference(
    graph: Graph, part: _Part, real: Mapping[str, np.ndarray], weights: Weights, chosen: _Chosen
) -> tuple[np.ndarray | None, float | np.ndarray | None]:
    """(the definition's output at the chosen places, how far rounding inside the kernel may move it); None where a
    kind has none."""
    slack: float | np.ndarray | None = 0.0
    known: dict[str, np.ndarray | None] = dict(real)

    def value(name: str) -> np.ndarray | None:
        nonlocal slack
        if name not in known:
            node, own, last = graph[name], weights.get(name), name == part.node
            read = node.weights
            if own is not None:
                read = {n: constant.real(chosen.channels if last else None) for n, constant in own.items()}
            inputs = [x for x in map(value, node.inputs) if x is not None]
            known[name] = None
            if node.kind == "Carried" and len(inputs) == len(node.inputs):
                pairs = zip(inputs, node.config["work"].reads, strict=True)
                found = node_function(node)([tf.constant(x.astype(dtype)) for x, dtype in pairs])
                known[name] = found.numpy().astype(np.float64)
            elif len(inputs) == len(node.inputs):
                at = chosen.places if last else None
                if last and node.kind == "Unary":
                    slack = _UNIT
                if node.kind in FILE_ORDER and node.precision.is_dynamic:
                    inputs, reach = _as_read(node, inputs[0])
                    if last:
                        kernel = weights[name]["kernel"].largest(chosen.channels)
                        slack = define(node.replace(activation=None), [reach], {"kernel": kernel}, at)
                known[name] = define(node, inputs, read, at)
        return known[name]

    return value(part.node), slack


def _as_read(node: Node, values: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """([what a dynamic-range kernel reads of `values`], by how much it may read each otherwise).

    The builtin kernel of INT4 weights that fill a block rounds to -127..127, and sums weights of 0 to 15 in float32.
    """
    kernel = OPERATORS[node.kind].kernel
    inputs, outputs = node.weights[kernel].shape[-2:]
    is_blocked = inputs >= _INT4_BLOCK[0] and outputs >= _INT4_BLOCK[1]
    symmetric = node.weight_grids[kernel].storage == "int4" and is_blocked
    read, halves = rounded(node, values, symmetric=symmetric)
    return [read], halves + (_INT4_EXACT * np.abs(read) if symmetric else 0.0)


def _check_integers(
    most: float | np.ndarray, found: np.ndarray, reference: np.ndarray, empty: np.ndarray, output: TensorInfo
) -> int:
    """How many elements told; raises _Fault."""
    limits = np.iinfo(found.dtype)
    steps, without = (x / output.scale[0] + output.zero_point[0] for x in (reference, empty))
    inside = np.isfinite(steps) & (np.abs(steps) < _FAR)
    steps = np.where(inside, steps, 0)
    clipped = np.clip(steps, limits.min, limits.max)
    off = np.where(inside, np.abs(found - clipped), 0)
    if (off > most).any():
        raise _Fault(
            f"computes something else: alone in the runtime it is {off.max():.1f} steps off its definition, where"
            f" rounding explains {np.max(most):.2f}"
        )
    moved = np.abs(clipped - np.clip(without, limits.min, limits.max)) >= _MOVED
    return int((inside & (clipped == steps) & moved).sum())


def _check_floats(found: np.ndarray, reference: np.ndarray, empty: np.ndarray, slack: float | np.ndarray) -> int:
    """How many elements told; raises _Fault."""
    found, finite = found.astype(np.float64), np.isfinite(reference)
    sizes = np.abs(reference[finite])
    size = np.quantile(sizes[sizes > 0], 0.9) if sizes.any() else 1.0  # of most: a quotient may be far larger
    off = np.abs(found[finite] - reference[finite])
    most = _EXACT * np.maximum(sizes, size) + np.broadcast_to(slack, reference.shape)[finite]
    if not (off <= most).all():  # NaN is none
        raise _Fault(
            f"computes something else: alone in the runtime it is {off.max():.3g} off its definition, most outputs"
            f" being below {size:.3g}"
        )
    with np.errstate(invalid="ignore"):
        moved = ~(np.abs(reference - empty) <= 10 * _EXACT * np.maximum(np.abs(reference), size))
    return int((finite & moved).sum())
