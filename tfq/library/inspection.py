"""`tfq.inspect`: a .tflite operation by operation."""

from __future__ import annotations

import dataclasses
import re

from tfq.data.loading import Selection, load_samples
from tfq.data.objects import Data, given
from tfq.errors import UserError
from tfq.evaluation.evaluate import input_signatures
from tfq.evaluation.inspection import Operation, compare_operations, operations
from tfq.evaluation.names import Tflite, tflite
from tfq.execution.tflite import read_content
from tfq.report.layers import operation_table
from tfq.report.table import format_table, html_table


@dataclasses.dataclass(frozen=True, repr=False)
class Inspection:
    """The operations of a .tflite, in order of execution."""

    operations: tuple[Operation, ...]

    def table(self, layers: str | re.Pattern[str] = "", *, sort: str = "order") -> str:
        """As text: the operations whose names match the regular expression, in "order" or the worst "error" first."""
        header, rows = operation_table(self.operations, re.compile(layers), sort)
        return format_table(header, rows, left=4)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table(*operation_table(self.operations, re.compile(""), "order"))


def inspect(
    model: Tflite,
    *,
    float_model: Tflite | None = None,
    data: Data | None = None,
    preprocess: str = "none",
    num_samples: int = 8,
) -> Inspection:
    """The operations of a .tflite: types, shapes, grids, and their error against a float .tflite.

    Args:
      model: path or content of the file.
      float_model: to take the error of each operation against, on `data`.
      data: inputs of the float model, as `quantize` takes them.
      preprocess: as in `evaluate`.
      num_samples: how many of `data` are run; a few suffice.

    Raises:
      UserError: a broken file, or data that do not fit it.
    """
    if (float_model is None) != (data is None):
        raise UserError("`float_model` and `data` go together; give both, or leave both out")
    content = read_content(tflite(model))
    if float_model is None or data is None:
        return Inspection(operations(content))
    float_content = read_content(tflite(float_model))
    signatures = input_signatures(float_content)
    samples = load_samples(given(data, "the data"), signatures, Selection(num_samples), preprocess=preprocess)
    return Inspection(compare_operations(content, float_content, samples.read()))
