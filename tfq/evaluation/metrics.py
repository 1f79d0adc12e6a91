"""The metrics by name: scores of a model's outputs, each with its equation in the file that holds it.

    classes       top1, top5, f1, matthews, token_accuracy, exact_match      `tfq.evaluation.classes`
    pairs         auc, eer, recall1, recall5                                 `tfq.evaluation.pairs`
    values        mse, sqnr, cosine, psnr, ssim, pck, pearson, spearman      `tfq.evaluation.signals`
    boxes         map, ap50                                                  `tfq.evaluation.detection`
    class maps    miou, pixel_accuracy                                       `tfq.evaluation.segmentation`
    the user's    module:function                                            `tfq.evaluation.own_metric`

Every metric turns `Predictions` into a `Statistic`: a function of the samples' weights, so that the bootstrap can
resample single samples and whole sets alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeAlias

from tfq.data.functions import import_option
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.classes import exact_match, f1, matthews, token_accuracy, top
from tfq.evaluation.decoders import find_decoder
from tfq.evaluation.detection import THRESHOLDS, average_precision
from tfq.evaluation.metric import Metric, Predictions, class_stand_in, output_stand_in, places_of
from tfq.evaluation.own_metric import UserMetric, user_metric
from tfq.evaluation.pairs import auc, eer, recall
from tfq.evaluation.segmentation import miou, pixel_accuracy
from tfq.evaluation.signals import cosine, mse, pck, pearson, psnr, spearman, sqnr, ssim

Wanted: TypeAlias = "str | UserMetric | Metric"
"""What `find_metric` takes."""


def find_metric(metric: Wanted, *, outputs: Sequence[str] = (), decoder: str = "", for_file: bool = False) -> Metric:
    """The metric of this name, or the user's own: a function, or "module:function".

    The function takes (outputs, labels) or (outputs, labels, inputs): the output [n, ...] (a tuple where
    the model has several), the labels (None without), the inputs by name. It returns a score for each
    sample [n], which is averaged, or one number. Modules are found as Python finds them, and in the
    working directory.

    Args:
      metric: the name or the function; one that was found is given back.
      outputs: names of the outputs that are judged, in this order; empty for all.
      decoder: makes boxes of them (`tfq.evaluation.decoders`), which then are the only output.
      for_file: the decoder is meant for a file too, and a metric that reads no boxes does without it.

    Raises UserError for an unknown name, an output named twice, and a decoder that the metric does not read.
    """
    found = _named(metric)
    twice = next((name for place, name in enumerate(outputs) if name in outputs[:place]), None)
    if twice is not None:
        raise UserError(f"`outputs` names {twice!r} twice; name each output once")
    if for_file and not found.reads_boxes:
        outputs, decoder = (), ""
    if not outputs and not decoder:
        return found
    if decoder and not found.reads_boxes:
        raise UserError(f"metric {found.name} reads no boxes, which `decoder` makes; use map, ap50 or your own")
    decode = find_decoder(decoder) if decoder else None

    def judged(predictions: Predictions) -> Predictions:
        names = predictions.names
        places = places_of(outputs, names) if outputs else range(len(predictions.outputs))
        seen = dataclasses.replace(
            predictions,
            outputs=tuple(predictions.outputs[place] for place in places),
            baseline=tuple(predictions.baseline[place] for place in places),
            names=tuple(names[place] for place in places) if names else (),
        )
        return seen if decode is None else dataclasses.replace(seen, outputs=(decode(seen),), names=())

    def statistic(predictions: Predictions) -> Statistic:
        return found.statistic(judged(predictions))

    stand_in = found.stand_in
    return dataclasses.replace(
        found,
        statistic=statistic,
        stand_in=None if stand_in is None else lambda predictions: stand_in(judged(predictions)),
        outputs=tuple(outputs),
    )


def _named(metric: Wanted) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        if callable(metric):
            return user_metric(metric, getattr(metric, "__name__", type(metric).__name__))
        raise UserError(f"`metric` is of type {type(metric).__name__}; expected a name or a function")
    if metric in METRICS:
        return METRICS[metric]
    if ":" in metric:
        return user_metric(import_option("metric", metric), metric)
    raise UserError(f"`metric` is {metric!r}; it must be one of {', '.join(METRICS)}, or module:function")


_Against = functools.partial(Metric, stand_in=output_stand_in)  # labels or the baseline's outputs
_Labelled = functools.partial(_Against, needs_labels=True)
_Classes = functools.partial(Metric, needs_labels=True, classifies=True, stand_in=class_stand_in)
_Boxes = functools.partial(_Labelled, reads_boxes=True)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _Classes("top1", "%", True, top(1)),
        _Classes("top5", "%", True, top(5)),
        Metric("auc", "", True, auc, needs_labels=True),
        _Classes("f1", "%", True, f1),
        _Against("mse", "", False, mse),
        _Against("sqnr", "dB", True, sqnr),
        _Against("cosine", "", True, cosine),
        _Classes("matthews", "", True, matthews),
        _Classes("token_accuracy", "%", True, token_accuracy),
        _Classes("exact_match", "%", True, exact_match),
        _Boxes("map", "%", True, average_precision("map", THRESHOLDS)),
        _Boxes("ap50", "%", True, average_precision("ap50", THRESHOLDS[:1])),
        _Classes("miou", "%", True, miou),
        _Classes("pixel_accuracy", "%", True, pixel_accuracy),
        _Against("psnr", "dB", True, psnr),
        _Against("ssim", "", True, ssim),
        _Labelled("pck", "%", True, pck),
        _Labelled("pearson", "", True, pearson),
        _Labelled("spearman", "", True, spearman),
        Metric("recall1", "%", True, recall(1), needs_labels=True),
        Metric("recall5", "%", True, recall(5), needs_labels=True),
        Metric("eer", "", False, eer, needs_labels=True),
    )
}
