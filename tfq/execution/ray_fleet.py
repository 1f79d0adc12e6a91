"""Ray as an executor. What many calls read, and every argument of some size, lies once in its object store.

A call whose worker or node dies is repeated elsewhere, that call alone, up to `_RETRIES` times.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tfq.errors import UserError
from tfq.execution.engines import versions
from tfq.execution.workers import Fleet, Shared

_RETRIES = 3
_PATIENCE = 20  # seconds for a cluster to answer


def _called(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


class RayFleet(Fleet):
    """The cluster that this process is connected to."""

    def __init__(self) -> None:
        self._call = ray.remote(num_cpus=1, max_retries=_RETRIES)(_called)

    @property
    def workers(self) -> int:
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def share(self, value: Shared[Any]) -> Any:
        return ray.put(value)

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> concurrent.futures.Future[Any]:  # type: ignore[override]
        called = self._call.remote(work, *arguments)
        future = called.future()
        future.add_done_callback(lambda done: ray.cancel(called) if done.cancelled() else None)
        return future

    def versions(self) -> dict[str, dict[str, str]]:
        """Of every node that works."""
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        found = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            try:
                found[name] = ray.get(self._call.options(scheduling_strategy=here).remote(versions))
            except (ray.exceptions.RayError, ImportError) as error:
                raise UserError(f"the Ray node {name} cannot run tfq ({_line(error)}); install it there") from error
        return found


@contextlib.contextmanager
def fleet(address: str, workers: int) -> Iterator[RayFleet]:
    """The cluster at this address, or `workers` processes that are started here where there is none.

    Raises UserError where it cannot be reached, and for work in the block that was lost more than `_RETRIES` times.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves on a machine that does something else too
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        if address and "://" not in address:  # Ray itself tries for minutes, and then ends the process
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"cannot use Ray at {address or 'this machine'}: {_line(error)}") from error
    try:
        yield RayFleet()
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray lost a piece of work {_RETRIES + 1} times, the last time so: {_line(error)}") from error
    finally:
        ray.shutdown()


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
