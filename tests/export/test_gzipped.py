"""model.tflite.gz: what is in it, that it is the same each time, and how its size compares."""

import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.evaluation.size import measure_size
from tfq.export.package import gzipped


@given(st.binary(max_size=3000))
def test_it_unpacks_to_the_same_bytes(content):
    assert gzip.decompress(gzipped(content)) == content


def test_header_holds_no_name_and_no_time_and_the_end_the_size(classifier):
    content = classifier[3]
    packed = gzipped(content)
    assert packed == gzipped(content)
    identification, method, flags, time = struct.unpack("<HBBI", packed[:8])
    assert (identification, method, flags, time) == (0x8B1F, 8, 0, 0)
    assert struct.unpack("<I", packed[-4:])[0] == len(content)  # what an app allocates


@pytest.mark.parametrize("model", [2, 3])
def test_it_is_the_download_size_and_12_bytes(classifier, model):
    content = classifier[model]
    assert len(gzipped(content)) == measure_size(content).download_bytes + 12
