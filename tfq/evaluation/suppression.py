"""What is appended to a detector that its app would otherwise decode: `tfq.export.nms` by a decoder of `--decoder`.

Whether scores are logits, and boxes in pixels, the decoder sees in each batch of outputs; the file must know it, and it
is seen in the outputs of a few samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfq.data.boxes import padded
from tfq.errors import UserError
from tfq.evaluation.decoders import (
    ANCHOR_SCALES,
    are_logits,
    box_rows,
    find_decoder,
    in_pixels,
    read_anchors,
    settings_of,
)
from tfq.evaluation.metric import Predictions
from tfq.execution.interpreter import TfliteModel
from tfq.export.nms import Suppression, append_nms

_NEAR = 1e-3  # two scores of the same object
_LEAST_OVERLAP = 1e-6  # 0 is no limit that the operator takes


def with_nms(
    content: bytes, decoder: str, outputs: Sequence[str], few: Mapping[str, np.ndarray]
) -> tuple[bytes, tuple[str, ...]]:
    """The .tflite with the operator behind it that finds the boxes of `decoder`.

    Args:
      decoder: one of `tfq.options.APPENDABLE`, with its settings.
      outputs: names of those that it reads, in its order; empty for all.
      few: samples by input name.

    Returns:
      (the file, notes on samples in which it finds others than the decoder does).

    Raises UserError for outputs that the decoder does not read.
    """
    predictions = _predictions(content, outputs, few)
    expected = find_decoder(decoder)(predictions)
    appended = append_nms(content, _suppression(decoder, outputs, predictions))
    found = _detections(appended, few)
    other = sum(not _alike(a, b) for a, b in zip(found, expected, strict=True))
    note = f"model_nms.tflite finds other boxes than decoder {decoder} in {other} of {len(expected)} samples"
    return appended, (note,) * (other > 0)


def _predictions(content: bytes, outputs: Sequence[str], few: Mapping[str, np.ndarray]) -> Predictions:
    model = TfliteModel(content)
    names = [info.name for info in model.outputs]
    if missing := [name for name in outputs if name not in names]:
        raise UserError(f"`outputs` names {', '.join(missing)}; the model has {', '.join(names)}")
    values = _one_by_one(model, few)
    read = tuple(values[names.index(name)] for name in outputs) if outputs else values
    return Predictions(read, None, few, read)


def _one_by_one(model: TfliteModel, few: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Outputs [n, ...], an invocation a sample."""
    count = len(next(iter(few.values())))
    rows = [model.run({name: values[i : i + 1] for name, values in few.items()}) for i in range(count)]
    return tuple(np.concatenate(output) for output in zip(*rows, strict=True))


def _suppression(decoder: str, outputs: Sequence[str], predictions: Predictions) -> Suppression:
    name, settings = decoder.split(",")[0], settings_of(decoder)
    kept = tuple(outputs), settings.score, max(settings.nms, _LEAST_OVERLAP), settings.most
    if name == "ssd":
        logits = are_logits(predictions.outputs[1])
        anchors = read_anchors(settings.anchors)
        return Suppression(*kept, anchors=anchors, scales=ANCHOR_SCALES, logits=logits)
    objectness = name == "yolo"
    values = box_rows(predictions, name, (4, 1) if objectness else (4,))
    _, height, width, *_ = next(iter(predictions.inputs.values())).shape
    pixels = (height, width) if in_pixels(values[..., :4]) else None
    logits = are_logits(values[..., 5 if objectness else 4 :])
    return Suppression(*kept, objectness=objectness, logits=logits, pixels=pixels)


def _detections(content: bytes, few: Mapping[str, np.ndarray]) -> np.ndarray:
    """Boxes [n, most, 6] that the operator finds."""
    boxes, classes, scores, count = _one_by_one(TfliteModel(content), few)
    rows = np.concatenate([classes[..., None], boxes[..., [1, 0, 3, 2]], scores[..., None]], axis=2)
    return padded([found[: int(number)] for found, number in zip(rows, count, strict=True)])


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether as many boxes were found, and with the same scores; of equal ones either may come first."""
    one, other = (np.sort(rows[rows[:, 0] >= 0][:, 5]) for rows in (found, expected))
    return len(one) == len(other) and bool(np.allclose(one, other, atol=_NEAR))
