"""Finds the runtime's library for a target: what was named, the environment, or the ai-edge-litert wheel."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from tfq_bench.elf import Target, elf_target, host_target

from tfq.errors import UserError


def find_library(target: Target, named: Sequence[Path] = ()) -> Path:
    """The library that runs on `target`.

    Args:
      named: libraries that the user gives; of any targets.

    Raises:
      UserError: none is for this target; it names what is there and where to get one.
    """
    if found := pick(target, named, "TFQ_LIBRARY"):
        return found
    if named:
        others = ", ".join(f"{path} is for {elf_target(path)}" for path in named)
        raise UserError(f"the runtime's library for {target} is missing: {others}; add one to --library")
    if target == host_target():
        return wheel_library()
    if target.system == "linux":
        place = f"libLiteRt.so of the ai-edge-litert wheel for {target.abi}"
    else:
        place = f"jni/{target.abi}/libLiteRt.so of the LiteRT AAR, 2.2 or later"
    raise UserError(
        f"the runtime's library for {target} is missing; give --library=PATH or {variable('TFQ_LIBRARY', target)}:"
        f" {place} (docs/on_device.md)"
    )


def wheel_library() -> Path:
    """libLiteRt.so inside the ai-edge-litert wheel that is installed. Raises UserError where it holds none."""
    found = importlib.util.find_spec("ai_edge_litert")
    path = Path(found.origin).with_name("libLiteRt.so") if found and found.origin else None
    if path is None or not path.is_file():
        raise UserError("the ai-edge-litert that is installed has no libLiteRt.so; pip install 'ai-edge-litert>=2.2'")
    return path


def pick(target: Target, named: Sequence[Path], prefix: str) -> Path | None:
    """The one for `target` among the files named, or else the environment's."""
    for path in named:
        if elf_target(path) == target:
            return path
    name = variable(prefix, target)
    if not named and (value := os.environ.get(name)):
        path = Path(value)
        if (other := elf_target(path)) != target:
            raise UserError(f"{name}={value} is for {other}; expected a file for {target}")
        return path
    return None


def variable(prefix: str, target: Target) -> str:
    """TFQ_LIBRARY_ARM64_V8A for arm64 Android and Linux alike."""
    return f"{prefix}_{target.abi.upper().replace('-', '_')}"
