"""The real adb client against test devices: a private adb server, ended with the tests."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

Client = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an adb server of these tests' own, whose keys do not end in the user's home."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed (apt install adb)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "ADB_MDNS": "0"}
    subprocess.run(["adb", "-P", str(port), "start-server"], env=environment, check=True, capture_output=True)
    yield port
    subprocess.run(["adb", "-P", str(port), "kill-server"], check=True, capture_output=True)


@pytest.fixture
def adb_port(adb_server: int) -> Iterator[int]:
    """Port of the adb server, which forgets its devices after each test: a later one may get the same port."""
    yield adb_server
    subprocess.run(["adb", "-P", str(adb_server), "disconnect"], check=True, capture_output=True)


@pytest.fixture
def adb(adb_port: int) -> Client:
    """Runs the adb client: `adb("-s", serial, "shell", "true")`."""

    def run(*arguments: str | pathlib.Path, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        command = ["adb", "-P", str(adb_port), *map(str, arguments)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
