"""A Ray cluster of several node processes on this machine, as `ray start` makes it; each can be killed whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_MARK = "TFQ_RAY_NODE"
_PATIENCE = 120  # seconds for a node to come up


class Node:
    """One node: `ray start` and all that it starts, found by a mark in their environment.

    Args:
      arguments: of `ray start`.
      environment: of its processes, beside this one's.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]):
        self._mark = uuid.uuid4().hex
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--num-cpus=1"]
        done = subprocess.run(
            command,
            env={**os.environ, **environment, _MARK: self._mark},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            self.kill()
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-1000:]} {done.stderr[-1000:]}")

    def kill(self) -> None:
        """SIGKILL for every process of the node."""
        mark = f"{_MARK}={self._mark}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Nodes of one CPU each, the head first.

    Attributes:
      engine, client: names for `--engine`, from a machine of the cluster and from any.
      environment: of a program that may use it: the token without which a node takes no work.
    """

    nodes: Sequence[Node]
    engine: str
    client: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def ray_cluster(count: int) -> Iterator[Cluster]:
    """So many nodes on 127.0.0.1; all are killed at the end."""
    port, client_port = _free_ports(2)
    address, nodes = f"127.0.0.1:{port}", list[Node]()
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(uuid.uuid4().hex)
        token.flush()
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token.name}
        quiet = own | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        here = "--node-ip-address=127.0.0.1"
        head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--include-dashboard=false"]
        try:
            for arguments in (head, *[[f"--address={address}"]] * (count - 1)):
                nodes.append(Node([*arguments, here], quiet))
            yield Cluster(nodes, f"ray:{address}", f"ray://127.0.0.1:{client_port}", own)
        finally:
            for node in reversed(nodes):
                node.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, above those that Ray gives to its workers."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
