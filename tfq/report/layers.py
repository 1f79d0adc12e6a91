"""Tables drawn from report.json alone: the layers, and how the run went."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tfq.report import words
from tfq.report.table import decibel, format_table


def layer_table(report: Mapping[str, Any], wanted: re.Pattern[str], sort: str) -> str:
    """One row a layer: precision, range and method, error, parity. `sort`: "order" or "error"."""
    tensors = {t["name"]: t for t in report["tensors"]}
    layers = [x for x in report["layers"] if wanted.search(x["name"]) or any(map(wanted.search, x["keras_layers"]))]
    if sort == "error":
        layers.sort(key=lambda x: float("inf") if x["own_sqnr_db"] is None else x["own_sqnr_db"])
    rows = []
    for layer in layers:
        tensor = tensors.get(layer["name"])
        bits = layer["weight_bits"]
        rows.append(
            [
                layer["name"],
                layer["kind"],
                layer["precision"],
                "" if bits is None else f"{bits} bit {layer['storage']}{_entropy(layer)}",
                _range(tensor) if tensor else "",
                tensor["method"] + (" (rolled back)" if tensor["rolled_back"] else "") if tensor else "",
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


def stage_table(report: Mapping[str, Any]) -> str:
    """Seconds and peak memory of every stage."""
    rows = [[s["name"], f"{s['seconds']:.1f}", f"{s['peak_memory_mb']:,.0f}"] for s in report["stages"]]
    return format_table(["stage", "seconds", "peak memory, MiB"], rows)


def _range(tensor: Mapping[str, Any]) -> str:
    low, high = tensor["range"]
    return f"[{low:.4g}, {high:.4g}]" + (f" {tensor['bits']} bit" if tensor["bits"] < 8 else "")


def _entropy(layer: Mapping[str, Any]) -> str:
    bits = layer["entropy_bits"]
    return f", compress to {bits}" if bits else ""
