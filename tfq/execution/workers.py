"""Work spread over threads, processes or the machines of a fleet.

Threads are enough where what takes long lets other threads run: matrix products, TensorFlow, the interpreter. What
calls NumPy on small arrays again and again holds Python's lock most of the time, and needs processes. Whatever takes
calls of either kind may also be a `concurrent.futures.Executor` of the caller's (`Resources.executor`).
"""

from __future__ import annotations

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import threadpoolctl

from tfq.errors import UserError
from tfq.execution.parent import die_with_parent
from tfq.execution.resources import Resources

Task = TypeVar("Task")
Result = TypeVar("Result")
Value = TypeVar("Value")

Spread = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
"""Calls a function with every tuple of arguments; gives (number of the call, result) as they are done."""


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """`work` of every task by `workers` threads, in the order of the tasks.

    One task more is in memory than are worked on.
    """
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class Shared(Generic[Value]):
    """A value that many calls read; equal, also in another process, where the name is."""

    value: Value = dataclasses.field(compare=False)
    name: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)


class Fleet(concurrent.futures.Executor):
    """An executor that knows its size, and where its workers find what many calls read."""

    @property
    def workers(self) -> int:
        """Calls that it works on at a time."""
        raise NotImplementedError

    def versions(self) -> dict[str, dict[str, str]]:
        """`tfq.execution.engines.versions` of its nodes by their names. Raises UserError where one cannot tell."""
        raise NotImplementedError

    def share(self, value: Shared[Any]) -> Any:
        """Put a value where every worker finds it; what is returned stands for it among the arguments of a call."""
        raise NotImplementedError


def share(resources: Resources, value: Value) -> Any:
    """What stands, among the arguments of calls, for a `Shared` of this value."""
    shared = Shared(value)
    return resources.executor.share(shared) if isinstance(resources.executor, Fleet) else shared


@contextlib.contextmanager
def spread(resources: Resources, used: object, *, threads: bool = False) -> Iterator[Spread]:
    """Calls spread over the executor of the caller's, or over processes or threads of this one's own.

    Functions, arguments and results have to be picklable, but for threads. Few tasks are taken ahead.

    Args:
      resources: whose workers or executor take the calls.
      used: as in `processes`.
      threads: those of this process are enough where there is no executor.
    """
    with contextlib.ExitStack() as stack:
        executor, ahead = resources.executor, 2 * resources.workers
        if executor is None and not threads:
            yield stack.enter_context(processes(resources.workers, used))
            return
        if executor is None:
            executor = stack.enter_context(concurrent.futures.ThreadPoolExecutor(resources.workers))
            ahead = resources.workers + 1
        if isinstance(executor, Fleet):
            ahead = 2 * executor.workers
        stack.enter_context(threadpoolctl.threadpool_limits(1, user_api="blas"))  # of an executor of threads
        given: dict[concurrent.futures.Future[Any], int] = {}
        stack.callback(_cancel, given)
        yield functools.partial(_by_executor, executor, ahead, given)


def _by_executor(
    executor: concurrent.futures.Executor,
    ahead: int,
    given: dict[concurrent.futures.Future[Any], int],
    work: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
) -> Iterator[tuple[int, Any]]:
    """No more than `ahead` tasks are with the executor at a time; `given` are the numbers of those."""
    rest = enumerate(tasks)
    while True:
        for number, task in itertools.islice(rest, ahead - len(given)):
            given[executor.submit(alone, work, *task)] = number
        if not given:
            return
        done, _ = concurrent.futures.wait(given, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in sorted(done, key=given.__getitem__):
            yield given.pop(future), future.result()


def _cancel(given: Iterable[concurrent.futures.Future[Any]]) -> None:
    for future in given:
        future.cancel()


def alone(work: Callable[..., Result], *arguments: Any) -> Result:
    """A call by a process in which BLAS has one thread from now on: with others it would round differently."""
    import numpy  # noqa: F401  # a library that has not been loaded cannot be limited

    threadpoolctl.threadpool_limits(1, user_api="blas")
    return work(*arguments)


@contextlib.contextmanager
def processes(workers: int, used: object) -> Iterator[Spread]:
    """Calls spread over `workers` processes, this one among them; BLAS has one thread in each of the others.

    They are started at once, and import what they need while this process goes on. Functions, arguments and results
    have to be picklable. As always with processes of Python's own, a script that asks for more than one worker guards
    what it runs by `if __name__ == "__main__"`.

    Args:
      workers: their number.
      used: something that comes with every call, such as the function: its modules are imported at the start.

    Raises:
      UserError: a process was killed.
    """
    if workers == 1:
        yield lambda work, tasks: enumerate(itertools.starmap(work, tasks))
        return
    others = workers - 1
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(others, context, initializer=_begin, initargs=(os.getpid(),))
    try:
        for _ in range(others):
            pool.submit(id, used)
        yield functools.partial(_as_done, pool, others)
    except concurrent.futures.process.BrokenProcessPool as error:
        _kill(pool)
        raise UserError(
            f"one of the processes of `workers={workers}` ended before its work was done, perhaps for lack of memory;"
            ' set `workers=1` (or, in a script of your own, guard what it runs by if __name__ == "__main__")'
        ) from error
    except BaseException:  # what they are at is not waited for
        _kill(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()


def _as_done(
    pool: concurrent.futures.Executor, others: int, work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """Two tasks for each other process, one that it works on and one that waits; the rest for this one."""
    given: dict[concurrent.futures.Future[Any], int] = {}
    for number, task in enumerate(tasks):
        if len(given) < 2 * others:
            given[pool.submit(work, *task)] = number
        else:
            yield number, work(*task)
        for future in [future for future in given if future.done()]:
            yield given.pop(future), future.result()
    for future in concurrent.futures.as_completed(given):
        yield given[future], future.result()


def _begin(parent: int) -> None:
    """In a new process: it ends with `parent`, and BLAS has one thread.

    A key at the terminal interrupts all processes; the parent ends the others.
    """
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alone(int)
