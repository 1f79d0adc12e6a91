"""The results of the reconstruction benchmark, cell by cell: what was measured, when, by which command and code.

A full benchmark takes hours. So every cell is stored as soon as it is measured, a later run with another selection
adds its own, and the page is written from all that are there.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfq.errors import UserError
from tfq.execution.files import write_atomic


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """What a cell is about.

    Attributes:
      case: of `benchmarks.cases`.
      width: of weights and activations, as "W4A8".
      method: of `benchmarks.ablation`.
      samples: calibration samples.
      selection: "first" of the case's, or "random" ones drawn with the seed.
      seed: of the selection and of the method.
    """

    case: str
    width: str
    method: str
    samples: int
    selection: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Width:
    """Grid bits, as in `tfq.recipe.Recipe`."""

    weight_bits: int
    activation_bits: int = 8
    first_last_bits: int = 0


WIDTHS = {
    "W8A8": Width(8),
    "W6A8": Width(6),
    "W4A8": Width(4),
    "W3A8": Width(3),
    "W2A8": Width(2),
    "W4A4": Width(4, 4, 8),
}
METHODS = {
    "nearest": "nearest",
    "mse": "MSE scales",
    "bias_correction": "MSE scales, bias correction",
    "least_squares": "least squares, no gradients",
    "adaround": "AdaRound",
    "adaquant_parallel": "AdaQuant, parallel",
    "adaquant": "AdaQuant, sequential",
    "best": "best",
    "best_bn": "best + BN tuning",
    "best_bn_bias": "best + BN tuning + bias tuning",
    "light": "tfq --pipeline=light",
    "advanced": "tfq --pipeline=advanced",
    "tflite": "TFLiteConverter int8",
    "aeq": "ai-edge-quantizer, best of three",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured; scores are top-1 in percent, on the same `n` test samples as float.

    Attributes:
      float_score: of the float model.
      difference, low, high: points against float with the paired 95 % interval.
      agreement: percent of samples with the float model's class.
      seconds: that the method took, without loading, calibration, export and evaluation; of a whole pipeline all
        but the evaluation.
      n: test samples.
      note: what else is to be known, such as a stage that was rolled back; may be empty.
      divergence: mean divergence of the outputs from the float model's on the test inputs (`tfq.simulate.judge`);
        None of pipelines and peers.
    """

    float_score: float
    difference: float
    low: float
    high: float
    agreement: float
    seconds: float
    n: int
    note: str = ""
    divergence: float | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement, with the day, the command and the commit that made it; no commit where none was kept."""

    key: Key
    outcome: Outcome
    date: str
    command: str
    commit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """One flat row."""
        origin = {"date": self.date, "command": self.command, "commit": self.commit}
        return {**dataclasses.asdict(self.key), **dataclasses.asdict(self.outcome), **origin}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Cell:
        key, outcome = Key(**_fields(Key, row)), Outcome(**_fields(Outcome, row))
        return cls(key, outcome, row["date"], row["command"], row.get("commit", ""))


def _fields(kind: type[Key] | type[Outcome], row: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: row[field.name] for field in dataclasses.fields(kind) if field.name in row}


@dataclasses.dataclass
class Results:
    """All that a results file holds.

    Attributes:
      cells: by what they are about.
      runs: measurements of time, memory and size by name, plain JSON, each with its date, command and commit.
    """

    cells: dict[Key, Cell] = dataclasses.field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        """What the file holds; nothing where there is none. Raises UserError where it is another kind of file."""
        if not path.exists():
            return cls()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            cells = [Cell.from_dict(row) for row in found["cells"]]
            return cls({cell.key: cell for cell in cells}, dict(found["runs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not hold results of this benchmark; move it, or give --output") from error

    def figures(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"cells": [self.cells[s].to_dict() for s in sorted(self.cells)], "runs": self.runs}

    def select(self, **wanted: Any) -> list[Cell]:
        """The cells whose key has these values, in order."""
        return [
            self.cells[key]
            for key in sorted(self.cells)
            if all(getattr(key, name) == value for name, value in wanted.items())
        ]

    def over_seeds(
        self,
        case: str,
        width: str,
        method: str,
        *,
        selection: str,
        samples: int | None = None,
        beside: str | None = None,
    ) -> OverSeeds | None:
        """One entry of the tables.

        Args:
          case, width, method, selection: as in `Key`.
          samples: None: the largest number that the case was measured with.
          beside: another method, to be compared with: where both have several seeds, those that both have.
        """
        if samples is None:
            samples = max((cell.key.samples for cell in self.select(case=case, selection=selection)), default=0)
        same = {"case": case, "width": width, "selection": selection, "samples": samples}
        cells = self.select(method=method, **same)
        others = {cell.key.seed for cell in self.select(method=beside, **same)} if beside else set()
        if min(len(cells), len(others)) > 1:
            cells = [cell for cell in cells if cell.key.seed in others]
        return OverSeeds.of(cells)


def record(path: Path, *, cells: Sequence[Cell] = (), runs: Mapping[str, dict[str, Any]] | None = None) -> None:
    """Put measurements into the results file, in place of older ones of the same; several processes may do so."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # ends with the descriptor
        results = Results.read(path)
        results.cells |= {cell.key: cell for cell in cells}
        results.runs |= runs or {}
        text = json.dumps(results.figures(), indent=1, allow_nan=False) + "\n"
        write_atomic(path, text.encode())
    finally:
        os.close(folder)


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """Cells that differ in their seed alone, as one.

    Attributes:
      float_score, difference, low, high, agreement, seconds: means.
      divergence: mean; None where a seed lacks it.
      least, most: smallest and largest difference of a seed.
      seeds: how many.
    """

    float_score: float
    difference: float
    low: float
    high: float
    agreement: float
    seconds: float
    least: float
    most: float
    seeds: int
    divergence: float | None

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> OverSeeds | None:
        """None for no cells."""
        found = [cell.outcome for cell in cells]
        if not found:
            return None

        def mean(name: str) -> float:
            return sum(getattr(outcome, name) for outcome in found) / len(found)

        differences = [outcome.difference for outcome in found]
        divergences = [outcome.divergence for outcome in found if outcome.divergence is not None]
        return cls(
            **{n: mean(n) for n in ("float_score", "difference", "low", "high", "agreement", "seconds")},
            least=min(differences),
            most=max(differences),
            seeds=len(found),
            divergence=sum(divergences) / len(found) if len(divergences) == len(found) else None,
        )
