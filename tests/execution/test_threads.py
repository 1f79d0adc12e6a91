"""Results in the order of the tasks, few tasks at a time, errors to the caller."""

import threading

import pytest

from tfq.execution.threads import in_order


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
