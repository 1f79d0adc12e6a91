"""How one file compares with float, and figures that are kept one by one: what smaller benchmarks share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tfq.evaluation.evaluate import Evaluation
from tfq.execution.files import write_atomic

HEADER = ("top-1 less float", "agreement", "output SQNR", "download")
_Kind = TypeVar("_Kind", bound="Figures")


@dataclasses.dataclass(frozen=True)
class Figures:
    """A file on test data.

    Attributes:
      case: of `benchmarks.cases`.
      samples: of the test.
      float_score, score, agreement: in percent.
      difference: score less float's with its 95 % interval, in points.
      sqnr: of the outputs against float, in dB.
      download_bytes, file_bytes: of the .tflite.
      commit: of the code that measured.
    """

    case: str
    samples: int
    float_score: float
    score: float
    difference: tuple[float, float, float]
    agreement: float
    sqnr: float
    download_bytes: int
    file_bytes: int
    commit: str

    def cells(self) -> list[str]:
        """Of a table, by `HEADER`."""
        value, low, high = self.difference
        return [
            f"{value:+.2f} [{low:+.2f}, {high:+.2f}]",
            f"{self.agreement:.2f} %",
            f"{self.sqnr:.1f} dB",
            f"{self.download_bytes:,}",
        ]


def compared(evaluation: Evaluation) -> dict[str, Any]:
    """Fields of `Figures` from an evaluation of float and one other model, with labels."""
    base, found = evaluation.models
    size, lost = found.size, found.difference
    assert size is not None
    assert lost is not None
    values = {"float_score": base.score, "score": found.score, "agreement": found.agreement, "sqnr": found.sqnr}
    return {
        "samples": evaluation.samples,
        **{name: estimate.value for name, estimate in values.items() if estimate is not None},
        "difference": (lost.value, lost.low, lost.high),
        "download_bytes": size.download_bytes,
        "file_bytes": size.file_bytes,
    }


def kept(file: Path, kind: type[_Kind]) -> list[_Kind]:
    """What an earlier run has left in the file."""
    if not file.is_file():
        return []
    return [kind(**cell) for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]]


def as_kept(where: Mapping[str, Any], cells: Iterable[Figures]) -> dict[str, Any]:
    """The content of the file."""
    return {**where, "cells": [dataclasses.asdict(cell) for cell in cells]}


def keep(file: Path, where: Mapping[str, Any], cells: Iterable[Figures]) -> None:
    """Write them, whole or not at all."""
    write_atomic(file, (json.dumps(as_kept(where, cells), indent=1) + "\n").encode())
