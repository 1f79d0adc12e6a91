"""The operations of a .tflite as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfq.evaluation.inspection import Operation
from tfq.report.table import decibel


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
            f"[{o.range[0]:.4g}, {o.range[1]:.4g}]" if o.range else "",
            decibel(o.sqnr_db),
        ]
        for o in shown
    ]
