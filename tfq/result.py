"""What a run gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfq.errors import UserError
from tfq.execution.files import Saved
from tfq.report.summary import comparison, summary
from tfq.report.table import html_table

if TYPE_CHECKING:
    from tfq.report.report import Report


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Result(Saved):
    """The files of a run and what was measured.

    Attributes:
      files: content by name: model.tflite, HOWTO.md, float.tflite, spec.json, report.json, report.html and recipe.json;
        with `package='gzip'` model.tflite.gz too, and what `nms`, `model_card` and `model_explorer` ask for. Without
        the first two where activations have fewer than 8 bits.
      report: every measurement; report.json holds the same.
    """

    files: Mapping[str, bytes]
    report: Report

    @property
    def tflite(self) -> bytes:
        """The quantised model. Raises UserError where there is a simulation only."""
        if "model.tflite" not in self.files:
            raise UserError(
                f"there is no model.tflite: {self.report.recipe.simulated}; the report says what it would do"
            )
        return self.files["model.tflite"]

    @property
    def models(self) -> dict[str, bytes]:
        """The float model and the quantised one by the names of the report, as `tfq.evaluate` takes them."""
        return {"float": self.files["float.tflite"], self.report.evaluation.models[-1].name: self.tflite}

    def __str__(self) -> str:
        return summary(self.report)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(content):,} bytes" for name, content in self.files.items())
        return f"Result({sizes})"

    def _repr_html_(self) -> str:
        header, rows, notes = comparison(self.report)
        return html_table(header, rows, notes=" ".join(notes))
