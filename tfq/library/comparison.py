"""`tfq.evaluate`: .tflite files side by side. It does not need TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from tfq.data.loading import Selection, load_samples
from tfq.data.location import check_sources
from tfq.data.objects import Data, given
from tfq.errors import UserError
from tfq.evaluation import evaluate as evaluation
from tfq.evaluation import latency
from tfq.evaluation.metrics import find_metric
from tfq.evaluation.names import Tflite, by_name
from tfq.evaluation.own_metric import UserMetric
from tfq.execution.progress import Progress, shown
from tfq.execution.resources import Resources
from tfq.options import check_names
from tfq.report.summary import evaluation_table
from tfq.report.table import format_table, html_table

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Details(TypedDict, total=False):
    """How outputs are read, and how latency is measured.

    `outputs`, `decoder` and `annotations` are those of a `Recipe`. latency_runs: timed invocations of each model at the
    least (48, none for 0). threads: of one invocation (1). xnnpack: whether it runs the model, as on a device (True).
    """

    outputs: Sequence[str]
    decoder: str
    annotations: str | os.PathLike[str]
    latency_runs: int
    threads: int
    xnnpack: bool


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(evaluation.Evaluation):
    """What was measured of several models on the same samples; the fields are those of `Evaluation`."""

    def __repr__(self) -> str:
        header, rows, notes = evaluation_table(self)
        return "\n".join([format_table(header, rows), "", *notes])

    def _repr_html_(self) -> str:
        header, rows, notes = evaluation_table(self)
        return html_table(header, rows, notes=" ".join(notes))


def evaluate(
    models: Tflite | Sequence[Tflite] | Mapping[str, Tflite],
    data: Data,
    *,
    metric: str | UserMetric = "top1",
    preprocess: str = "none",
    num_samples: int = 0,
    seed: int = 0,
    progress: Progress | bool = False,
    **details: Unpack[Details],
) -> Comparison:
    """Measure .tflite models side by side on the same samples: score, agreement with the first, size and latency.

        tfq.evaluate(result.models, (x_test, y_test))

    Args:
      models: paths or contents of .tflite files, by the names of the table or in a list; the first is the baseline.
      data: the samples, as `quantize` takes them; for a score (x, y).
      metric: a name (`tfq.evaluation.metrics`), or your own function of (outputs, labels) or (outputs, labels, inputs),
        itself or as "module:function".
      preprocess: scaling of images in 0..255: none, zero_one, minus_one_one, imagenet or raw.
      num_samples: take the first samples only; 0 for all of them.
      seed: of the bootstrap intervals.
      progress: True shows it on standard error.
      details: `Details`.

    Raises:
      UserError: anything the caller can put right.
    """
    check_names(details, Details.__annotations__)
    latency_runs, threads = details.get("latency_runs", 48), details.get("threads", 1)
    bounded = {"num_samples": num_samples, "latency_runs": latency_runs, "threads": threads}
    for name, value in bounded.items():
        if value < (least := int(name == "threads")):
            raise UserError(f"`{name}` is {value}; it must be at least {least}")
    annotations, source = details.get("annotations", ""), given(data, "the data")
    check_sources(source, annotations=annotations)
    named, resources = by_name(models), Resources(progress=shown(progress))
    # a misspelt one is told before the data is read
    judge = find_metric(metric, outputs=details.get("outputs", ()), decoder=details.get("decoder", ""))
    signatures = [evaluation.input_signatures(model) for model in named.values()]  # all files are opened before it is
    samples = load_samples(
        source,
        signatures[0],
        Selection(num_samples or None),
        preprocess=preprocess,
        annotations=annotations,
        resources=resources,
    )
    evaluation.check_metric(judge, samples, *evaluation.few_outputs(next(iter(named.values())), samples))
    found = evaluation.evaluate(
        named,
        samples,
        metric=judge,
        seed=seed,
        timing=latency.Timing(latency_runs, threads=threads) if latency_runs else None,
        delegate=details.get("xnnpack", True),
        resources=resources,
    )
    return Comparison(**vars(found))
