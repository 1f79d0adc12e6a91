"""Average precision of detections, as COCO has it: `map` over ten thresholds of overlap, `ap50` at one half.

For every class and threshold t:

    match      in each image, detections by falling score, the best 100: each takes the label, not taken before, that it
               overlaps most, by t or more; a crowd, which any number may take, only where there is no other
    precision  of the first k detections of all images: right ones / counted ones, then made falling from the last
    AP         mean over recall 0, 0.01, ..., 1 of the precision where that recall is first reached; 0 where it never is

    map        100 * mean of AP over the classes that have a label, and over t = 0.50, 0.55, ..., 0.95
    ap50       100 * mean of AP over these classes at t = 0.50

A detection is right by the weight of its label (`tfq.data.boxes`), and what lacks to 1 counts as wrong; one that
took a crowd does not count. Images weigh what the bootstrap gives them; matches do not depend on that.

Source: Lin et al. 2014 (COCO); equal to pycocotools' COCOeval (bbox, all areas, 100 detections of a class) to 1e-9,
which the tests show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfq.data.boxes import WIDTH, overlaps, with_weights
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import Predictions, labels_of

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST = 100  # detections of a class in an image
_SURE = 1 - 1e-10  # no overlap is asked to be larger
_RESAMPLES = 500


@dataclasses.dataclass(frozen=True, eq=False)
class _Class:
    """What was found of one class.

    Attributes:
      images: of the detections [d], by falling score.
      right: weight of the label that each took, by threshold [t, d].
      counted: 1 or, where it took a crowd, 0: [t, d].
      wanted: weights of the labels, by image [n].
    """

    images: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    wanted: np.ndarray

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """AP of each threshold by weights [b, n]: [b, t]; NaN where no label is left."""
        total = weights @ self.wanted
        found = np.zeros((len(weights), len(self.right)))
        if self.images.size:
            each = weights[:, self.images]
            for place, (right, counted) in enumerate(zip(self.right, self.counted, strict=True)):
                hits = np.cumsum(each * right, axis=1)
                among = hits / (np.cumsum(each * counted, axis=1) + np.spacing(1))
                falling = np.maximum.accumulate(among[:, ::-1], axis=1)[:, ::-1]
                with np.errstate(invalid="ignore", divide="ignore"):
                    reached = np.searchsorted(_RECALLS, hits / total[:, None], side="right")
                found[:, place] = (falling * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
        return np.where(total[:, None] > 0, found, np.nan)


def average_precision(name: str, thresholds: Sequence[float]) -> Callable[[Predictions], Statistic]:
    """The metric of this name over these thresholds."""

    def statistic(predictions: Predictions) -> Statistic:
        labels = _boxes_of(predictions, name)
        found = with_weights(
            predictions.outputs[0],
            f"the outputs that metric {name} judges",
            "; add `decoder`, which makes boxes of a detector's outputs",  # what one gives is boxes
        )
        classes = [_class(c, found, labels, thresholds) for c in np.unique(labels[..., 0]) if c >= 0]

        def of_weights(weights: np.ndarray) -> np.ndarray:
            if not classes:
                return np.full(len(weights), np.nan)
            each = np.stack([found.precision(weights).mean(axis=1) for found in classes])
            with np.errstate(invalid="ignore"):
                return 100.0 * np.nansum(each, axis=0) / np.isfinite(each).sum(axis=0)

        return Statistic(of_weights, resamples=_RESAMPLES)

    return statistic


def _boxes_of(predictions: Predictions, name: str) -> np.ndarray:
    labels = labels_of(predictions, name)
    if labels.dtype.kind in "iub" and labels.shape[-1] not in (WIDTH - 1, WIDTH):
        given, other = ("masks", "miou") if labels.ndim > 2 else ("classes", "top1")
        raise UserError(
            f"metric {name} needs boxes, and these labels are {given}, of shape {labels.shape}; give boxes, or use"
            f" `metric='{other}'`"
        )
    return with_weights(labels, "the labels")


def _class(number: float, detections: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]) -> _Class:
    images, scores, right, counted = [], [], [], []
    wanted = np.zeros(len(labels))
    for image, (found, true) in enumerate(zip(detections, labels, strict=True)):
        found, true = found[found[:, 0] == number], true[true[:, 0] == number]
        found = found[np.argsort(-found[:, 5], kind="stable")][:_MOST]
        wanted[image] = true[:, 5].sum()
        taken = _matched(found[:, 1:5], true, thresholds)
        images.append(np.full(len(found), image))
        scores.append(found[:, 5])
        # the weight of the label that was taken; none, of weight 0, comes last
        right.append(np.append(true[:, 5], 0.0)[taken])
        counted.append(np.append(true[:, 5] > 0, True)[taken])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _Class(
        np.concatenate(images)[order],
        np.concatenate(right, axis=1)[:, order],
        np.concatenate(counted, axis=1)[:, order].astype(np.float64),
        wanted,
    )


def _matched(boxes: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """The place of the label that each box takes, by threshold [t, k]; -1 for none."""
    found = np.full((len(thresholds), len(boxes)), -1)
    if not len(boxes) or not len(labels):
        return found
    crowd = labels[:, 5] == 0
    alike = overlaps(boxes, labels[:, 1:5], crowd)
    least = np.minimum(thresholds, _SURE)
    free = np.ones((len(thresholds), len(labels)), bool)
    rows, last = np.arange(len(thresholds)), len(labels) - 1
    for place in np.flatnonzero(alike.max(axis=1) >= least.min()):
        reaches = np.where(free & (alike[place] >= least[:, None]), alike[place], -1.0)
        for able in (np.where(crowd, -1.0, reaches), np.where(crowd, reaches, -1.0)):
            best = last - np.argmax(able[:, ::-1], axis=1)  # of equal ones the last
            takes = (able[rows, best] >= 0) & (found[:, place] < 0)
            found[takes, place] = best[takes]
            free[rows[takes], best[takes]] = crowd[best[takes]]
    return found
