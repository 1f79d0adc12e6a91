"""This machine as a device: the runner in a folder, beside the job's files."""

from __future__ import annotations

import functools
import os
import platform
import signal
import subprocess
from pathlib import Path

from tfq_bench.elf import host_target
from tfq_bench.job import JOB, RESULTS, Job
from tfq_bench.results import Collected, Description, read_results

from tfq.errors import UserError
from tfq.execution.parent import die_with_parent


def describe_host() -> Description:
    target = host_target()
    return Description(platform.node() or "host", "host", target.abi, target.system, "", {})


def run_on_host(job: Job, runner: Path, library: Path, folder: Path) -> Collected:
    """Runs a job in `folder`, which is made.

    Raises UserError where the runner cannot be started or does not do the job.
    """
    for name in (*job.files, *(task.outputs for task in job.tasks if task.outputs)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, path in job.files.items():
        (folder / name).symlink_to(path.resolve())
    delegate = str(job.settings.delegate.resolve()) if job.settings.delegate else ""
    (folder / JOB).write_text(job.text(str(library.resolve()), delegate), encoding="utf-8", errors="surrogateescape")
    try:
        process = subprocess.Popen(
            [runner.resolve(), JOB, RESULTS],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Its timings would disturb those of the next run if it outlived this process.
            preexec_fn=functools.partial(die_with_parent, os.getpid(), signal.SIGTERM),
        )
    except OSError as error:
        raise UserError(f"{runner}: {error.strerror}; expected a runner for this machine") from error
    with process:
        try:
            _, message = process.communicate()
        finally:
            process.terminate()
    if process.returncode:
        raise UserError(f"{runner}: exit status {process.returncode}: {message.strip() or 'no message'}")
    machine, records = read_results(folder / RESULTS)
    outputs = {task.outputs: folder / task.outputs for task in job.tasks if (folder / task.outputs).is_file()}
    return Collected(describe_host(), machine, records, outputs, {}, {})
