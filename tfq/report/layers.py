"""Tables of layers and operations: those of a report.json, and those of a .tflite; and how a run went."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfq.report import words
from tfq.report.table import decibel, format_table

if TYPE_CHECKING:  # it would load TensorFlow, which a report does not need
    from tfq.evaluation.inspection import Operation


def layer_table(report: Mapping[str, Any], wanted: re.Pattern[str], sort: str) -> str:
    """One row a layer: precision, range and method, error, parity. `sort`: "order" or "error"."""
    tensors = {t["name"]: t for t in report["tensors"]}
    layers = [x for x in report["layers"] if wanted.search(x["name"]) or any(map(wanted.search, x["keras_layers"]))]
    if sort == "error":
        layers.sort(key=lambda x: float("inf") if x["own_sqnr_db"] is None else x["own_sqnr_db"])
    rows = []
    for layer in layers:
        tensor = tensors.get(layer["name"])
        weights = "" if layer["weight_bits"] is None else f"{layer['weight_bits']} bit {layer['storage']}"
        weights += f", compress to {layer['entropy_bits']}" if layer["entropy_bits"] else ""
        weights += f", {layer['clusters']} clusters" if layer["clusters"] else ""
        span = method = ""
        if tensor:
            few = f" {tensor['bits']} bit" if tensor["bits"] < 8 else ""
            span = f"{_span(tensor['range'])}{few}"
            method = tensor["method"] + (" (rolled back)" if tensor["rolled_back"] else "")
        rows.append(
            [
                layer["name"],
                layer["kind"],
                words.precision(layer["precision"], layer["weight_bits"]),
                weights,
                span,
                method,
                decibel(layer["sqnr_db"]),
                decibel(layer["own_sqnr_db"]),
                "" if layer["parity_max_steps"] is None else str(layer["parity_max_steps"]),
                "" if layer["parity_differing"] is None else f"{100 * layer['parity_differing']:.2f} %",
            ]
        )
    header = ["layer", "kind", "precision", "weights", "range", "range chosen by"]
    header += ["SQNR", "own SQNR", "max steps", "differing"]
    notes = (
        f"{words.ERRORS}\nMax steps, differing: the .tflite against the simulation, each layer on the same inputs; a"
        " step is one level of the layer's output grid."
    )
    reasons = [f"{x['name']}: {x['reason']}" for x in layers if x["reason"]]
    return "\n".join([format_table(header, rows, left=6), "", notes, *reasons])


def operation_table(
    found: Sequence[Operation], wanted: re.Pattern[str], sort: str
) -> tuple[list[str], list[list[str]]]:
    """Header and a row for each operation whose name matches; `sort` "order" of execution, or worst "error" first."""
    shown = [o for o in found if wanted.search(o.name)]
    if sort == "error":
        shown.sort(key=lambda o: float("inf") if o.sqnr_db is None else o.sqnr_db)
    header = ["layer", "operation", "type", "shape", "weights", "range", "SQNR"]
    return header, [
        [
            o.name,
            o.kind,
            o.dtype,
            "x".join(map(str, o.shape)),
            f"{o.weight_bits} bit {o.weight_dtype}, {o.channels} scales" if o.weight_dtype else "",
            _span(o.range) if o.range else "",
            decibel(o.sqnr_db),
        ]
        for o in shown
    ]


def stage_table(report: Mapping[str, Any]) -> str:
    """Seconds and peak memory of every stage."""
    rows = [[words.stage(s["name"]), f"{s['seconds']:.1f}", f"{s['peak_memory_mb']:,.0f}"] for s in report["stages"]]
    return format_table(["stage", "seconds", "peak memory, MiB"], rows)


def _span(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.4g}, {ends[1]:.4g}]"
