"""tfq_runner for tests, built once by what users build it with."""

from __future__ import annotations

import os
import pathlib
import shutil
from unittest import mock

import pytest
from tfq_bench.build import find_runner
from tfq_bench.elf import Target, host_target


def built_runner(factory: pytest.TempPathFactory, target: Target | None = None) -> pathlib.Path:
    """Kept beside the temporary folders of all sessions: its name holds the hash of its sources."""
    target = target or host_target()
    compiler = "c++" if target == host_target() else "aarch64-linux-gnu-g++"
    for tool in ("cmake", "make", compiler):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install cmake make g++ g++-aarch64-linux-gnu)")
    cache = factory.getbasetemp().parent / "runner_cache"
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(cache)}):
        return find_runner(target)
