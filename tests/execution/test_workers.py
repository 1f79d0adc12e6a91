"""Submitted calls give their results whatever the number of processes, and what they raise is raised."""

import os

import pytest

from tfq.execution.workers import workers


def test_one_worker_is_this_process_and_is_called_at_once():
    called = []
    with workers(1) as submit:
        future = submit(called.append, 3)
        assert called == [3]
        assert future.done()
        assert submit(os.getpid).result() == os.getpid()


def test_two_workers_are_other_processes_of_one_thread():
    before = dict(os.environ)
    with workers(2) as submit:
        # functions of the standard library: a test module cannot be imported by its name in another process
        squares = [submit(pow, number, 2) for number in range(10)]
        assert [future.result() for future in squares] == [number**2 for number in range(10)]
        processes = {submit(os.getpid).result() for _ in range(4)}
        assert os.getpid() not in processes
        assert len(processes) <= 2
        assert submit(os.getenv, "TF_NUM_INTRAOP_THREADS").result() == "1"
        assert submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "1"
    assert dict(os.environ) == before


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_call_raises_is_raised_to_whoever_waits_for_it(count):
    with workers(count) as submit, pytest.raises(ZeroDivisionError):
        submit(divmod, 1, 0).result()
