"""Every decoder finds the boxes that were written into outputs by its own equations."""

import numpy as np
import pytest

from tfq.errors import UserError
from tfq.evaluation.decoders import DECODERS, find_decoder
from tfq.evaluation.metric import Predictions

IMAGE = (60, 80)  # height and width
# class, left, top, right, bottom, score of the objects of two images
WANTED = [
    np.array([[2, 0.10, 0.20, 0.30, 0.60, 0.9], [0, 0.50, 0.50, 0.90, 0.80, 0.6]]),
    np.array([[1, 0.25, 0.10, 0.45, 0.90, 0.8]]),
]
CLASSES = 3


def decoded(decoder, *outputs):
    outputs = tuple(np.asarray(values, np.float32) for values in outputs)
    found = find_decoder(decoder)(Predictions(outputs, None, {"x": np.zeros((2, *IMAGE, 3))}, outputs))
    return [rows[rows[:, 0] >= 0] for rows in found]


def check(found):
    for rows, wanted in zip(found, WANTED, strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-3)


def centred(rows):
    """(centre x, y, width, height)."""
    return np.column_stack([(rows[:, 1:3] + rows[:, 3:5]) / 2, rows[:, 3:5] - rows[:, 1:3]])


def logit(share):
    return np.log(share / (1 - share))


def yolo(*, objectness):
    """[2, 12, 4 + 1 + classes]; every object is found twice, the second time with a lower score."""
    values = np.zeros((2, 12, 4 + objectness + CLASSES))
    for image, rows in enumerate(WANTED):
        for place, row in enumerate(rows):
            for again, score in ((0, row[5]), (5, row[5] - 0.1)):
                values[image, place + again, :4] = centred(row[None])[0] + 0.01 * (again > 0)
                if objectness:
                    values[image, place + again, 4] = 0.95
                    score = score / 0.95
                values[image, place + again, 4 + objectness + int(row[0])] = score
    return values


def test_yolo():
    check(decoded("yolo", yolo(objectness=True)))
    check(decoded("yolov8", yolo(objectness=False)))
    check(decoded("yolov8", yolo(objectness=False).swapaxes(1, 2)))
    check(decoded("yolo", yolo(objectness=True).reshape(2, 3, 4, -1)))


def test_yolo_of_several_outputs():
    v8, v5 = yolo(objectness=False), yolo(objectness=True)
    check(decoded("yolov8", v8[..., :4], v8[..., 4:]))
    check(decoded("yolov8", *(part.swapaxes(1, 2) for part in (v8[..., :4], v8[..., 4:]))))
    check(decoded("yolo", v5[..., :4], v5[..., 4:5], v5[..., 5:]))
    check(decoded("yolo", *(part.reshape(2, 3, 4, -1) for part in (v5[..., :5], v5[..., 5:]))))


@pytest.mark.parametrize(
    ("decoder", "shapes", "message"),
    [
        ("yolo", [(2, 9, 4), (2, 9, 3)], r"boxes of 5 numbers and class scores.*\(9, 4\), \(9, 3\)"),
        ("yolov8", [(2, 9, 3), (2, 9, 4)], "boxes of 4 numbers"),
        ("yolov8", [(2, 9, 4), (2, 8, 3)], "boxes of 4 numbers"),
        ("yolov8", [(2, 9, 4), (2, 9, 1), (2, 9, 3)], "reads 2 outputs with 2, 2 axes"),
        ("yolov8", [(2, 9)], "reads 1 output with 2 axes"),
    ],
)
def test_outputs_that_yolo_cannot_join(decoder, shapes, message):
    with pytest.raises(UserError, match=message):
        decoded(decoder, *map(np.zeros, shapes))


def test_yolo_in_pixels():
    values = yolo(objectness=True)
    values[..., :4] *= (IMAGE[1], IMAGE[0], IMAGE[1], IMAGE[0])
    check(decoded("yolo", values))


def test_a_cell_may_be_of_several_classes_and_settings_say_what_is_kept():
    values = yolo(objectness=False)
    values[1, 0, 4 + 2] = 0.3
    assert [len(rows) for rows in decoded("yolov8", values)] == [2, 2]
    assert [len(rows) for rows in decoded("yolov8,score=0.5", values)] == [2, 1]
    assert [len(rows) for rows in decoded("yolov8,most=1", values)] == [1, 1]
    assert [len(rows) for rows in decoded("yolov8,nms=1", values)] == [4, 3]


def test_fastestdet():
    height, width = 10, 12
    values = np.zeros((2, height, width, 5 + CLASSES))
    values[..., 3:5] = -4
    for image, rows in enumerate(WANTED):
        for row, (x, y, wide, high) in zip(rows, centred(rows), strict=True):
            i, j = int(y * height), int(x * width)
            box = [np.arctanh(x * width - j), np.arctanh(y * height - i), logit(wide), logit(high)]
            values[image, i, j, :5] = [0.5, *box]
            values[image, i, j, 5:] = 0.01
            values[image, i, j, 5 + int(row[0])] = (row[5] / 0.5**0.6) ** (1 / 0.4)
    check(decoded("fastestdet", values))


@pytest.mark.parametrize("logits", [False, True])
def test_ssd(tmp_path, logits):
    anchors = np.random.default_rng(0).uniform(0.1, 0.9, (6, 4))
    np.save(tmp_path / "anchors.npy", anchors)
    codes, scores = np.zeros((2, 6, 4)), np.full((2, 6, 1 + CLASSES), 1e-4)
    scores[..., 0] = 0.9  # the background
    for image, rows in enumerate(WANTED):
        for place, (row, (x, y, wide, high)) in enumerate(zip(rows, centred(rows), strict=True)):
            cy, cx, h, w = anchors[place]
            codes[image, place] = 10 * (y - cy) / h, 10 * (x - cx) / w, 5 * np.log(high / h), 5 * np.log(wide / w)
            scores[image, place, 1 + int(row[0])] = row[5]
    check(decoded(f"ssd,anchors={tmp_path / 'anchors.npy'}", codes, logit(scores) if logits else scores))


def test_centernet():
    height, width = 15, 20
    heat = np.full((2, height, width, CLASSES), 1e-4)
    sizes, offsets = np.zeros((2, 2, height, width, 2))
    for image, rows in enumerate(WANTED):
        for row, (x, y, wide, high) in zip(rows, centred(rows), strict=True):
            i, j = int(y * height), int(x * width)
            heat[image, i - 1 : i + 2, j - 1 : j + 2, int(row[0])] = row[5] - 0.2  # no peaks
            heat[image, i, j, int(row[0])] = row[5]
            sizes[image, i, j] = wide * width, high * height
            offsets[image, i, j] = x * width - j, y * height - i
    check(decoded("centernet", heat, sizes, offsets))


def test_tflite_detection():
    boxes, classes, scores = np.zeros((2, 5, 4)), np.zeros((2, 5)), np.zeros((2, 5))
    for image, rows in enumerate(WANTED):
        boxes[image, : len(rows)] = rows[:, [2, 1, 4, 3]]
        classes[image, : len(rows)], scores[image, : len(rows)] = rows[:, 0], rows[:, 5]
    scores[1, 3] = 0.99  # beyond the count
    check(decoded("tflite_detection", boxes, classes, scores, [2, 1]))


def test_own_decoder(tmp_path, monkeypatch):
    (tmp_path / "my_boxes.py").write_text(
        "import numpy as np\n"
        "def listed(outputs):\n"
        "    return [rows[rows[:, 0] >= 0] for rows in outputs[0]]\n"
        "def short(outputs):\n"
        "    return [np.zeros((1, 6))]\n"
        "def broken(outputs):\n"
        "    return outputs[1]\n"
    )
    monkeypatch.chdir(tmp_path)
    padded = np.stack([WANTED[0], np.concatenate([WANTED[1], np.full((1, 6), -1.0)])])
    check(decoded("my_boxes:listed", padded))
    for name, message in (("short", "boxes of 1 images"), ("broken", "failed"), ("nothing", "cannot be loaded")):
        with pytest.raises(UserError, match=message):
            decoded(f"my_boxes:{name}", padded)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("yolov9", "one of yolo, yolov8, fastestdet"),
        ("yolo,score=2", r"score=2; it must lie in 0\.\.1"),
        ("yolo,score=high", "'score=high'"),
        ("yolo,size=3", "'size=3'"),
        ("yolo,most=0", "at least 1"),
        ("ssd", "needs anchors=FILE.npy"),
        ("yolo,anchors=a.npy", "the others have none"),
    ],
)
def test_decoders_that_cannot_be(decoder, message):
    with pytest.raises(UserError, match=message):
        find_decoder(decoder)


@pytest.mark.parametrize("name", DECODERS)
def test_outputs_that_a_decoder_does_not_read(name, tmp_path):
    np.save(tmp_path / "anchors.npy", np.zeros((3, 4)))
    decoder = f"ssd,anchors={tmp_path / 'anchors.npy'}" if name == "ssd" else name
    shapes = [((2, 7),), ((2, 3, 4), (2, 3)), ((2, 3, 3, 4), (2, 3, 3, 3), (2, 3, 3, 2))]
    for outputs in shapes:
        with pytest.raises(UserError, match=f"decoder {name} reads"):
            decoded(decoder, *map(np.zeros, outputs))
