"""Builds tfq_runner for a target on first use, by CMake or Bazel, into the user's cache.

The cache's file name holds the hash of the sources and of what chooses the compiler, so a change builds anew. The
program is moved into place when it is whole; of processes that want it at once one builds and the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tfq_bench.elf import Target, elf_target, host_target
from tfq_bench.library import pick, variable

from tfq.errors import UserError
from tfq.execution.progress import SILENT, Progress

_PROGRAM = "tfq_runner"
_PATTERNS = ("*.cc", "*.h", "*.cmake", "CMakeLists.txt", "testing/runner_test.cc")
_BAZEL_PLATFORMS = {
    "arm64-v8a": "android_arm64",
    "armeabi-v7a": "android_armv7",
    "x86_64": "android_x86_64",
}


def find_runner(target: Target, named: Sequence[Path] = (), *, progress: Progress = SILENT) -> Path:
    """The runner for `target`: among those named, the environment's, the cache's, or built now.

    Raises:
      UserError: those named are for other targets; or a compiler is missing or fails, and which.
    """
    if found := pick(target, named, "TFQ_RUNNER"):
        return found
    if named:
        others = ", ".join(f"{path} is for {elf_target(path)}" for path in named)
        raise UserError(f"the runner for {target} is missing: {others}; add one to --runner")
    try:
        return built_runner(target, progress=progress)
    except MissingToolError as error:
        raise UserError(f"{error}, or give --runner=PATH or {variable('TFQ_RUNNER', target)}") from error


class MissingToolError(UserError):
    """What builds a runner is not installed."""


def built_runner(target: Target, *, progress: Progress = SILENT) -> Path:
    """The cache's runner for `target`, built now where the cache has none.

    Raises:
      MissingToolError: what builds it is not there.
      UserError: it cannot be built, or not be kept.
    """
    sources = source_folder()
    compiler = _compiler(target)
    cached = _cache_folder() / f"{_PROGRAM}-{target.abi}-{target.system}-{_key(sources, compiler)}"
    if cached.exists():
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with (cached.parent / f".{cached.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not cached.exists():
                with (
                    progress.task(f"build {_PROGRAM} for {target}", 0),
                    tempfile.TemporaryDirectory(dir=cached.parent, prefix=".build-") as folder,
                ):
                    made = _build(target, sources, Path(folder))
                    made.chmod(0o755)
                    made.replace(cached)
    except OSError as error:
        raise UserError(
            f"cannot keep the runner in {cached.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder"
        ) from error
    return cached


def source_folder() -> Path:
    """The runner's sources: within this package where it was installed, beside it in a checkout or under Bazel."""
    here = Path(__file__).absolute()  # not resolved: Bazel's links lead away from the sources
    for folder in (here.parent / "runner", here.parents[1] / "runner", here.parents[2] / "runner"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise UserError("the sources of tfq_runner are not installed; install tfq again, or give --runner=PATH")


def ndk_revision() -> str:
    """The revision of the NDK that ANDROID_NDK_HOME names, as 27.2.12479018; "unknown" where it does not say."""
    path = Path(os.environ.get("ANDROID_NDK_HOME", ""), "source.properties")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"^Pkg\.Revision\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _compiler(target: Target) -> str:
    """What builds for `target`; part of the cache's key. Raises MissingToolError where it is missing."""
    if target.system == "android":
        ndk = os.environ.get("ANDROID_NDK_HOME", "")
        if not (Path(ndk) / "build/cmake/android.toolchain.cmake").is_file():
            raise MissingToolError(
                f"a runner for {target} is built with the Android NDK; set ANDROID_NDK_HOME to its folder (got {ndk!r})"
            )
        return ndk
    if target == host_target():
        return "native"
    if target.abi == "arm64-v8a" and shutil.which("aarch64-linux-gnu-g++"):
        return "aarch64-linux-gnu-g++"
    raise MissingToolError(f"no compiler for {target} is there; install one (arm64: apt install g++-aarch64-linux-gnu)")


def _build(target: Target, sources: Path, folder: Path) -> Path:
    if shutil.which("cmake"):
        return _build_with_cmake(target, sources, folder)
    bazel = next((name for name in ("bazelisk", "bazel") if shutil.which(name)), None)
    if bazel and (sources.parents[1] / "WORKSPACE").is_file():
        return _build_with_bazel(bazel, target, sources, folder)
    raise MissingToolError(
        "tfq_runner is built with CMake (pip install cmake) and a C++17 compiler, or, in a checkout of tfq, with Bazel;"
        " install one of them"
    )


def _build_with_cmake(target: Target, sources: Path, folder: Path) -> Path:
    options = {"CMAKE_BUILD_TYPE": "Release"}
    if target.system == "android":
        options |= {"CMAKE_TOOLCHAIN_FILE": str(sources / "android.cmake"), "ANDROID_ABI": target.abi}
    elif target != host_target():
        options |= {"CMAKE_TOOLCHAIN_FILE": str(sources / "arm64-linux.cmake")}
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    _run(["cmake", "-S", str(sources), "-B", str(folder), *definitions])
    _run(["cmake", "--build", str(folder), "--target", _PROGRAM, "--parallel", str(os.cpu_count() or 1)])
    return folder / _PROGRAM


def _build_with_bazel(bazel: str, target: Target, sources: Path, folder: Path) -> Path:
    checkout = sources.parents[1]
    platform = []
    if target != host_target():
        name = _BAZEL_PLATFORMS[target.abi] if target.system == "android" else "linux_arm64"
        platform = [
            "--incompatible_enable_cc_toolchain_resolution",
            f"--platforms=//third_party/toolchains:{name}",
        ]
    command = [
        bazel,
        "--batch",
        f"--output_user_root={folder / 'bazel'}",
        "build",
        "--color=no",
        "-c",
        "opt",
        *platform,
    ]
    _run([*command, f"--symlink_prefix={folder}/out-", f"//android_bench/runner:{_PROGRAM}"], folder=checkout)
    made = folder / _PROGRAM
    shutil.copyfile(folder / "out-bin/android_bench/runner" / _PROGRAM, made)
    _run(["chmod", "-R", "u+w", str(folder / "bazel")])  # Bazel takes the right to remove its outputs away
    return made


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; the runner cannot be built") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        first = next(
            (i for i, line in enumerate(lines) if re.search("error:|CMake Error|ERROR:", line)), len(lines) - 4
        )
        told = " ".join(line.strip() for line in lines[max(0, first) :][:4])
        raise UserError(f"the runner cannot be built: {' '.join(command[:2])}: {told}")


def _key(sources: Path, compiler: str) -> str:
    digest = hashlib.sha256(compiler.encode())
    for path in sorted({path for pattern in _PATTERNS for path in sources.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(sources).as_posix()} {len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tfq"
