"""Threads and processes: every result, few tasks at a time, errors to the caller."""

import operator
import os
import signal
import sys
import threading

import pytest
import threadpoolctl
from processes import Family, until

from tfq.errors import UserError
from tfq.execution.workers import in_order, processes


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(workers):
    first_waits = threading.Event()

    def work(task):
        if task == 0 and workers > 1:
            assert first_waits.wait(10)
        if task == 1:
            first_waits.set()
        return task * task

    assert list(in_order(work, range(12), workers)) == [n * n for n in range(12)]


@pytest.mark.parametrize("workers", [1, 3])
def test_at_most_one_task_more_than_workers_is_taken_ahead(workers):
    taken, done = [], []

    def tasks():
        for task in range(20):
            taken.append(task)
            assert len(taken) - len(done) <= workers + 1
            yield task

    for result in in_order(lambda task: task, tasks(), workers):
        done.append(result)
    assert done == list(range(20))


def test_an_error_reaches_the_caller_and_ends_the_work():
    started = []

    def work(task):
        started.append(task)
        if task == 3:
            raise ValueError("task 3")
        return task

    found = in_order(work, range(1000), 2)
    with pytest.raises(ValueError, match="task 3"):
        list(found)
    assert len(started) < 10


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_processes_give_every_result_with_its_number(workers):
    with processes(workers, operator.mul) as spread:
        found = dict(spread(operator.mul, [(n, n + 1) for n in range(40)]))
    assert found == {n: n * (n + 1) for n in range(40)}


def test_processes_take_few_tasks_ahead():
    taken, done = [], []

    def tasks():
        for task in range(40):
            taken.append(task)
            assert len(taken) - len(done) <= 2 + 1  # two for the other process, one for this one
            yield (task,)

    with processes(2, abs) as spread:
        for number, result in spread(abs, tasks()):
            assert result == number
            done.append(number)
    assert sorted(done) == list(range(40))


def test_other_processes_have_one_blas_thread():
    with processes(2, threadpoolctl.threadpool_info) as spread:
        ((_, libraries),) = spread(threadpoolctl.threadpool_info, [()])
    threads = [library["num_threads"] for library in libraries if library["user_api"] == "blas"]
    assert threads
    assert set(threads) == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_process_reaches_the_caller(workers):
    with pytest.raises(ZeroDivisionError), processes(workers, operator.truediv) as spread:
        list(spread(operator.truediv, [(1, 1), (1, 0), (1, 2)]))


def test_a_process_that_is_killed_is_told():
    told = pytest.raises(UserError, match=r"one of the processes of `workers=2` ended .* set `workers=1`")
    with told, processes(2, os._exit) as spread:
        list(spread(os._exit, [(1,)]))


PARENT = """
import os, sys, time
from tfq.execution.workers import processes

def wait(seconds):
    time.sleep(seconds)
    return os.getpid()

def tasks(seen):
    while len(seen) < 3:  # until both others work
        yield (0.05,)
    time.sleep(0.5)
    yield (0,)  # what they have done is taken from them
    for _ in range(3):
        yield (60,)
    print("ready", flush=True)
    if sys.argv[1] == "error":
        raise ZeroDivisionError

if __name__ == "__main__":
    seen = set()
    with processes(3, wait) as spread:
        for _, process in spread(wait, tasks(seen)):
            seen.add(process)
"""


def start(folder, what):
    (folder / "parent.py").write_text(PARENT)
    return Family([sys.executable, "parent.py", what], folder, PYTHONPATH=os.pathsep.join(sys.path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_other_processes_end_with_this_one(tmp_path, number):
    with start(tmp_path, "wait") as family:
        assert family.first.stdout.readline() == "ready\n"
        until(lambda: len(family.living()) == 4, "two workers and what watches their resources")
        family.first.send_signal(number)
        family.end()  # nobody holds the pipes
        family.wait_until_none_lives()


def test_an_error_does_not_wait_for_what_the_others_are_at(tmp_path):
    with start(tmp_path, "error") as family:
        code, _, errors = family.end(timeout=30)
        assert code == 1
        assert errors.splitlines()[-1] == "ZeroDivisionError"
        family.wait_until_none_lives()
