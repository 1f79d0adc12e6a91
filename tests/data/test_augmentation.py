"""Shifted and mirrored images, against what NumPy's own reflection gives."""

import numpy as np
import pytest

from tfq.data.augmentation import varied


def pictures(count, height, width, channels, seed=0):
    return np.random.default_rng(seed).random((count, height, width, channels)).astype(np.float32)


def shifted(picture, mirrors):
    """Every picture that a shift by a sixteenth at most may make of this one."""
    height, width = picture.shape[:2]
    most = [max(1, size // 16) for size in (height, width)]
    wide = np.pad(picture, [(most[0], most[0]), (most[1], most[1]), (0, 0)], mode="reflect")
    for top in range(2 * most[0] + 1):
        for left in range(2 * most[1] + 1):
            part = wide[top : top + height, left : left + width]
            yield from (part, part[:, ::-1]) if mirrors else (part,)


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 48, 3), (16, 20, 1), (9, 8, 3), (33, 32, 4)])
def test_each_picture_is_shifted_by_a_sixteenth_and_mirrored_where_it_has_colours(height, width, channels):
    given = pictures(12, height, width, channels)
    before = given.copy()
    (found,) = varied([given], np.random.default_rng(1))
    np.testing.assert_array_equal(given, before)
    assert found.dtype == given.dtype
    for picture, made in zip(given, found, strict=True):
        assert any(np.array_equal(made, one) for one in shifted(picture, channels == 3))
    assert not np.array_equal(found, given)


def test_some_pictures_with_colours_are_mirrored_and_some_are_not():
    row = np.arange(32, dtype=np.float32)
    (found,) = varied([np.broadcast_to(row[:, None], (64, 32, 32, 3)).copy()], np.random.default_rng(0))
    rising = found[:, 16, 20, 0] > found[:, 16, 10, 0]
    assert 16 < rising.sum() < 48


@pytest.mark.parametrize(
    "other",
    [
        np.ones((4, 7), np.float32),
        np.arange(4 * 16 * 16 * 3).reshape(4, 16, 16, 3),
        pictures(4, 7, 16, 3),
        pictures(4, 16, 16, 3)[..., 0],
    ],
    ids=["a vector", "whole numbers", "too small", "no channels"],
)
def test_what_is_no_picture_stays(other):
    (found,) = varied([other], np.random.default_rng(0))
    assert found is other


def test_two_pictures_of_one_sample_move_alike():
    one = pictures(6, 32, 32, 3)
    first, second = varied([one, one + np.float32(1)], np.random.default_rng(2))
    np.testing.assert_allclose(second - first, 1.0, rtol=1e-6)
