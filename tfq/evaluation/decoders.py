"""From a detector's outputs to boxes (`tfq.data.boxes`): one row a decoder.

    yolo              [n, cells, 5 + classes] or [n, h, w, 5 + classes]: centre x, y, width, height, objectness,
                      classes; score = objectness * class. YOLO v5 and v7 as they are exported
    yolov8            the same without objectness. Either may have the last two axes swapped, and may be several
                      outputs: boxes, objectness (of yolo, in one with the boxes or apart), classes. Boxes are in
                      shares of the image, or in pixels where they reach beyond 2
    fastestdet        [n, h, w, 5 + classes]: objectness o, box b, class probabilities c; x = (tanh(b0) + column) / w,
                      y = (tanh(b1) + row) / h, width and height sigmoid(b2), sigmoid(b3);
                      score = o^0.6 * c^0.4 of the best class
    ssd               [n, k, 4]: (dy, dx, dh, dw) by anchors (cy, cx, h, w) of a file [k, 4] in shares of the image,
                      y = dy / 10 * h + cy, height = exp(dh / 5) * h; and [n, k, 1 + classes], the first the background
    centernet         heat map [n, h, w, classes], width and height [n, h, w, 2] and offsets (x, y) [n, h, w, 2] in
                      cells; the peaks of 3 x 3 cells
    tflite_detection  boxes [n, k, 4] (top, left, bottom, right), classes [n, k], scores [n, k] and count [n], as
                      TFLite_Detection_PostProcess gives them

Class scores that leave 0..1 go through a sigmoid first. What scores at least `score` is kept; of boxes of a class that
overlap by more than `nms` the best (not of the last two, which have no doubles); `most` of an image. A number is given
after the name: "yolo,nms=0.5,score=0.001", "ssd,anchors=anchors.npy".

Source: github.com/ultralytics/yolov5, dog-qiuqiu/FastestDet, TensorFlow's object detection API, Zhou et al. 2019.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tfq.data.boxes import WIDTH, kept_boxes, padded, with_weights
from tfq.data.functions import import_option
from tfq.errors import UserError, described
from tfq.evaluation.metric import Predictions
from tfq.execution.inputs import check_regular

_CANDIDATES = 1000  # of an image, before doubles are taken out
_PIXELS = 2.0  # no box in shares of an image reaches beyond
ANCHOR_SCALES = (10.0, 10.0, 5.0, 5.0)
"""By which the codes (y, x, h, w) of an SSD are divided."""

Found: TypeAlias = Iterator[tuple[np.ndarray, np.ndarray]]
"""Of each image: boxes [k, 4] (left, top, right, bottom), and their scores [k, classes]."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is kept of what a decoder finds.

    Attributes:
      score: the least score.
      nms: the largest overlap of two boxes of a class.
      most: boxes of an image.
      anchors: file of an SSD's.
    """

    score: float = 0.01
    nms: float = 0.45
    most: int = 300
    anchors: str = ""

    def __post_init__(self) -> None:
        for name in ("score", "nms"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"`decoder` has {name}={getattr(self, name):g}; it must lie in 0..1")
        if self.most < 1:
            raise UserError(f"`decoder` has most={self.most}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A decoder: its outputs (predictions, settings) -> what is found, and whether it finds an object several times."""

    find: Callable[[Predictions, Settings], Found]
    doubles: bool = True


_SETTINGS: dict[str, Callable[[str], Any]] = {"score": float, "nms": float, "most": int, "anchors": str}


def find_decoder(decoder: str) -> Callable[[Predictions], np.ndarray]:
    """Predictions -> boxes [n, most, 6], by the decoder of this name or the user's own.

    The user's own, as "module:function", is a function of the tuple of outputs [n, ...]; it gives boxes
    [n, most, 6], or a list of n arrays [k, 6].

    Raises UserError for an unknown name, an unknown setting or one that cannot be.
    """
    name = decoder.split(",")[0]
    if name in DECODERS:
        settings = settings_of(decoder)
        if settings.anchors:
            check_regular(Path(settings.anchors), f"the file of anchors {settings.anchors}")
        return functools.partial(_decoded, DECODERS[name], settings)
    if ":" in decoder:
        return functools.partial(_own, import_option("decoder", decoder), decoder)
    raise UserError(f"`decoder` is {decoder!r}; it must be one of {', '.join(DECODERS)}, or module:function")


def settings_of(decoder: str) -> Settings:
    """Those that stand behind the name of one of DECODERS. Raises UserError for one that is unknown or cannot be."""
    name, *given = decoder.split(",")
    found: dict[str, Any] = {}
    for part in given:
        key, _, value = part.partition("=")
        try:
            found[key] = _SETTINGS[key](value)
        except (KeyError, ValueError) as error:
            raise UserError(f"`decoder` has {part!r}; expected score=, nms=, most= or anchors= and a value") from error
    settings = Settings(**found)
    if (name == "ssd") != bool(settings.anchors):
        raise UserError(
            f"`decoder` is {decoder!r}; an ssd needs anchors=FILE.npy (centre y, x, height, width in 0..1), the"
            " others have none"
        )
    return settings


def _own(function: Callable[..., Any], name: str, predictions: Predictions) -> np.ndarray:
    try:
        found = function(predictions.outputs)
        images = [np.asarray(rows, np.float64).reshape(-1, WIDTH) for rows in found]
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UserError(f"decoder {name} failed, or gave no boxes [k, {WIDTH}]: {described(error)}") from error
    if len(images) != len(predictions.outputs[0]):
        raise UserError(f"decoder {name} gave boxes of {len(images)} images; got {len(predictions.outputs[0])}")
    return with_weights(padded(images), f"the boxes of decoder {name}")


def _decoded(row: _Row, settings: Settings, predictions: Predictions) -> np.ndarray:
    return padded([_best(*found, settings, doubles=row.doubles) for found in row.find(predictions, settings)])


def _best(boxes: np.ndarray, scores: np.ndarray, settings: Settings, *, doubles: bool) -> np.ndarray:
    """The boxes [k, 6] that are kept, best first."""
    place, number = np.nonzero(scores >= settings.score)
    order = np.argsort(-scores[place, number], kind="stable")[:_CANDIDATES]
    place, number = place[order], number[order]
    if doubles:
        of_classes = [np.flatnonzero(number == c) for c in np.unique(number)]
        kept = [found[kept_boxes(boxes[place[found]], settings.nms)] for found in of_classes]
        chosen = np.sort(np.concatenate([np.empty(0, np.int64), *kept]))
        place, number = place[chosen], number[chosen]
    place, number = place[: settings.most], number[: settings.most]
    return np.column_stack([number, boxes[place], scores[place, number]])


def _outputs(predictions: Predictions, name: str, *ranks: int) -> tuple[np.ndarray, ...]:
    """The outputs as float64, where there are as many as `ranks`, each with so many axes."""
    found = predictions.outputs
    if tuple(values.ndim for values in found) != ranks:
        count = f"{len(ranks)} output{'' if len(ranks) == 1 else 's'}"
        raise UserError(
            f"decoder {name} reads {count} with {', '.join(str(rank - 1) for rank in ranks)} axes a sample; got"
            f" {_shapes(found)}. Name those that it reads, in its order, by `outputs`"
        )
    return tuple(values.astype(np.float64) for values in found)


def _shapes(outputs: Sequence[np.ndarray]) -> str:
    """Of a sample, for messages."""
    return ", ".join(str(values.shape[1:]) for values in outputs)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def are_logits(scores: np.ndarray) -> bool:
    """Whether scores leave 0..1, so that they go through a sigmoid."""
    return bool(scores.size) and bool(scores.min() < 0 or scores.max() > 1)


def _probabilities(values: np.ndarray) -> np.ndarray:
    return _sigmoid(values) if are_logits(values) else values


def _corners(x: np.ndarray, y: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] by their centres and sizes."""
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=-1)


def _cells(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows [h, 1], columns [1, w])."""
    return np.arange(height)[:, None], np.arange(width)[None]


def box_rows(predictions: Predictions, name: str, widths: tuple[int, ...]) -> np.ndarray:
    """[n, cells, numbers]: of each cell as many numbers as `widths` says, and class scores.

    They are one output; or those numbers together and the scores; or each of the widths, and the scores.
    """
    shape = predictions.outputs[0].shape
    rank, most = len(shape) if len(shape) in (3, 4) else 3, len(widths) + 1
    count = min(len(predictions.outputs), most)
    parts = _outputs(predictions, name, *[rank] * count)
    if rank == 4:
        parts = tuple(values.reshape(len(values), -1, values.shape[-1]) for values in parts)
    elif shape[1] < shape[2]:
        parts = tuple(values.swapaxes(1, 2) for values in parts)
    numbers, cells = tuple(values.shape[2] for values in parts), {values.shape[1] for values in parts}
    known = numbers[:-1] in ((), (sum(widths),), widths)
    if len(cells) > 1 or not known or sum(numbers) <= sum(widths):
        raise UserError(
            f"decoder {name} reads boxes of {sum(widths)} numbers and class scores, in one output or several, boxes"
            f" first; got {_shapes(predictions.outputs)} a sample"
        )
    return np.concatenate(parts, axis=2)


def _yolo(predictions: Predictions, _: Settings, *, objectness: bool = True) -> Found:
    values = box_rows(predictions, *(("yolo", (4, 1)) if objectness else ("yolov8", (4,))))
    first = 5 if objectness else 4
    boxes = _corners(*np.moveaxis(values[..., :4], -1, 0))
    if in_pixels(boxes):
        height, width = next(iter(predictions.inputs.values())).shape[1:3]
        boxes /= (width, height, width, height)
    scores = _probabilities(values[..., first:])
    if objectness:
        scores = scores * _probabilities(values[..., 4:5])
    yield from zip(boxes, scores, strict=True)


def in_pixels(boxes: np.ndarray) -> bool:
    """Whether boxes are in pixels, and not in shares of the image."""
    return bool(boxes.size) and bool(np.abs(boxes).max() > _PIXELS)


def _fastestdet(predictions: Predictions, _: Settings) -> Found:
    (values,) = _outputs(predictions, "fastestdet", 4)
    if values.shape[-1] < 6:
        raise UserError(f"decoder fastestdet reads 5 numbers and class scores a cell; got {values.shape[1:]} a sample")
    height, width = values.shape[1:3]
    rows, columns = _cells(height, width)
    x, y = (np.tanh(values[..., 1]) + columns) / width, (np.tanh(values[..., 2]) + rows) / height
    boxes = _corners(x, y, _sigmoid(values[..., 3]), _sigmoid(values[..., 4]))
    classes = values[..., 5:]
    of_best = np.where(classes >= classes.max(axis=-1, keepdims=True), classes, 0.0)
    scores = np.clip(values[..., :1], 0.0, None) ** 0.6 * np.clip(of_best, 0.0, None) ** 0.4
    count = len(values)
    yield from zip(boxes.reshape(count, -1, 4), scores.reshape(count, -1, classes.shape[-1]), strict=True)


def _ssd(predictions: Predictions, settings: Settings) -> Found:
    codes, scores = _outputs(predictions, "ssd", 3, 3)
    anchors = read_anchors(settings.anchors)
    if anchors.shape != codes.shape[1:] or codes.shape[2] != 4 or scores.shape[1] != codes.shape[1]:
        raise UserError(
            f"decoder ssd reads boxes [n, k, 4], class scores [n, k, 1 + classes] and anchors [k, 4]; got"
            f" {codes.shape[1:]}, {scores.shape[1:]} and {anchors.shape}"
        )
    dy, dx, dh, dw = np.moveaxis(codes / ANCHOR_SCALES, -1, 0)
    cy, cx, height, width = anchors.T
    boxes = _corners(dx * width + cx, dy * height + cy, np.exp(dw) * width, np.exp(dh) * height)
    yield from zip(boxes, _probabilities(scores)[..., 1:], strict=True)


def read_anchors(path: str) -> np.ndarray:
    """Anchors [k, 4] of a file. Raises UserError for what is no array."""
    check_regular(Path(path), path)
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the anchors {path} are no .npy: {described(error)}") from error


def _centernet(predictions: Predictions, _: Settings) -> Found:
    heat, sizes, offsets = _outputs(predictions, "centernet", 4, 4, 4)
    if sizes.shape != (*heat.shape[:3], 2) or offsets.shape != sizes.shape:
        raise UserError(
            "decoder centernet reads a heat map (h, w, classes), sizes (h, w, 2) and offsets (h, w, 2); got"
            f" {heat.shape[1:]}, {sizes.shape[1:]}, {offsets.shape[1:]}"
        )
    heat = _probabilities(heat)
    count, height, width, classes = heat.shape
    around = np.pad(heat, ((0, 0), (1, 1), (1, 1), (0, 0)))
    highest = np.max([around[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)
    peaks = np.where(heat >= highest, heat, 0.0)
    rows, columns = _cells(height, width)
    x, y = (columns + offsets[..., 0]) / width, (rows + offsets[..., 1]) / height
    boxes = _corners(x, y, sizes[..., 0] / width, sizes[..., 1] / height)
    yield from zip(boxes.reshape(count, -1, 4), peaks.reshape(count, -1, classes), strict=True)


def _tflite_detection(predictions: Predictions, _: Settings) -> Found:
    boxes, classes, scores, counts = _outputs(predictions, "tflite_detection", 3, 2, 2, 1)
    if boxes.shape[2] != 4 or boxes.shape[:2] != classes.shape or classes.shape != scores.shape:
        raise UserError(
            "decoder tflite_detection reads boxes (k, 4), classes (k,), scores (k,) and a count; got"
            f" {boxes.shape[1:]}, {classes.shape[1:]}, {scores.shape[1:]}"
        )
    numbers = np.rint(classes).astype(np.int64)
    width = int(max(numbers.max(initial=0), 0)) + 1
    for box, number, score, count in zip(boxes, numbers, scores, counts, strict=True):
        real = (np.arange(len(score)) < count) & (number >= 0)
        table = np.zeros((len(score), width))
        table[np.flatnonzero(real), number[real]] = score[real]
        yield box[:, [1, 0, 3, 2]], table


DECODERS = {
    "yolo": _Row(_yolo),
    "yolov8": _Row(functools.partial(_yolo, objectness=False)),
    "fastestdet": _Row(_fastestdet),
    "ssd": _Row(_ssd),
    "centernet": _Row(_centernet, doubles=False),
    "tflite_detection": _Row(_tflite_detection, doubles=False),
}
