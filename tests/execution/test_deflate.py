"""Deflate streams unpack to what went in, in every frame, and are the shortest of zlib's."""

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.execution.deflate import GZIP, RAW, ZLIB, deflated


@pytest.mark.parametrize("frame", [ZLIB, GZIP, RAW])
@given(content=st.binary(max_size=2000))
def test_it_unpacks(frame, content):
    packed = deflated(content, frame=frame)
    assert zlib.decompress(packed, frame) == content
    assert packed == deflated(content, frame=frame)


def test_frames_differ_by_their_own_bytes():
    content = bytes(range(256)) * 9
    assert len(deflated(content, frame=GZIP)) - 18 == len(deflated(content)) - 6 == len(deflated(content, frame=RAW))
    assert gzip.decompress(deflated(content, frame=GZIP)) == content


def test_few_bit_weights_take_less_than_by_the_default_strategy():
    codes = np.clip(np.rint(np.random.default_rng(0).normal(size=50_000) * 2.5), -7, 7).astype(np.int8)
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    ideal = -(shares * np.log2(shares)).sum() * codes.size / 8
    found = len(deflated(codes.tobytes()))
    assert ideal < found < 1.05 * ideal
    assert found < 0.95 * len(zlib.compress(codes.tobytes(), 9))
    text = b"repetitions are what a search for matches is for; " * 500
    assert len(deflated(text)) <= len(zlib.compress(text, 9))
