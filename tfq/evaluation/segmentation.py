"""Scores of class maps: outputs [n, h, w, classes], or [n, h, w, 1] of two classes, against masks [n, H, W].

    miou            100 * mean over classes of I / (P + L - I): pixels of the class in both, in the prediction and in
                    the mask; of the classes that occur in either
    pixel_accuracy  100 * right pixels / pixels with a label

All samples' pixels count together, as in PASCAL VOC. A prediction of another size than its mask is enlarged to it: each
pixel has the class of the nearest. Pixels of the mask have no label where it is below 0, or 255 where the model has no
such class.
"""

from __future__ import annotations

import numpy as np

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.evaluation.metric import (
    Predictions,
    check_no_boxes,
    class_count,
    class_indices,
    class_labels,
    labels_of,
    ratio_of,
)


def miou(predictions: Predictions) -> Statistic:
    predicted, labels, classes = _maps(predictions, "miou")
    both, either = np.zeros((2, len(labels), classes))
    for i, (guess, mask) in enumerate(zip(predicted, labels, strict=True)):
        counted = mask >= 0
        guess, mask = guess[counted], mask[counted]
        both[i] = np.bincount(mask[guess == mask], minlength=classes)
        either[i] = np.bincount(guess, minlength=classes) + np.bincount(mask, minlength=classes) - both[i]

    def of_weights(weights: np.ndarray) -> np.ndarray:
        shared, covered = weights @ both, weights @ either
        each = np.divide(shared, covered, out=np.zeros_like(shared), where=covered > 0)
        with np.errstate(invalid="ignore"):
            return 100.0 * each.sum(axis=1) / (covered > 0).sum(axis=1)

    return Statistic(of_weights)


def pixel_accuracy(predictions: Predictions) -> Statistic:
    predicted, labels, _ = _maps(predictions, "pixel_accuracy")
    predicted, labels = (values.reshape(len(values), -1) for values in (predicted, labels))
    return ratio_of(100.0 * (predicted == labels).sum(1), (labels >= 0).sum(1))


def _maps(predictions: Predictions, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(predicted classes, classes of the masks, both [n, H, W]; how many classes there are)."""
    outputs, labels = predictions.outputs[0], labels_of(predictions, name)
    check_no_boxes(labels, name, "masks")
    if outputs.ndim != 4:
        raise UserError(f"metric {name} needs an output (height, width, classes); this one has {outputs.shape[1:]}")
    predicted, classes = class_indices(outputs, name), class_count(outputs)
    if labels.ndim == 4 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim == 3 and labels.shape != predicted.shape:
        predicted = _resized(predicted, *labels.shape[1:])
    shaped = np.broadcast_to(np.float32(0), (*predicted.shape, classes))
    return predicted, class_labels(labels, shaped, name, masked=True), classes


def _resized(classes: np.ndarray, height: int, width: int) -> np.ndarray:
    """[n, h, w] -> [n, height, width]: the class of the nearest pixel, at half-pixel centres."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)
        for wanted, size in ((height, classes.shape[1]), (width, classes.shape[2]))
    )
    return classes[:, rows][:, :, columns]
