import contextlib
import io

import numpy as np
import pytest

from tfq.errors import UserError
from tfq.evaluation.bootstrap import point
from tfq.evaluation.metric import Predictions
from tfq.evaluation.metrics import find_metric


def random_boxes(rng, images, classes, *, detections):
    """Boxes [n, most, 6] on a coarse lattice, so that overlaps and scores tie; the labels have crowds among them."""
    counts = rng.integers(0, 9, images)
    found = np.full((images, 8, 6), -1.0)
    for image, count in enumerate(counts):
        low = rng.integers(0, 12, (count, 2)) * 8.0
        high = low + rng.integers(1, 6, (count, 2)) * 8.0
        last = rng.integers(1, 10, count) / 10 if detections else rng.random(count) > 0.15
        found[image, :count] = np.column_stack([rng.integers(0, classes, count), low, high, last])
    return found


def by_pycocotools(labels, detections):
    """(mAP, AP50) in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def listed(boxes):
        rows = [(image, *row) for image, found in enumerate(boxes) for row in found if row[0] >= 0]
        return [
            {"image_id": image, "category_id": int(number), "bbox": [x, y, right - x, bottom - y], "last": last}
            for image, number, x, y, right, bottom, last in rows
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(labels))],
            "categories": [{"id": c} for c in range(int(labels[..., 0].max()) + 1)],
            "annotations": [
                {**box, "id": i + 1, "iscrowd": int(box["last"] == 0), "area": box["bbox"][2] * box["bbox"][3]}
                for i, box in enumerate(listed(labels))
            ],
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes([{**box, "score": box["last"]} for box in listed(detections)]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return 100 * judge.stats[:2]


def predicted(detections, labels):
    return Predictions((detections,), labels, {}, (detections,))


@pytest.mark.parametrize("seed", range(40))
def test_average_precision_is_that_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    labels = random_boxes(rng, 6, 3, detections=False)
    detections = random_boxes(rng, 6, 3, detections=True)
    detections[:, :4, :5] = np.where(rng.random((6, 4, 1)) < 0.7, labels[:, :4, :5], detections[:, :4, :5])
    detections[..., 5] = np.where(detections[..., 0] >= 0, np.maximum(detections[..., 5], 0.1), -1)
    found = [point(find_metric(name).statistic(predicted(detections, labels)), 6) for name in ("map", "ap50")]
    np.testing.assert_allclose(found, by_pycocotools(labels, detections), atol=1e-9, rtol=0)


def test_a_resample_is_the_images_repeated():
    rng = np.random.default_rng(0)
    labels, detections = random_boxes(rng, 8, 2, detections=False), random_boxes(rng, 8, 2, detections=True)
    detections[:, :5, :5] = labels[:, :5, :5]
    detections[..., 5] = np.where(detections[..., 0] >= 0, rng.permutation(64).reshape(8, 8) / 64, -1)
    weights = np.array([2, 0, 1, 3, 1, 0, 1, 1])
    again = [np.repeat(values, weights, axis=0) for values in (detections, labels)]
    for name in ("map", "ap50"):
        weighted = find_metric(name).statistic(predicted(detections, labels)).of_weights(weights[None].astype(float))[0]
        assert weighted == pytest.approx(point(find_metric(name).statistic(predicted(*again)), weights.sum()), abs=1e-9)


def test_labels_that_are_likely_count_by_their_weight():
    box = [0.0, 0.1, 0.1, 0.4, 0.4]
    other = [0.0, 0.6, 0.6, 0.9, 0.9]
    detections = np.array([[[*box, 0.9], [*other, 0.5]]])
    own = point(find_metric("ap50").statistic(predicted(detections, detections)), 1)
    assert 0 < own < 100  # what is seen with a score of 0.5 is there every other time
    lost = detections.copy()
    lost[0, 1, 0] = -1
    assert point(find_metric("ap50").statistic(predicted(lost, detections)), 1) < own


def test_without_labels_of_any_class_it_is_undefined():
    nothing = np.full((3, 2, 6), -1.0)
    assert np.isnan(point(find_metric("map").statistic(predicted(nothing, nothing)), 3))
    assert np.isnan(point(find_metric("map").statistic(predicted(nothing[:, :0], nothing[:, :0])), 3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros((2, 3, 4)), "shape"),
        (np.array([[[0.5, 0, 0, 1, 1]]]), "class of 0.5"),
        (np.array([[[0, 0.5, 0, 0.2, 1]]]), "ends before it begins"),
    ],
)
def test_labels_that_are_no_boxes(labels, message):
    with pytest.raises(UserError, match=message):
        find_metric("map").statistic(predicted(np.full((len(labels), 1, 6), -1.0), labels))
