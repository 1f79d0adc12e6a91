"""Threads and processes: every result, few tasks at a time, errors to the caller."""

import operator
import os
import threading

import pytest
import threadpoolctl

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
    told = pytest.raises(UserError, match=r"one of the processes of --workers=2 ended .* set --workers=1")
    with told, processes(2, os._exit) as spread:
        list(spread(os._exit, [(1,)]))
