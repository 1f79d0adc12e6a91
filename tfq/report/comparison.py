"""Runs of tfq-quantize side by side, of their report.json, parsed: the figures that a page begins with, and layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfq.report import words
from tfq.report.cards import NOT_MEASURED, Card, cards
from tfq.report.devices import drawn, read_report
from tfq.report.network import LEGENDS, TITLES, bits_level, bits_of, error_level
from tfq.report.page import render
from tfq.report.table import decibel, format_table
from tfq.report.words import Spelling

_APART = 3.0  # dB: an error of 1.4 times as much


@dataclasses.dataclass(frozen=True)
class Strip:
    """The layers of one run as a row of coloured boxes: (name, level by colouring); and what they are, in words."""

    boxes: tuple[tuple[str, Mapping[str, int]], ...]
    told: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side; every row has a cell for each run.

    Attributes:
      runs: their names.
      models: what each made, such as "W4A8".
      verdicts: of each.
      notes: why figures of different runs are not of the same thing, as sentences.
      figures: cards by label; a run that measured another thing in its place says so.
      strips: of each, from the first layer to the last.
      layers: (name, cells) of layers whose precision differs, or whose own error does by 3 dB or more.
      options: (name, cells) of options that differ.
    """

    runs: tuple[str, ...]
    models: tuple[str, ...]
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]
    figures: tuple[tuple[str, tuple[Card, ...]], ...]
    strips: tuple[Strip, ...]
    layers: tuple[tuple[str, tuple[str, ...]], ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]


def read_runs(directories: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The reports of these output directories, by their names; by their paths where two have the same name.

    Raises UserError where one has no report, or one that cannot be shown.
    """
    names = [directory.resolve().name for directory in directories]
    found = {}
    for name, directory in zip(names, directories, strict=True):
        report = read_report(directory)
        with drawn(report, directory / "report.json"):
            compare({name: report})
        found[name if names.count(name) == 1 else str(directory)] = report
    return found


def compare(reports: Mapping[str, Mapping[str, Any]]) -> Comparison:
    """The reports of runs, by what the runs are to be called."""
    found = list(reports.values())
    names = dict.fromkeys(option for report in found for option in report["recipe"])
    options = ((name, tuple(words.setting(report["recipe"].get(name)) for report in found)) for name in names)
    return Comparison(
        tuple(reports),
        tuple(report["evaluation"]["models"][-1]["name"] for report in found),
        tuple(report["verdict"] for report in found),
        tuple(_notes(reports)),
        tuple(row for place in zip(*map(cards, found), strict=True) for row in _rows(place)),
        tuple(map(_strip, found)),
        _differing(found),
        tuple((name, cells) for name, cells in options if len(set(cells)) > 1),
    )


def comparison_page(found: Comparison, spelled: Spelling = str) -> str:
    """As one HTML page."""
    return render("comparison.html", found=found, legends=LEGENDS, titles=TITLES, spelled=spelled)


def comparison_table(found: Comparison) -> str:
    """The figures for the terminal."""
    rows = [["model", *found.models], *([label, *(card.value for card in row)] for label, row in found.figures)]
    return "\n\n".join([format_table(["", *found.runs], rows), *found.notes])


def _rows(place: Sequence[Card]) -> Iterator[tuple[str, tuple[Card, ...]]]:
    """The cards at one place of all runs, in a row for every label: what two metrics measure does not compare."""
    for label in dict.fromkeys(card.label for card in place):
        yield label, tuple(card if card.label == label else Card(label, NOT_MEASURED, "") for card in place)


def _notes(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    models = {
        name: f"{report['model']['name']} with {words.counted(report['model']['parameters'], 'parameter')}"
        for name, report in reports.items()
    }
    samples = {name: words.counted(report["evaluation"]["samples"], "sample") for name, report in reports.items()}
    for what, told in (("are of different models", models), ("were measured on different samples", samples)):
        if len(set(told.values())) > 1:
            each = "; ".join(f"{name}: {text}" for name, text in told.items())
            yield f"The runs {what}, so that their figures do not compare. {each}."


def _strip(report: Mapping[str, Any]) -> Strip:
    boxes, counts = [], dict.fromkeys(LEGENDS["bits"], 0)
    for layer in report["layers"]:
        bits, own = bits_of(layer), layer["own_sqnr_db"]
        levels = {} if bits is None else {"bits": bits_level(bits)}
        if bits is not None:
            counts[LEGENDS["bits"][levels["bits"]]] += 1
        if own is not None:
            levels["error"] = error_level(own)
        boxes.append((layer["name"], levels))
    told = ", ".join(f"{words.counted(count, 'layer')} of {what}" for what, count in counts.items() if count)
    return Strip(tuple(boxes), told)


def _differing(reports: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    by_name = [{layer["name"]: layer for layer in report["layers"]} for report in reports]
    found = []
    for name in dict.fromkeys(name for layers in by_name for name in layers):
        layers = [each.get(name) for each in by_name]
        precisions = [layer and (layer["precision"], bits_of(layer)) for layer in layers]
        errors = [layer["own_sqnr_db"] for layer in layers if layer and layer["own_sqnr_db"] is not None]
        if len(set(precisions)) > 1 or (errors and max(errors) - min(errors) >= _APART):
            found.append((name, tuple(map(_told, layers))))
    return tuple(found)


def _told(layer: Mapping[str, Any] | None) -> str:
    if layer is None:
        return "not there"
    bits = bits_of(layer)
    weights = f", {words.counted(bits, 'bit')}" if bits is not None and bits <= 8 else ""
    error = f", {decibel(layer['own_sqnr_db'])}" if layer["own_sqnr_db"] is not None else ""
    return f"{words.precision(layer['precision'], layer['weight_bits'])}{weights}{error}"
