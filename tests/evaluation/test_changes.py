"""Classes that differ from the baseline's, against a count by hand."""

import numpy as np

from tfq.evaluation.changes import Change, class_changes


def scores(classes, count=3):
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


def test_matrices_pairs_and_samples_of_a_classifier():
    before, after, labels = [0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 0, 1], np.array([0, 2, 2, 2, 1, 2])
    found = class_changes(scores(after), scores(before), labels)
    assert (found.count, found.total) == (4, 6)
    assert found.by_baseline == ((1, 1, 0), (1, 0, 1), (0, 1, 1))
    assert found.by_label == ((1, 0, 0), (1, 0, 0), (0, 2, 2))
    assert sorted(found.pairs) == [(0, 1, 1), (1, 0, 1), (1, 2, 1), (2, 1, 1)]
    # what the model alone gets wrong first, what it alone gets right last
    assert [change.sample for change in found.samples] == [3, 4, 5, 1]
    assert found.samples[0] == Change(3, 2, 1, 2)
    assert class_changes(scores(after), scores(before), np.eye(3)[labels]) == found


def test_labels_that_are_no_classes_and_outputs_with_places():
    found = class_changes(scores([0, 1]), scores([1, 1]), np.array([0.5, 7.0]))
    assert found.by_label is None
    assert found.samples == (Change(0, 1, 0, None),)
    places = class_changes(scores([[0, 1], [2, 2]]), scores([[0, 2], [2, 2]]), np.array([[0, 1], [2, 2]]))
    assert (places.count, places.total, places.samples) == (1, 4, ())
    assert places.by_label == ((1, 0, 0), (0, 1, 0), (0, 0, 2))


def test_one_unit_has_two_classes_and_many_classes_no_matrix():
    unit = class_changes(np.array([[0.2], [0.9]]), np.array([[0.8], [0.9]]), None)
    assert unit.by_baseline == ((0, 0), (1, 1))
    many = class_changes(scores([1, 1, 5], 100), scores([2, 2, 5], 100), None)
    assert (many.by_baseline, many.pairs) == (None, ((2, 1, 2),))
