"""Memory beyond the bound is refused within the block, and given after it."""

import concurrent.futures
import resource

import numpy as np
import pytest

from tfq.execution.interpreter import bounded_memory


def test_more_than_the_bound_is_refused_within_the_block_only():
    with bounded_memory(0), pytest.raises(MemoryError):
        np.empty(4 << 30, np.uint8)
    assert np.empty(4 << 30, np.uint8).nbytes == 4 << 30  # addresses: nothing is touched


def test_threads_leave_the_limit_as_it_was():
    before = resource.getrlimit(resource.RLIMIT_AS)

    def work(_):
        with bounded_memory(0):
            np.zeros(1000)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(200)))
    assert resource.getrlimit(resource.RLIMIT_AS) == before
