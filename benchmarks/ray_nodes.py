"""A Ray cluster of several node processes on this machine, as `ray start` makes it; each can be killed whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

_MARK = "TFQ_RAY_NODE"
_PATIENCE = 120  # seconds for a node to come up


class Node:
    """One node: `ray start` and all that it starts, found by a mark in their environment."""

    def __init__(self, address: str, arguments: Sequence[str]):
        self.address, self._mark = address, uuid.uuid4().hex
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--num-cpus=1"]
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        options = {"env": {**os.environ, **quiet, _MARK: self._mark}, "stdin": subprocess.DEVNULL}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False, **options)  # type: ignore[call-overload]
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


@contextlib.contextmanager
def ray_cluster(count: int) -> Iterator[list[Node]]:
    """So many nodes of one CPU each, the head first; all are killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    nodes: list[Node] = []
    try:
        nodes.append(Node(address, head))
        while len(nodes) < count:
            nodes.append(Node(address, [f"--address={address}", "--node-ip-address=127.0.0.1"]))
        time.sleep(1)  # until the head has heard of all
        yield nodes
    finally:
        for node in reversed(nodes):
            node.kill()
