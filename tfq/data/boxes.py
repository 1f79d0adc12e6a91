"""Boxes as arrays: what labels of images are, what decoders give, and what is done with both.

A box is a row of six numbers:

    class, left, top, right, bottom, weight        class 0 is the first; the sides in shares of the image, 0..1

and those of several images are an array [n, most, 6], whose rows of class -1 fill up. The weight of a detection is its
score. That of a label is 1; 0 marks a crowd, in which whatever is found counts neither for nor against; between them
lies how likely the object is there. So the detections of one model can be the labels of another. Labels may lack the
weight: [n, most, 5].
"""

from __future__ import annotations

import numpy as np

from tfq.errors import UserError

WIDTH = 6
FILL = -1.0


def padded(images: list[np.ndarray]) -> np.ndarray:
    """Boxes [k, 6] of each image as one array [n, most, 6]."""
    found = np.full((len(images), max((len(rows) for rows in images), default=0), WIDTH), FILL)
    for place, rows in enumerate(images):
        found[place, : len(rows)] = rows
    return found


def are_boxes(labels: np.ndarray) -> bool:
    """Whether labels that should be classes are boxes: rows of a class and of sides, which are fractions."""
    if labels.ndim != 3 or labels.shape[2] not in (WIDTH - 1, WIDTH) or labels.dtype.kind != "f":
        return False
    return bool((labels[..., 0] == np.rint(labels[..., 0])).all() and (labels != np.rint(labels)).any())


def with_weights(labels: np.ndarray, what: str, remedy: str = "") -> np.ndarray:
    """Labels [n, most, 5 or 6] as [n, most, 6] float64.

    Raises UserError, which calls them `what` and ends with the remedy, for other arrays.
    """
    expected = f"[n, boxes, 5 or 6]: class, left, top, right, bottom in 0..1, and the weight where it is not 1{remedy}"
    if labels.ndim != 3 or labels.shape[2] not in (WIDTH - 1, WIDTH):
        raise UserError(f"{what} have the shape {labels.shape}; expected boxes {expected}")
    found = labels.astype(np.float64)
    if labels.shape[2] < WIDTH:
        found = np.concatenate([found, np.ones((*found.shape[:2], 1))], axis=2)
    real = found[found[..., 0] >= 0]
    broken = real[:, 0][real[:, 0] != np.rint(real[:, 0])]
    if broken.size:
        raise UserError(f"{what} hold a class of {broken[0]:g}; expected {expected}")
    turned = (real[:, 3] < real[:, 1]) | (real[:, 4] < real[:, 2])
    if turned.any():
        left, top, right, bottom = real[turned][0, 1:5]
        raise UserError(
            f"{what} hold a box from {left:g}, {top:g} to {right:g}, {bottom:g}, which ends before it begins; expected"
            f" {expected}"
        )
    return found


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of boxes [k, 4] and others [m, 4]: [k, m].

    crowd: which of the others [m] are one: intersection over the area of the box.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=2)
    area, other = (np.prod(found[:, 2:] - found[:, :2], axis=1) for found in (boxes, others))
    whole = area[:, None] + other[None] - shared
    if crowd is not None:
        whole = np.where(crowd[None], area[:, None], whole)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def kept_boxes(boxes: np.ndarray, limit: float) -> np.ndarray:
    """Non-maximum suppression: places of the boxes [k, 4], sorted best first, that none before overlaps by more."""
    left, kept = np.arange(len(boxes)), []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlaps(boxes[left[:1]], boxes[left[1:]])[0] <= limit]
    return np.array(kept, np.int64)
