"""Who takes the work on layers, by name: processes of this machine, or those of Ray or Dask, here or on many machines.

    local                   processes of tfq's own (`tfq.execution.workers.processes`)
    ray, dask               that many worker processes of Ray or Dask, started here for the run
    ray://host:port         a Ray cluster, by its client port; ray:host:port, by its own port, from one of its nodes
    dask:tcp://host:port    a Dask cluster, by its scheduler

Whatever the engine and however many its workers, the bytes are the same: every call is computed by one thread, and
results are put together by the number of their call. That holds as long as all machines have the same versions, which
is asked up front. Ray and Dask are imported only when they are asked for.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import importlib.metadata
import platform
import re
from collections.abc import Iterator, Mapping

from tfq import __version__
from tfq.errors import UserError

LOCAL = "local"
FORMS = "local, ray, ray://host:port, ray:host:port, dask or dask:tcp://host:port"
_FORM = re.compile(rf"{LOCAL}|ray(:(//)?[\w.-]+:\d+)?|dask(:\w+://.+)?")
_DECIDE = ("numpy", "scipy", "tensorflow")  # packages whose versions decide what is computed
_CALLED = {"ray": "Ray", "dask": "Dask"}


@contextlib.contextmanager
def engine(name: str, workers: int = 1) -> Iterator[concurrent.futures.Executor | None]:
    """The executor of this name, for `tfq.quantize(executor=...)`; None for the local one, which needs none.

        with tfq.engine("ray", workers=2) as executor:
            tfq.quantize(model, x, pipeline="advanced", mode="parallel", executor=executor)

    Args:
      name: as above.
      workers: processes that are started here; a cluster has its own.

    Raises:
      UserError: there is no such engine, its package is not installed, it cannot be reached, or its machines have other
        versions than this one. Inside the block: work was lost again and again.
    """
    check_engine(name, workers)
    if name == LOCAL:
        yield None
        return
    kind, _, address = name.partition(":")
    try:
        fleets = importlib.import_module(f"tfq.execution.{kind}_fleet")
    except ImportError as error:
        raise UserError(f"`engine` is {name} and {error.name} is not installed; pip install 'tfq[{kind}]'") from error
    where = name if address.startswith("//") else address
    with fleets.fleet(where, workers) as executor:
        check_versions(executor.versions(), _CALLED[kind])
        yield executor


def check_engine(name: str, workers: int) -> None:
    """What can be told of an engine before it is started; arguments and errors as of `engine`."""
    if not _FORM.fullmatch(name):
        raise UserError(f"`engine` is {name!r}; it must be {FORMS}")
    if workers < 1:
        raise UserError(f"`workers` is {workers}; it must be at least 1")
    if ":" in name and workers != 1:
        raise UserError(f"`workers` is {workers} and `engine` is {name}, which has its own workers; leave one out")


def versions() -> dict[str, str]:
    """What decides the bytes that this process computes."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "tfq": __version__}
    for package in _DECIDE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def check_versions(found: Mapping[str, Mapping[str, str]], engine: str) -> None:
    """Raise UserError for the first node that has other versions than this machine.

    Args:
      found: versions by node.
      engine: whose nodes they are.
    """
    own = versions()
    for node, theirs in found.items():
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                raise UserError(
                    f"the {engine} node {node} has {name} {theirs.get(name, 'not at all')}, this machine"
                    f" {own.get(name, 'not at all')}; results would differ, install the same versions on all"
                )
