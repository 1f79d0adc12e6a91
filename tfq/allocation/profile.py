"""Measures a latency table on this machine: every distinct operation of a model, alone, at every family.

    isolated   a model of one node, made by the exporter, at int8, packed, float16 and float32, timed in turns
    borders    one Quantize and one Dequantize for every distinct shape of a tensor
    overhead   a Quantize of one element: what an invocation takes that does next to nothing
    in place   the whole model at every family, which says by what factor the operations in it take longer or less
               long than alone; and two mixed ones, to check what the table predicts

The interpreter's Python interface offers no times of single operations within a model: what an operation gains or
loses by its neighbours (cold caches, XNNPACK packing a whole subgraph) shows in whole models alone.
Grid bits do not change the speed of an int8 operation: one entry serves them all. Inputs are random.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.allocation.latency_table import (
    DEQUANTIZE,
    FAMILIES,
    QUANTIZE,
    Check,
    Entry,
    LatencyTable,
    Operation,
    border_operation,
    operations,
    predicted_latency,
)
from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.errors import UserError
from tfq.evaluation.latency import Latency, Timing, measure_latency
from tfq.execution.progress import SILENT, Progress
from tfq.export import flatbuffer
from tfq.export.package import export_plain, export_quantized
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.widths import can_pack, is_weighted, units
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16, FLOAT32, Precision

_SAMPLES = 4
# Families are named as a latency table names them.
_FAMILIES = {"float32": FLOAT32, "float16": FLOAT16, "packed": Precision(weight_bits=4, storage="packed")}
_FLOAT_FAMILIES = ("float32", "float16")
_TOKENS = 2  # an integer input is 0 or 1: any table of an embedding has two rows
_CODES = {
    QUANTIZE: (schema.BuiltinOperator.QUANTIZE, "float32", "int8"),
    DEQUANTIZE: (schema.BuiltinOperator.DEQUANTIZE, "int8", "float32"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Isolated:
    """What is timed: one operation alone, or the whole model (`whole_models`).

    Attributes:
      files: a .tflite of it by family.
      inputs: real values of one invocation that all of them take, by input name, batch axis included.
    """

    operation: Operation
    files: Mapping[str, bytes]
    inputs: Mapping[str, np.ndarray]


def profile(
    graph: Graph,
    *,
    threads: int = 1,
    runs: int = 48,
    seconds: float = 0.2,
    seed: int = 0,
    progress: Progress = SILENT,
) -> LatencyTable:
    """The latency table of every operation of the prepared graph on this machine.

    Args:
      graph: the prepared graph.
      threads: of one invocation.
      runs, seconds: of each one-operation model, as in `measure_latency`; five times the seconds for whole models.
      seed: of the inputs.
    """

    def times_of(alone: Isolated, seconds: float) -> dict[str, Latency]:
        timing = Timing(runs, seconds, threads)
        return measure_latency(alone.files, dict.fromkeys(alone.files, alone.inputs), timing=timing, seed=seed)

    overhead = times_of(idle_operation(seed), seconds)["int8"].p50_ms
    entries: list[Entry] = []
    with progress.task("profile the operations", count_operations(graph)) as advance:
        for alone in isolated_operations(graph, seed):
            entries += [
                make_entry(alone.operation, family, time.times_ms) for family, time in times_of(alone, seconds).items()
            ]
            advance(1)
    whole = times_of(whole_models(graph, seed, progress=progress), 5 * seconds)
    return make_table(
        graph,
        entries,
        {name: time.p50_ms for name, time in whole.items()},
        device=f"{platform.node()} {platform.machine()}",
        runtime=f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
        threads=threads,
        overhead_ms=overhead,
    )


def isolated_operations(graph: Graph, seed: int) -> Iterator[Isolated]:
    """Every distinct operation of the prepared graph, then the borders of every distinct shape; `seed` as there."""
    for operation, node in _distinct(graph).items():
        files = _isolated(graph, node, operation, seed)
        yield Isolated(operation, files, random_inputs(_alone(graph, node, operation), 1, seed))
    for shape in _border_shapes(graph):
        for kind in (QUANTIZE, DEQUANTIZE):
            yield _border(kind, shape, seed)


def count_operations(graph: Graph) -> int:
    """How many `isolated_operations` there are."""
    return len(_distinct(graph)) + 2 * len(_border_shapes(graph))


def idle_operation(seed: int) -> Isolated:
    """What does next to nothing: the Quantize of one element, whose time is the overhead."""
    return _border(QUANTIZE, (1,), seed)


def whole_models(graph: Graph, seed: int, *, progress: Progress = SILENT) -> Isolated:
    """The whole model at every family, by its name, and models of mixed precision, by what they are."""
    inputs = random_inputs(graph, _SAMPLES, seed)
    files = {}
    for name, families in _models(graph).items():
        if name in _FLOAT_FAMILIES:
            files[name] = export_plain(graph, name, _representative(inputs), progress=progress)
        else:
            files[name] = _quantized(graph, inputs, families, progress=progress)
    return Isolated(Operation("Model", (), ()), files, {name: values[:1] for name, values in inputs.items()})


def _models(graph: Graph) -> dict[str, dict[str, str]]:
    """Families of the weighted nodes of whole models, by the name of the model."""
    found = units(graph)

    def families(of: Callable[[int], str]) -> dict[str, str]:
        return {name: of(place) for place, unit in enumerate(found) for name in unit.nodes}

    weighted = [name for unit in found for name in unit.nodes]
    models = {family: dict.fromkeys(weighted, family) for family in (*_FLOAT_FAMILIES, "int8")}
    models |= {
        "every_second_float32": families(lambda place: ("int8", "float32")[place % 2]),
        "last_float32": families(lambda place: "float32" if place == len(found) - 1 else "int8"),
    }
    packable = {node.name for node in graph.nodes if can_pack(node)}
    if packable:
        models["packed"] = {name: "packed" if name in packable else "int8" for name in models["int8"]}
    return models


def make_entry(operation: Operation, family: str, times_ms: Sequence[float]) -> Entry:
    """The entry of an operation of which every invocation's time is known."""
    p50 = float(np.median(times_ms))
    deviations = np.abs(np.asarray(times_ms) - p50)
    return Entry(operation, family, p50, float(np.median(deviations)), len(times_ms))


def make_table(
    graph: Graph,
    entries: Sequence[Entry],
    whole_ms: Mapping[str, float],
    *,
    device: str,
    runtime: str,
    threads: int,
    overhead_ms: float,
) -> LatencyTable:
    """The table of today, with what it predicts of the whole models.

    Args:
      whole_ms: medians of `whole_models`, by name; none for a table without factors and checks.
    """
    table = LatencyTable(device, runtime, threads, datetime.date.today().isoformat(), overhead_ms, tuple(entries))
    for family in (family for family in FAMILIES if family in whole_ms):
        table = _with_factor(table, graph, family, whole_ms[family])
    checks = tuple(Check(name, predicted_whole(table, graph, name), measured) for name, measured in whole_ms.items())
    return dataclasses.replace(table, checks=checks)


def predicted_whole(table: LatencyTable, graph: Graph, name: str) -> float:
    """Milliseconds of one of the `whole_models`."""
    return predicted_latency(table, graph, _models(graph)[name], float_edges=name in _FLOAT_FAMILIES)


def _with_factor(table: LatencyTable, graph: Graph, family: str, measured: float) -> LatencyTable:
    """The table with the factor by which it predicts the whole model of the family as measured."""

    def given(factor: float) -> LatencyTable:
        return dataclasses.replace(table, in_place={**table.in_place, family: factor})

    others, once = (predicted_whole(given(factor), graph, family) for factor in (0.0, 1.0))
    if not others < min(once, measured):  # nothing of this family, or no longer than the rest alone
        return table
    return given((measured - others) / (once - others))


def _distinct(graph: Graph) -> dict[Operation, Node]:
    found = operations(graph)
    return {found[node.name]: node for node in reversed(graph.nodes) if node.kind != INPUT}


def _border_shapes(graph: Graph) -> list[tuple[int, ...]]:
    return sorted({shape for o in operations(graph).values() for shape in (*o.inputs, o.output)})


def random_inputs(graph: Graph, count: int, seed: int) -> dict[str, np.ndarray]:
    """Normal numbers, or 0 and 1 where an input is integer: [count, ...] by input name.

    Raises UserError for an input with an open dimension.
    """
    draw = np.random.default_rng(seed)
    found = {}
    for name in graph.inputs:
        shape, dtype = graph[name].config["shape"], np.dtype(graph[name].config["dtype"])
        if None in shape:
            raise UserError(f"input {name!r} has the open shape {shape}; build the model with a fixed one to time it")
        size = (count, *shape)
        values = draw.normal(size=size) if dtype.kind == "f" else draw.integers(0, _TOKENS, size)
        found[name] = values.astype(dtype)
    return found


def _isolated(graph: Graph, node: Node, operation: Operation, seed: int) -> dict[str, bytes]:
    """The files of one node alone, by family."""
    alone = _alone(graph, node, operation)
    inputs = random_inputs(alone, _SAMPLES, seed)
    files = {}
    if OPERATORS[node.kind].output != "float":
        files["int8"] = _quantized(alone, inputs, {})
    if node.kind != "Requantize":
        files["float32"] = export_plain(alone, "float32", _representative(inputs))
    if is_weighted(node):
        files["float16"] = export_plain(alone, "float16", _representative(inputs))
        if can_pack(node):
            files["packed"] = _quantized(alone, inputs, {node.name: "packed"})
    return files


def _alone(graph: Graph, node: Node, operation: Operation) -> Graph:
    """The node as a model of its own."""
    sources = dict(zip(node.inputs, operation.inputs, strict=True))
    dtypes = {name: graph[name].config["dtype"] if graph[name].kind == INPUT else "float32" for name in sources}
    made = [Node(name, INPUT, {"shape": shape, "dtype": dtypes[name]}) for name, shape in sources.items()]
    return Graph((*made, node), tuple(sources), (node.name,))


def _quantized(
    graph: Graph, inputs: Mapping[str, np.ndarray], families: Mapping[str, str], *, progress: Progress = SILENT
) -> bytes:
    """The file in which the weighted nodes have these families."""
    ranges = calibrate(graph, [inputs], method="minmax", total=_SAMPLES).ranges
    precisions = {name: _FAMILIES[family] for name, family in families.items() if family in _FAMILIES}
    return export_quantized(specify(graph, ranges, precisions), _representative(inputs), progress=progress)


def _representative(inputs: Mapping[str, np.ndarray]) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    return lambda: ({name: values[i : i + 1] for name, values in inputs.items()} for i in range(_SAMPLES))


def _border(kind: str, shape: tuple[int, ...], seed: int) -> Isolated:
    inputs = {"x": np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)}
    return Isolated(border_operation(kind, shape), {"int8": border_file(kind, shape)}, inputs)


def border_file(kind: str, shape: tuple[int, ...]) -> bytes:
    """A .tflite of one Quantize or Dequantize of a tensor [1, *shape], named x, to y; the grid covers [-4, 4]."""
    builtin, *types = _CODES[kind]
    model = flatbuffer.empty_model()
    (graph,) = model.subgraphs
    for name, dtype in zip((b"x", b"y"), types, strict=True):
        tensor = graph.tensors[flatbuffer.add_tensor(model, (1, *shape), dtype)]
        tensor.name = name
        if dtype == "int8":
            flatbuffer.set_grid(tensor, [8 / 255], 0)
    graph.inputs, graph.outputs = np.asarray([0], np.int32), np.asarray([1], np.int32)
    graph.operators = [flatbuffer.make_operator(model, builtin, 0, 1, version=1)]
    return flatbuffer.serialize(model)
