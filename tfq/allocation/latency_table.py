"""The latency table: how long every operation of a model takes at every precision on one device.

    {"version": 1,
     "device": "...", "runtime": "ai-edge-litert 2.3.0", "threads": 1, "date": "2026-01-31",
     "overhead_ms": time of one invocation of a model that does next to nothing,
     "entries": [{"operation": {"kind": "Conv2D", "inputs": [[32, 32, 3]], "output": [16, 16, 8], "activation": "relu",
                                "config": {"strides": 2, ...}},
                  "family": "int8", "p50_ms": 0.021, "mad_ms": 0.001, "runs": 200}, ...],
     "in_place": {"int8": 1.18, "float32": 0.93, ...},
     "checks": [{"model": "last_float32", "predicted_ms": 0.30, "measured_ms": 0.31}, ...]}

Shapes are without the batch axis; the batch is 1. A family is what decides the speed: int8 (any grid bits), packed
(INT4 tensors), float16, float32. `p50_ms` is that of a model of this operation alone, invocation included. In its place
in a model an operation takes longer, its weights and inputs no longer in the nearest cache, or less long, what comes
with every invocation shared. So the table has, for each family, the factor that makes the sum over a whole model of
that family what the model was measured to take:

    latency = overhead + sum over operations in_place * max(0, p50 - overhead)

The operations "Quantize" and "Dequantize" stand for the borders between float and integer; they are int8's. `checks`
hold whole models, predicted by the table and measured with it: those of one family, which the factors make equal, and
mixed ones, which the factors have not seen.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfq.errors import UserError
from tfq.execution.inputs import read_regular
from tfq.execution.json_files import MOST_BYTES, built, parse_json, shown
from tfq.models.borders import Borders, find_borders
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.widths import Unit, is_weighted
from tfq.precision import CANDIDATES

VERSION = 1
FAMILIES = ("float32", "int8", "float16", "packed")  # operations of the first take part in models of the last
QUANTIZE, DEQUANTIZE = "Quantize", "Dequantize"
_MEASURE = "measure one with tfq-profile"
_COSTLESS_IN_FLOAT = "Requantize"  # it is removed where it would copy one float tensor to another


@dataclasses.dataclass(frozen=True)
class Operation:
    """What decides how long an operation takes, besides its precision.

    Attributes:
      kind: of the node, or "Quantize" or "Dequantize".
      inputs, output: shapes without the batch axis.
      activation: clamp fused onto it, or "".
      config: the node's configuration as JSON, keys in order.
    """

    kind: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    activation: str = ""
    config: str = "{}"

    @property
    def name(self) -> str:
        """For messages: "Conv2D 32x32x3 -> 16x16x8"."""
        return f"{self.kind} {', '.join(map(_written, self.inputs))} -> {_written(self.output)}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One operation at one family: median and median absolute deviation of `runs` invocations, in milliseconds."""

    operation: Operation
    family: str
    p50_ms: float
    mad_ms: float
    runs: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is none of {', '.join(FAMILIES)}")
        if not all(math.isfinite(v) and v >= 0 for v in (self.p50_ms, self.mad_ms)) or self.runs < 1:
            raise ValueError("times must be finite and at least 0, runs at least 1")


@dataclasses.dataclass(frozen=True)
class Check:
    """A whole model: the sum of the table, and its median as measured."""

    model: str
    predicted_ms: float
    measured_ms: float


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Entries of one device; the fields are those of the file. A family without a factor has the factor 1."""

    device: str
    runtime: str
    threads: int
    date: str
    overhead_ms: float
    entries: tuple[Entry, ...]
    in_place: Mapping[str, float] = dataclasses.field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    def milliseconds(self, wanted: Sequence[tuple[Operation, str]]) -> list[float]:
        """What each (operation, family) adds to a model. Raises UserError naming those that the table lacks."""
        known = {(entry.operation, entry.family): entry.p50_ms for entry in self.entries}
        missing = list(dict.fromkeys(f"{o.name} ({family})" for o, family in wanted if (o, family) not in known))
        if missing:
            raise UserError(
                f"the latency table of {self.device} lacks {len(missing)} of the model's operations: "
                f"{'; '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}; run tfq-profile on the model"
            )
        return [self.in_place.get(item[1], 1.0) * max(0.0, known[item] - self.overhead_ms) for item in wanted]

    def to_json(self) -> str:
        def entry(found: Entry) -> dict[str, Any]:
            operation = {**dataclasses.asdict(found.operation), "config": json.loads(found.operation.config)}
            return {**dataclasses.asdict(found), "operation": operation}

        data = {"version": VERSION, **dataclasses.asdict(self), "entries": [entry(e) for e in self.entries]}
        return json.dumps(data, indent=1) + "\n"


def parse_table(content: str | bytes, *, source: str = "the latency table") -> LatencyTable:
    """The table of a JSON text. Raises UserError for anything else."""
    data = parse_json(content, source)
    if not isinstance(data, dict) or "version" not in data:
        raise UserError(f"{source} is no latency table: expected an object with a version; {_MEASURE}")
    version = data.pop("version")
    if type(version) is not int or version != VERSION:
        raise UserError(f"{source} has version {shown(version)}, expected {VERSION}; {_MEASURE}")
    entries = data.get("entries")
    for entry in entries if isinstance(entries, list) else []:
        operation = entry.get("operation") if isinstance(entry, dict) else None
        if isinstance(operation, dict) and isinstance(operation.get("config"), dict):
            operation["config"] = json.dumps(operation["config"], sort_keys=True)
    try:
        table = built(LatencyTable, data, what=source)
        _check(table)
    except (UserError, ValueError) as error:
        raise UserError(f"{error}; it is no latency table of this version: {_MEASURE}") from error
    return table


def _check(table: LatencyTable) -> None:
    """Raises ValueError for times that cannot be; tables in the making may hold them."""
    if table.overhead_ms < 0:
        raise ValueError(f"overhead_ms (={table.overhead_ms}) must be at least 0")
    for family, factor in table.in_place.items():
        if family not in FAMILIES or factor <= 0:
            raise ValueError(f"in_place of {family!r} (={factor!r}) must be a positive number, of a known family")


def read_table(path: Path) -> LatencyTable:
    """The table in a file. Raises UserError for a file that cannot be read or holds none."""
    what = f"the latency table {path}"
    return parse_table(read_regular(path, what=what, most=MOST_BYTES), source=what)


def operations(graph: Graph) -> dict[str, Operation]:
    """The operation of every node but the inputs."""
    shapes = tensor_shapes(graph)
    return {node.name: _operation(node, shapes) for node in graph.nodes if node.kind != INPUT}


def border_operation(kind: str, shape: tuple[int, ...]) -> Operation:
    """Quantize or Dequantize of a tensor of this shape."""
    return Operation(kind, (shape,), shape)


def family_of(candidate: str) -> str:
    """The family of a candidate by its name."""
    found = CANDIDATES[candidate]
    return found.arithmetic if found.is_float else found.storage


def unit_latencies(
    table: LatencyTable, graph: Graph, units: Sequence[Unit], candidates: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Milliseconds of every unit with every candidate, by their names."""
    found = operations(graph)
    nodes = [(u.name, c, found[node], family_of(c)) for u in units for c in candidates for node in u.nodes]
    times = table.milliseconds([(operation, family) for *_, operation, family in nodes])
    sums = {(unit, candidate): 0.0 for unit, candidate, *_ in nodes}
    for (unit, candidate, *_), time in zip(nodes, times, strict=True):
        sums[unit, candidate] += time
    return sums


def border_price(table: LatencyTable, graph: Graph) -> Callable[[Borders], dict[str, float]]:
    """The milliseconds of weightless nodes and borders, as a price for `tfq.allocation.costs.border_costs`."""
    found, shapes = operations(graph), tensor_shapes(graph)
    weightless = [node for node in graph.nodes if node.kind != INPUT and not is_weighted(node)]

    def price(borders: Borders) -> dict[str, float]:
        wanted = [
            (found[node.name], "float32" if node.name in borders.nodes else "int8")
            for node in weightless
            if not (node.kind == _COSTLESS_IN_FLOAT and node.name in borders.nodes)
        ]
        wanted += [(border_operation(QUANTIZE, shapes[name]), "int8") for name in sorted(borders.quantized)]
        wanted += [(border_operation(DEQUANTIZE, shapes[name]), "int8") for name in sorted(borders.dequantized)]
        return {"latency_ms": math.fsum(table.milliseconds(wanted))}

    return price


def predicted_latency(
    table: LatencyTable, graph: Graph, families: Mapping[str, str], *, float_edges: bool = False
) -> float:
    """Milliseconds of the model whose weighted nodes have these families, by node name.

    float_edges: its inputs and outputs are float, and not int8.
    """
    found = operations(graph)
    floats = [name for name, family in families.items() if family in ("float16", "float32")]
    layers = table.milliseconds([(found[name], family) for name, family in families.items()])
    borders = find_borders(graph, floats, float_inputs=float_edges, float_outputs=float_edges)
    return table.overhead_ms + math.fsum(layers) + border_price(table, graph)(borders)["latency_ms"]


def _operation(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> Operation:
    config = json.dumps(dict(node.config), sort_keys=True, default=str)
    return Operation(
        node.kind, tuple(shapes[name] for name in node.inputs), shapes[node.name], node.activation or "", config
    )


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
