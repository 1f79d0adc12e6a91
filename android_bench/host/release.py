"""The runner's release assets: one program for each target, named after it, and their checksums.

    python -m tfq_bench.release FOLDER

writes FOLDER/tfq_runner-VERSION-SYSTEM-ABI for the three ABIs of Android and for x86-64 and arm64 Linux, and
FOLDER/SHA256SUMS in the format of `sha256sum --check`, whose first line names the version of tfq and the NDK. A target
whose compiler is not there is told in one line; the others are built, and the exit code is 2.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tfq_bench.build import built_runner, ndk_revision
from tfq_bench.elf import Target
from tfq_bench.job import file_sha256

import tfq
from tfq.errors import UserError
from tfq.execution.files import write_atomic
from tfq.execution.progress import SILENT, Lines, Progress

TARGETS = (
    *(Target(abi, "android") for abi in ("arm64-v8a", "armeabi-v7a", "x86_64")),
    *(Target(abi, "linux") for abi in ("x86_64", "arm64-v8a")),
)


def asset_name(target: Target) -> str:
    return f"tfq_runner-{tfq.__version__}-{target.system}-{target.abi}"


def write_assets(
    folder: Path, targets: Sequence[Target] = TARGETS, *, progress: Progress = SILENT
) -> tuple[list[Path], list[str]]:
    """Builds the runner for every target into `folder`, with SHA256SUMS of what is there.

    Returns:
      (the programs, a line for each that is missing).
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the runners")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    missing: list[str] = []
    for target in targets:
        try:
            runner = built_runner(target, progress=progress)
        except UserError as error:
            missing.append(str(error))
            continue
        made.append(Path(shutil.copy(runner, folder / asset_name(target))))
    head = f"# tfq {tfq.__version__}, Android NDK {ndk_revision()}"
    sums = [f"{file_sha256(path)}  {path.name}" for path in made]
    write_atomic(folder / "SHA256SUMS", "\n".join([head, *sums, ""]).encode())
    return made, missing


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tfq_bench.release FOLDER", file=sys.stderr)
        return 2
    try:
        made, missing = write_assets(Path(arguments[0]), progress=Lines(sys.stderr))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for path in made:
        print(path)
    for reason in missing:
        print(f"not built: {reason}", file=sys.stderr)
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
