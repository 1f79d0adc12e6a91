"""Which channels of an output are measured apart, and that what the small ones lose shows there."""

import numpy as np
import pytest

from tfq.data.samples import Samples
from tfq.evaluation.evaluate import judge_outputs
from tfq.evaluation.parts import channel_parts

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ((1, 2, 9), ()),
        ((300, 1, 200, 0.5), ((0, 2), (1, 3))),
        ((1e-3, 5, 0.6, 1e3), ((3,), (1, 2), (0,))),
        ((0, 300, 1), ((1,), (2,))),
        ((0, 0), ()),
        ((7,), ()),
    ],
)
def test_channels_of_one_size_are_together(sizes, parts):
    signs = np.where(RNG.uniform(size=(4, 3, len(sizes))) < 0.5, -1, 1)
    assert channel_parts((signs * np.float32(sizes)).astype(np.float32)) == parts


def test_probabilities_and_single_numbers_have_no_parts():
    assert channel_parts(np.float32([[0.98, 0.019, 0.001], [0.9, 0.09, 0.01]])) == ()
    assert channel_parts(np.float32([0.1, 30.0])) == ()


def test_small_channels_that_a_grid_loses_are_found_beside_large_ones():
    boxes, scores = RNG.uniform(0, 320, (50, 9, 4)), RNG.uniform(0, 1, (50, 9, 3))
    wanted = np.concatenate([boxes, scores], axis=-1).astype(np.float32)
    step = np.float32(320 / 255)
    given = np.round(wanted / step) * step
    samples = Samples({"x": np.zeros((50, 1), np.float32)}, np.arange(50))
    judged, _ = judge_outputs({"float": (wanted,), "int8": (given,)}, samples, metric="sqnr")
    large, small = judged["int8"].parts
    assert (large.channels, small.channels) == ((0, 1, 2, 3), (4, 5, 6))
    noise = np.square(given - wanted)[..., 4:].sum()
    assert small.sqnr.value == pytest.approx(10 * np.log10(np.square(scores).sum() / noise), abs=0.01)
    assert small.sqnr.value < 6 < 40 < judged["int8"].sqnr.value
    assert judged["float"].parts == ()
