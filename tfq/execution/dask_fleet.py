"""Dask as an executor. What many calls read is copied once to every worker.

A call whose worker dies is repeated elsewhere, that call alone, as often as the scheduler's own setting says
(`distributed.scheduler.allowed-failures`, 3 by default).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import distributed

from tfq.errors import UserError
from tfq.execution.engines import versions
from tfq.execution.workers import Fleet, Shared

_PATIENCE = 20  # seconds for a scheduler to answer, and for a first worker to come


class DaskFleet(Fleet):
    """The cluster of a client."""

    def __init__(self, client: distributed.Client):
        self._client = client
        self._executor = client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        return max(1, sum(self._client.nthreads().values()))

    def share(self, value: Shared[Any]) -> Any:
        return self._client.scatter(value, broadcast=True, hash=False)

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> concurrent.futures.Future[Any]:  # type: ignore[override]
        return self._executor.submit(work, *arguments)

    def versions(self) -> dict[str, dict[str, str]]:
        """Of every worker."""
        try:
            return self._client.run(versions)
        except Exception as error:  # whatever a worker says to a module that it has not
            raise UserError(f"a Dask worker cannot run tfq ({error}); install it there") from error


@contextlib.contextmanager
def fleet(address: str, workers: int) -> Iterator[DaskFleet]:
    """The cluster of the scheduler at this address, or `workers` processes that are started here where there is none.

    Raises UserError where it cannot be reached, and for work in the block that was lost too often.
    """
    warnings.filterwarnings("ignore", message="Sending large graph", module="distributed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        try:
            if not address:
                quiet = {"silence_logs": logging.CRITICAL, "dashboard_address": "127.0.0.1:0"}
                cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **quiet)
                address = stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(address, timeout=_PATIENCE))
            client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(f"cannot use Dask at {address or 'this machine'}: {error}") from error
        try:
            yield DaskFleet(client)
        except (distributed.KilledWorker, concurrent.futures.CancelledError) as error:
            raise UserError(f"Dask lost a piece of work again and again: {error}") from error
