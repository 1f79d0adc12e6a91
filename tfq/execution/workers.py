"""Processes that share a job, each with one thread: those of several processes would wait for each other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

import threadpoolctl

Submit = Callable[..., concurrent.futures.Future[Any]]


@contextlib.contextmanager
def workers(count: int) -> Iterator[Submit]:
    """Something to submit calls to: `count` processes, or for one this very process, where the call is made at once.

    What is submitted to processes must be picklable.
    """
    if count == 1:
        yield _called
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
        yield pool.submit


def _called(function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_result(function(*arguments))
    return future


def _one_thread() -> None:
    """For the new process alone; TensorFlow reads the environment when it first computes, BLAS is told at once."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="2")
    threadpoolctl.threadpool_limits(1)
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
