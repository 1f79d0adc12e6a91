"""The five figures that a page begins with, and that runs are compared by: of a report.json, parsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfq.report import words
from tfq.report.estimates import ends, interval, number

NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Card:
    """One figure: what it is of, its value, and what it is measured against."""

    label: str
    value: str
    note: str


def cards(report: Mapping[str, Any]) -> tuple[Card, ...]:
    """Accuracy, agreement with float, download, latency and memory of the quantised model."""
    evaluation = report["evaluation"]
    float_model, model = evaluation["models"][0], evaluation["models"][-1]
    return (
        _accuracy(evaluation, float_model, model),
        _agreement(evaluation, model),
        _download(float_model, model),
        _latency(report, float_model, model),
        _memory(float_model, model),
    )


def _accuracy(evaluation: Mapping[str, Any], float_model: Mapping[str, Any], model: Mapping[str, Any]) -> Card:
    label = f"Accuracy, {evaluation['metric']}"
    if model["score"] is None:
        return Card(label, NOT_MEASURED, evaluation["omitted"])
    against = interval(model["difference"], sign="+")
    return Card(label, number(model["score"]), f"{against} against float's {number(float_model['score'])}")


def _agreement(evaluation: Mapping[str, Any], model: Mapping[str, Any]) -> Card:
    samples = words.counted(evaluation["samples"], "sample")
    if model["agreement"] is not None:
        note = f"{ends(model['agreement'])}: how often both give the same class, {samples}"
        return Card("Agreement with float", number(model["agreement"]), note)
    if number(model["sqnr"]):
        note = f"{ends(model['sqnr'], digits=1)}: how much larger the output is than its error, {samples}"
        return Card("Output SQNR", number(model["sqnr"], digits=1), note)
    return Card("Output", "equal" if model["sqnr"] else NOT_MEASURED, "in every bit" if model["sqnr"] else "")


def _download(float_model: Mapping[str, Any], model: Mapping[str, Any]) -> Card:
    size, before = model["size"], float_model["size"]
    if size is None or before is None:
        return Card("Download", NOT_MEASURED, model["simulated"])
    ratio = size["download_bytes"] / max(before["download_bytes"], 1)
    note = (
        f"{ratio:.2f} x float's {words.bytes_of(before['download_bytes'])}; file {words.bytes_of(size['file_bytes'])}"
    )
    return Card("Download", words.bytes_of(size["download_bytes"]), note)


def _latency(report: Mapping[str, Any], float_model: Mapping[str, Any], model: Mapping[str, Any]) -> Card:
    latency, before = model["latency"], float_model["latency"]
    if latency is None or before is None:
        return Card("Latency", NOT_MEASURED, model["simulated"])
    where = f"{report['machine']['cpu']}, {words.counted(latency['threads'], 'thread')}"
    note = f"{interval(latency['ratio'])} float's {words.milliseconds(before['p50_ms'])}; {where}"
    return Card("Latency", words.milliseconds(latency["p50_ms"]), note)


def _memory(float_model: Mapping[str, Any], model: Mapping[str, Any]) -> Card:
    size, before = model["size"], float_model["size"]
    if size is None or before is None:
        return Card("Memory", NOT_MEASURED, model["simulated"])
    whole, whole_before = (s["file_bytes"] + s["activation_bytes"] for s in (size, before))
    activations = words.bytes_of(size["activation_bytes"])
    note = f"{whole / max(whole_before, 1):.2f} x float's; file and {activations} of activations"
    return Card("Memory", words.bytes_of(whole), note)
