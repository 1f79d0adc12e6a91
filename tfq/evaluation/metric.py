"""What a metric is: a function of predictions, written over sample weights; and what all metrics share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfq.data.boxes import are_boxes
from tfq.errors import UserError
from tfq.evaluation.bootstrap import Statistic
from tfq.execution.views import Arrays

_VOID = 255  # what masks of images mark pixels of no class by


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a metric judges.

    Attributes:
      outputs: of the model, [n, ...] float32 each; the built-in metrics judge the first.
      labels: [n] or [n, ...]; None without.
      inputs: [n, ...] by input name, in real values.
      baseline: outputs of the baseline model on the same samples.
      names: of the outputs; may be empty where no output is asked for by name.
    """

    outputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    inputs: Arrays
    baseline: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
      name: as the user writes it.
      unit: of the score: "%", "dB" or "".
      higher_is_better: None where only the user knows.
      statistic: makes the score of one model's predictions.
      needs_labels: it is undefined without labels.
      classifies: its outputs are class scores, so that the agreement of classes means something.
      stand_in: labels [n, ...] made of the float model's predictions, for estimates without labels; None where these
        cannot tell.
      reads_boxes: it judges detections (`tfq.data.boxes`), which a decoder makes of other outputs.
      outputs: names of the outputs that are judged, in this order; empty for all.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    statistic: Callable[[Predictions], Statistic]
    needs_labels: bool = False
    classifies: bool = False
    stand_in: Callable[[Predictions], np.ndarray] | None = None
    reads_boxes: bool = False
    outputs: tuple[str, ...] = ()

    def first(self, names: Sequence[str]) -> int:
        """The place of the output that is judged, or of the first of them, among outputs of these names."""
        return places_of(self.outputs, names)[0] if self.outputs else 0


def places_of(outputs: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Where these outputs are among all. Raises UserError for one that is not there."""
    missing = [name for name in outputs if name not in names]
    if missing:
        raise UserError(f"`outputs` names {missing[0]!r}; the model's outputs are {', '.join(names)}")
    return tuple(names.index(name) for name in outputs)


def mean_of(scores: np.ndarray, counted: np.ndarray | None = None) -> Statistic:
    """The weighted mean of scores [n]; of those `counted` (as numbers [n]) only, undefined where none is."""
    scores = scores.astype(np.float64)
    if counted is None:
        return Statistic(lambda weights: weights @ scores / weights.sum(axis=1))
    return ratio_of(scores * counted, counted.astype(np.float64))


def ratio_of(parts: np.ndarray, wholes: np.ndarray) -> Statistic:
    """Weighted sum of `parts` [n] by that of `wholes` [n]; undefined where that is 0."""

    def of_weights(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return weights @ parts / (weights @ wholes)

    return Statistic(of_weights)


def per_sample(values: np.ndarray) -> np.ndarray:
    """[n, ...] -> [n]: the mean over all axes but the first."""
    return values.reshape(len(values), -1).mean(axis=1)


def labels_of(predictions: Predictions, name: str) -> np.ndarray:
    """The labels. Raises UserError where there are none."""
    if predictions.labels is None:
        raise UserError(f"metric {name} needs labels, and the data has none; give them as the array 'y'")
    return predictions.labels


def target_of(predictions: Predictions) -> np.ndarray:
    """What the output should be: the labels where there is one for each of its elements, else the baseline's output."""
    outputs, labels = predictions.outputs[0], predictions.labels
    return predictions.baseline[0] if labels is None or labels.size != outputs.size else labels.reshape(outputs.shape)


def check_no_boxes(labels: np.ndarray, name: str, needed: str) -> None:
    """Raises UserError for boxes where the metric of this name needs labels of another kind, `needed`."""
    if are_boxes(labels):
        raise UserError(
            f"metric {name} needs {needed}, and these labels are boxes; add `metric='map'` and the `decoder` of the"
            f" model, or give {needed}"
        )


def class_count(outputs: np.ndarray) -> int:
    """How many classes outputs [n, ..., classes] tell apart; a single unit stands for two."""
    return max(2, outputs.shape[-1]) if outputs.ndim > 1 else 2


def class_indices(outputs: np.ndarray, name: str) -> np.ndarray:
    """[n, ...] predicted classes: the largest of the last axis, or of one unit whether it exceeds 0.5."""
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        if outputs.size and (outputs.min() < 0 or outputs.max() > 1):
            raise UserError(
                f"metric {name} takes a single output unit as a probability, but it reaches {outputs.min():.4g} to"
                f" {outputs.max():.4g}; use module:function as the metric"
            )
        return (outputs.reshape(outputs.shape[0], *outputs.shape[1:-1]) > 0.5).astype(np.int64)
    return outputs.argmax(axis=-1)


def class_labels(labels: np.ndarray, outputs: np.ndarray, name: str, *, masked: bool = False) -> np.ndarray:
    """Labels as class indices of the shape of the predicted classes; one-hot rows are understood.

    masked: labels below 0, and 255 where the model has no such class, stand for places that do not count; -1 in what
    is returned.
    """
    check_no_boxes(labels, name, "classes")
    expected = outputs.shape[:-1] if outputs.ndim > 1 else outputs.shape
    classes = class_count(outputs)
    if labels.shape == outputs.shape and outputs.ndim > 1 and classes == outputs.shape[-1]:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all()):
            raise UserError(f"metric {name} needs class indices or one-hot labels; these are neither")
        return labels.argmax(axis=-1)
    if labels.shape == (*expected, 1):
        labels = labels[..., 0]
    if labels.shape != expected:
        raise UserError(f"metric {name} needs labels of shape {expected} for this output, got {labels.shape}")
    if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.rint(labels)):
        raise UserError(f"metric {name} needs class indices as labels; these hold fractions")
    labels = labels.astype(np.int64)
    if masked:
        labels = np.where((labels < 0) | ((labels == _VOID) & (classes <= _VOID)), -1, labels)
    if labels.size and not (-1 if masked else 0) <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"metric {name}: the labels reach {labels.min()} to {labels.max()}, the model has {classes} classes"
            " (0 is the first)"
        )
    return labels


def class_stand_in(predictions: Predictions) -> np.ndarray:
    """The classes that the float model gives."""
    return class_indices(predictions.outputs[0], "of classes")


def output_stand_in(predictions: Predictions) -> np.ndarray:
    """What the float model gives."""
    return predictions.outputs[0]
