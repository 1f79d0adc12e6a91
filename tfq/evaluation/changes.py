"""Which classes a model gives where the baseline gives others, and for which samples.

    matrix[a][b]    how often the baseline's class is a (or the label) and the model's is b
    changed         samples whose class is not the baseline's; those that the model alone gets wrong come first

An output [n, ..., classes] gives a class at each place of a sample: the matrix counts places, and no samples are told.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.evaluation.metric import class_indices

_MOST_CLASSES, _MOST_SAMPLES, _MOST_PAIRS = 32, 24, 12

Matrix = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Change:
    """One sample of another class.

    Attributes:
      sample: its position among the samples of the evaluation.
      baseline, model: the class that each gives.
      label: what is right; None without labels.
    """

    sample: int
    baseline: int
    model: int
    label: int | None


@dataclasses.dataclass(frozen=True)
class Changes:
    """The classes of one model against those of the baseline.

    Attributes:
      count, total: classes that differ, of how many: samples, or places of all samples.
      by_baseline, by_label: rows the baseline's class or the label, columns the model's; None for more than 32 classes,
        and by_label where labels are no classes.
      pairs: the most frequent changes: (the baseline's class, the model's, how often).
      samples: of those that changed, at most 24.
    """

    count: int
    total: int
    by_baseline: Matrix | None
    by_label: Matrix | None
    pairs: tuple[tuple[int, int, int], ...]
    samples: tuple[Change, ...]


def class_changes(outputs: np.ndarray, baseline: np.ndarray, labels: np.ndarray | None) -> Changes:
    """Of class scores [n, ..., classes], or [n, 1] and [n] where one unit stands for two classes.

    Args:
      labels: class indices, one for each class that is given, or one-hot; others are left out.
    """
    classes = max(2, outputs.shape[-1]) if outputs.ndim > 1 else 2
    found, before = (class_indices(values, "agreement") for values in (outputs, baseline))
    right = _as_classes(labels, found, classes)
    differ = found != before
    pairs, counts = np.unique(np.stack([before[differ], found[differ]], 1), axis=0, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_PAIRS]
    return Changes(
        int(differ.sum()),
        found.size,
        _matrix(before, found, classes),
        None if right is None else _matrix(right, found, classes),
        tuple((int(pairs[i][0]), int(pairs[i][1]), int(counts[i])) for i in frequent),
        _samples(found, before, right) if found.size == len(found) else (),
    )


def _as_classes(labels: np.ndarray | None, found: np.ndarray, classes: int) -> np.ndarray | None:
    """Labels of the shape of `found`; None where they are no classes."""
    if labels is None:
        return None
    if labels.size == found.size * classes and labels.shape[-1] == classes:
        labels = labels.argmax(axis=-1)
    if labels.size != found.size or not ((labels >= 0) & (labels < classes) & (labels == np.rint(labels))).all():
        return None
    return labels.reshape(found.shape).astype(np.int64)


def _matrix(rows: np.ndarray, columns: np.ndarray, classes: int) -> Matrix | None:
    if classes > _MOST_CLASSES:
        return None
    counts = np.bincount((rows * classes + columns).ravel(), minlength=classes * classes)
    return tuple(map(tuple, counts.reshape(classes, classes).tolist()))


def _samples(found: np.ndarray, before: np.ndarray, right: np.ndarray | None) -> tuple[Change, ...]:
    found, before = found.ravel(), before.ravel()
    changed = np.flatnonzero(found != before)
    if right is not None:
        right = right.ravel()
        lost, gained = before[changed] == right[changed], found[changed] == right[changed]
        changed = changed[np.argsort(gained * 1 - lost, kind="stable")]
    return tuple(
        Change(int(i), int(before[i]), int(found[i]), None if right is None else int(right[i]))
        for i in changed[:_MOST_SAMPLES]
    )
