"""What a unit costs with each candidate: bytes of the file, of its download, of memory, and operations.

    file_bytes      the unit's constants as the file holds them: weights, biases, and the float32 scales of both
    download_bytes  these deflated one unit at a time, times what all units with the candidate deflate
                    to in one stream over the sum of the single ones: a file shares its code tables
    memory_bytes    weights and biases as the runtime keeps them: float16 ones are unpacked to float32
    macs            multiply-accumulates of one sample
    bops            macs x weight bits x activation bits; float16 and float32 layers compute with 32 x 32

All are sums over the units. What is left of the file is fixed: `fixed_costs` takes it from one real file, so that the
total is exact there and a total elsewhere is off only by what is not additive: constants that two units share, and how
well deflate does across the bounds of units. Seen on resnet8: file bytes within 0.05 %, download bytes 1 % off where
all units have one width, 5 % too few where widths from 2 to 6 alternate; on the demo with entropies from 1 to 5 up to
8 % too few. The fixed memory is the largest that one operation reads and writes.

Where float meets integer the file has a Quantize or Dequantize (`tfq.models.borders`). Their costs are not a sum over
the units, but nearly one over pairs of them. With D(S) the cost of the borders when the units S are float,

    border of u and v   b_uv = (D(u) + D(v) - D(uv) - D()) / 2       for units with no other unit between them
    u alone             D(u) - D() - sum_v b_uv                      a part of the float candidates' own cost

which is exact for every one and every two float units, and where no tensor is read by three.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import scipy.sparse.csgraph
from tensorflow.lite.python import schema_py_generated as schema

from tfq.allocation.problem import Border
from tfq.execution.deflate import RAW, deflated
from tfq.export import flatbuffer
from tfq.export.layout import pack, tflite_layout, tflite_scales
from tfq.models.borders import Borders, find_borders, find_wide
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.widths import Unit, can_be_dynamic
from tfq.numerics.entropy import entropy
from tfq.operations.table import OPERATORS, matrix_of
from tfq.precision import CANDIDATES, FLOAT16, FLOAT32, Precision
from tfq.simulate.weights import weight_integers

Key = tuple[str, str]
"""(name of the unit, name of the candidate)."""
COSTS = ("file_bytes", "download_bytes", "memory_bytes", "macs", "bops")
_FLOATS = {"float16": "<f2", "float32": "<f4"}


def all_costs(priced: Mapping[Key, Sequence[Node]], macs: Mapping[str, int]) -> dict[Key, dict[str, float]]:
    """The costs of `COSTS` of every unit with every candidate.

    Args:
      priced: by name of the unit and of the candidate the unit's nodes, whose weights lie on the candidate's grid or
        are float.
      macs: of every node, as `multiply_accumulates` counts them.
    """
    costs, alone = {}, {}
    for key, nodes in priced.items():
        costs[key], alone[key] = _unit_costs(CANDIDATES[key[1]], nodes, macs)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # zlib lets other threads run
        single = dict(zip(alone, pool.map(_stream, alone.values()), strict=True))
    for candidate in {key[1] for key in priced}:
        keys = [key for key in priced if key[1] == candidate]
        share = _stream(b"".join(alone[key] for key in keys)) / sum(single[key] for key in keys)
        for key in keys:
            costs[key]["download_bytes"] += share * single[key]
    return costs


def _unit_costs(precision: Precision, nodes: Sequence[Node], macs: Mapping[str, int]) -> tuple[dict[str, float], bytes]:
    """The costs of one unit, its download bytes but for its constants, and these. Arguments as of `all_costs`."""
    stored, kept = _constants(precision, nodes)
    total = sum(macs[node.name] for node in nodes)
    weights = sum(len(node.weights) for node in nodes)
    # an integer weight has a grid; a float16 one is read through a Dequantize
    around = _piece_bytes(operation=True, grid=False) if precision == FLOAT16 else _grid_bytes()
    count = 0 if precision == FLOAT32 else weights
    costs = {
        "file_bytes": float(sum(map(len, stored)) + count * around["file_bytes"]),
        "download_bytes": float(count * around["download_bytes"]),
        "memory_bytes": float(kept),
        "macs": float(total),
        "bops": float(total * math.prod(precision.computed_bits)),
    }
    return costs, b"".join(stored)


def coded_bytes(nodes: Sequence[Node]) -> float:
    """About what a unit adds to a download: its integers in an ideal code, and its scales. Nothing is deflated."""
    total = 0.0
    for node in nodes:
        name = OPERATORS[node.kind].kernel
        codes = weight_integers(node)[name]
        total += codes.size * entropy(codes) / 8 + 4 * np.size(node.weight_grids[name].scale)
    return total


def border_bytes(graph: Graph) -> Callable[[Borders], dict[str, float]]:
    """What borders change in the file, as a price for `border_costs`.

    Each adds an operation and its tensor; a float tensor needs no grid, and a Requantize node between float tensors
    no operation.
    """
    requantized = [node for node in graph.nodes if node.kind == "Requantize"]

    def price(borders: Borders) -> dict[str, float]:
        added = len(borders.quantized) + len(borders.dequantized)
        bare = len(borders.tensors)
        gone = sum({node.name, node.inputs[0]} <= borders.tensors for node in requantized)
        operation, copied = (_piece_bytes(operation=True, grid=grid) for grid in (True, False))
        return {
            name: added * operation[name] - bare * (value + 4) - gone * copied[name]
            for name, value in _grid_bytes().items()
        }

    return price


def wide_border_bytes(graph: Graph, nodes: Collection[str], **edges: bool) -> dict[str, float]:
    """What a QUANTIZE at every border of these layers adds, where they alone have int16 activations.

    graph, edges: as in `find_wide`.
    """
    wide = find_wide(graph, nodes, find_borders(graph, (), **edges), **edges)
    read = {name for node in wide.nodes for name in graph[node].inputs if name not in wide.tensors}
    count = len(read) + len(wide.nodes - wide.tensors)
    return {name: count * value for name, value in _piece_bytes(operation=True, grid=True).items()}


def fixed_costs(content: bytes, costs: Sequence[Mapping[str, float]], graph: Graph) -> dict[str, float]:
    """What a model costs beside its units.

    Args:
      content: a file of the model, such as the 8-bit one.
      costs: of all units with the candidates they have in it.
      graph: its graph, for the largest activations (int8).
    """
    units = {name: math.fsum(own[name] for own in costs) for name in ("file_bytes", "download_bytes")}
    return {
        "file_bytes": len(content) - units["file_bytes"],
        "download_bytes": len(deflated(content)) - units["download_bytes"],
        "memory_bytes": float(largest_activations(graph)),
        "macs": 0.0,
        "bops": 0.0,
    }


def multiply_accumulates(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of one sample by weighted node and by embedding."""
    shapes = tensor_shapes(graph)
    found: dict[str, int] = {}
    for node in graph.nodes:
        matrix = matrix_of(node.kind)
        if matrix is None:
            if can_be_dynamic(node):  # an embedding, which is looked up
                found[node.name] = 0
            continue
        # every weight is used once at every position: of the input where the layer is transposed
        position = shapes[node.inputs[0] if matrix.transposed else node.name][:-1]
        found[node.name] = math.prod(position) * node.weights[OPERATORS[node.kind].kernel].size
    return found


def largest_activations(graph: Graph) -> int:
    """The largest number of elements, a byte each in int8, that one operation reads and writes for one sample."""
    shapes = tensor_shapes(graph)
    return max(
        sum(math.prod(shapes[name]) for name in {*node.inputs, node.name}) for node in graph.nodes if node.kind != INPUT
    )


def _stream(data: bytes) -> int:
    """Bytes of `data` deflated, without a frame of its own."""
    return len(deflated(data, frame=RAW))


def border_costs(
    graph: Graph,
    units: Sequence[Unit],
    price: Callable[[Borders], Mapping[str, float]],
    *,
    float_inputs: bool = False,
    float_outputs: bool = False,
) -> tuple[list[Border], dict[str, dict[str, float]]]:
    """The borders between units, and by unit what those it makes alone cost, to be added to its float candidates.

    Args:
      graph, units: the prepared graph and its units.
      price: the cost of a set of borders, by cost name; 0 of none.
      float_inputs, float_outputs: as in `find_borders`.
    """

    def cost(*chosen: Unit) -> dict[str, float]:
        names = [name for unit in chosen for name in unit.nodes]
        return dict(price(find_borders(graph, names, float_inputs=float_inputs, float_outputs=float_outputs)))

    none, alone = cost(), {unit.name: cost(unit) for unit in units}
    by_name = {unit.name: unit for unit in units}
    own = {unit: {name: value - none[name] for name, value in found.items()} for unit, found in alone.items()}
    borders = []
    for first, second in _neighbours(graph, units):
        both = cost(by_name[first], by_name[second])
        shared = {n: (alone[first][n] + alone[second][n] - both[n] - none[n]) / 2 for n in none}
        if any(shared.values()):
            borders.append(Border(first, second, shared))
            for unit in (first, second):
                own[unit] = {name: value - shared[name] for name, value in own[unit].items()}
    return borders, own


def _neighbours(graph: Graph, units: Sequence[Unit]) -> list[tuple[str, str]]:
    """Pairs of units with a path of weightless nodes between them, or that read one tensor."""
    unit_of = {name: unit.name for unit in units for name in unit.nodes}
    order = {unit.name: place for place, unit in enumerate(units)}
    number = {node.name: n for n, node in enumerate(graph.nodes)}
    # tensors that weightless nodes connect can all turn float together: one region
    links = [(number[s], number[n.name]) for n in graph.nodes if n.name not in unit_of for s in n.inputs]
    at = tuple(np.transpose(links).astype(int)) if links else ([], [])
    matrix = scipy.sparse.coo_array((np.ones(len(links)), at), shape=(len(number), len(number)))
    _, region = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    members: dict[int, set[str]] = {}
    for name, unit in unit_of.items():
        for tensor in (*graph[name].inputs, name):
            members.setdefault(region[number[tensor]], set()).add(unit)
    pairs = {(a, b) for own in members.values() for a in own for b in own if order[a] < order[b]}
    return sorted(pairs, key=lambda pair: (order[pair[0]], order[pair[1]]))


def _constants(precision: Precision, nodes: Sequence[Node]) -> tuple[list[bytes], int]:
    """The unit's constants in the file, and the bytes of its weights and biases in memory; equal ones count once."""
    stored: dict[bytes, None] = {}
    kept: dict[bytes, int] = {}
    for node in nodes:
        integers = weight_integers(node) if precision.has_grid else {}
        for name, values in node.weights.items():
            if name not in integers:
                data = tflite_values(node, name, values).astype(_FLOATS[precision.float_type]).tobytes()
                stored[data] = None
                kept[data] = 4 * values.size
        for name, codes in integers.items():
            grid = node.weight_grids[name]
            data = pack(tflite_values(node, name, codes), grid.storage)
            kernel = name == OPERATORS[node.kind].kernel
            scales = tflite_scales(node.kind, grid, node.weights[name].shape)[0] if kernel else grid.scale
            stored |= dict.fromkeys((data, np.asarray(scales, "<f4").tobytes()))
            kept[data] = len(data)
    return list(stored), sum(kept.values())


@functools.cache
def _piece_bytes(*, operation: bool, grid: bool) -> dict[str, float]:
    """Bytes in a file of one tensor, with or without an operation that makes it and a grid: one of eight like it."""

    def content(count: int) -> bytes:
        draw = random.Random(0)  # stands for scales, which do not deflate; whatever the seed
        model = flatbuffer.empty_model()
        (graph,) = model.subgraphs
        graph.inputs, graph.outputs, model.operatorCodes = [0], [0], None
        for number in range(count):
            tensor = graph.tensors[flatbuffer.add_tensor(model, (1, 16, 16, 64), "float32")]
            tensor.name = f"layer_{number}/quantized".encode()
            if grid:
                flatbuffer.set_grid(tensor, [draw.random()], 0)
            if operation:
                operator = schema.OperatorT()
                operator.inputs = operator.outputs = np.asarray([number], np.int32)
                graph.operators.append(operator)
        return flatbuffer.serialize(model)

    few, many = content(8), content(16)
    return {
        "file_bytes": (len(many) - len(few)) / 8,
        "download_bytes": (len(deflated(many)) - len(deflated(few))) / 8,
    }


def _grid_bytes() -> dict[str, float]:
    """Bytes of a grid beside its scales, of which there is one in the piece."""
    bare, whole = (_piece_bytes(operation=False, grid=grid) for grid in (False, True))
    return {name: max(0.0, whole[name] - bare[name] - 4) for name in whole}


def tflite_values(node: Node, name: str, values: np.ndarray) -> np.ndarray:
    """A weight of a node in the layout of the file."""
    return tflite_layout(node.kind, values) if name == OPERATORS[node.kind].kernel else values
