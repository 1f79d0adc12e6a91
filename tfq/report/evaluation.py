"""An evaluation as a table: one row a model, and below it what the columns mean."""

from __future__ import annotations

from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.report.summary import interval, number
from tfq.report.table import without_empty
from tfq.report.words import counted


def evaluation_table(found: Evaluation) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes; without the columns of what was measured of no model."""
    header = ["model", found.metric, "difference [95 %]", "agreement", "SQNR", "file", "download", "bits", "p50 ms"]
    header += ["p90 ms", "time ratio [95 %]"]
    rows = [_row(model, baseline=not index) for index, model in enumerate(found.models)]
    notes = [
        f"{found.samples} samples; the others are compared with the first model."
        " Brackets: 95 % intervals (paired bootstrap)."
    ]
    if len(found.outputs) > 1:
        notes.append(
            f"Only the first output, {found.outputs[0]!r}, is measured, of {', '.join(map(repr, found.outputs))}."
        )
    if found.omitted:
        notes.append(f"No score: {found.omitted}.")
    timed = found.models[0].latency
    if timed:
        notes.append(
            f"Latency on this machine: {timed.runs} runs each after {timed.warm_up} untimed, in turns, batch"
            f" {timed.batch}, {counted(timed.threads, 'thread')}, XNNPACK {'on' if timed.delegate else 'off'}."
        )
    notes.append("File and download (compressed) in bytes; bits: mean bits of a weight.")
    return *without_empty(header, rows), notes


def _row(model: ModelEvaluation, *, baseline: bool) -> list[str]:
    size, latency = model.size, model.latency
    same = model.sqnr is not None and model.sqnr.value is None
    return [
        model.name,
        number(model.score, 2),
        interval(model.difference, sign="+", unit=False),
        number(model.agreement, 2),
        "equal" if same else number(model.sqnr, 1),
        f"{size.file_bytes:,}" if size else "",
        f"{size.download_bytes:,}" if size else "",
        f"{size.weight_bits:.2f}" if size else "",
        f"{latency.p50_ms:.3f}" if latency else "",
        f"{latency.p90_ms:.3f}" if latency else "",
        "" if baseline or latency is None else interval(latency.ratio, unit=False),
    ]
