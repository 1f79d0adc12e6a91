"""A job: tasks of the runner and the files they need, as FORMAT.md describes it. All its paths are relative."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from tfq.errors import UserError

RUNNER, JOB, RESULTS = "tfq_runner", "job.txt", "results.jsonl"
KERNELS = ("xnnpack", "builtin")
_MOST_THREADS, _MOST_ROUNDS = 256, 1000
_MOST_TASKS = 10_000  # the runner's own limit (FORMAT.md)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how long.

    Attributes:
      threads: numbers of threads, each measured on its own.
      cpu_mask: hexadecimal mask of the processors to run on; "" leaves it to the system.
      kernels: "xnnpack" or "builtin", for what no delegate takes.
      delegate: library of a delegate, or None.
      warmup_seconds: of every process that is timed.
      seconds, min_runs, max_runs: of the timed runs of one process.
      rounds: processes in which each model is timed, in turns with the others.
      deadline_seconds: after which a process is killed.
      profile_ops: time single operators too, in processes of their own.
    """

    threads: tuple[int, ...] = (1,)
    cpu_mask: str = ""
    kernels: str = "xnnpack"
    delegate: Path | None = None
    warmup_seconds: float = 0.5
    seconds: float = 1.0
    min_runs: int = 50
    max_runs: int = 10_000
    rounds: int = 3
    deadline_seconds: float = 600.0
    profile_ops: bool = False

    def __post_init__(self) -> None:
        if not self.threads or len(set(self.threads)) < len(self.threads):
            raise UserError(f"--threads is {self.threads}; expected different numbers such as 1,4")
        if not all(1 <= n <= _MOST_THREADS for n in self.threads):
            raise UserError(f"--threads is {', '.join(map(str, self.threads))}; each must be 1 to {_MOST_THREADS}")
        if self.cpu_mask and not (re.fullmatch(r"[0-9a-fA-F]{1,64}", self.cpu_mask) and int(self.cpu_mask, 16)):
            raise UserError(
                f"--cpu_mask is {self.cpu_mask!r}; expected hexadecimal digits such as f0 for processors 4 to 7"
            )
        if self.kernels not in KERNELS:
            raise UserError(f"--kernels is {self.kernels!r}; expected one of {', '.join(KERNELS)}")
        if not 1 <= self.min_runs <= self.max_runs <= 1_000_000:
            raise UserError(
                f"--min_runs is {self.min_runs} and --max_runs is {self.max_runs}; expected 1 <= min <= max <= 1e6"
            )
        if not (0 <= self.warmup_seconds <= 86400 and 0 <= self.seconds <= 86400):
            raise UserError(
                f"--warmup_seconds={self.warmup_seconds:g} and --seconds={self.seconds:g}: expected 0 to 86400"
            )
        if not 1 <= self.rounds <= _MOST_ROUNDS:
            raise UserError(f"--rounds is {self.rounds}; it must be 1 to {_MOST_ROUNDS}")
        if not 0.001 <= self.deadline_seconds <= 86400:
            raise UserError(f"--deadline is {self.deadline_seconds:g}; it must be 0.001 to 86400 seconds")


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of the runner.

    Attributes:
      id: unique in the job.
      mode: "latency", "outputs" or "profile".
      model, inputs: paths in the job's folder.
      outputs: path of what the mode "outputs" writes, else "".
      threads: of an invocation.
      keys: the runner's other keys.
    """

    id: str
    mode: str
    model: str
    inputs: str
    outputs: str = ""
    threads: int = 1
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Job:
    """Tasks in the order in which they are done.

    Attributes:
      files: local file by path in the job's folder: models and inputs.
      settings: those of every task.
    """

    tasks: tuple[Task, ...]
    files: Mapping[str, Path]
    settings: Settings

    def text(self, library: str, delegate: str = "", *, without: Collection[str] = ()) -> str:
        """The runner's job.

        Args:
          library, delegate: their paths where the job runs.
          without: ids of tasks that are left out.
        """
        lines = ["tfq-job 1", f"library={escaped(library)}"]
        for task in self.tasks:
            if task.id in without:
                continue
            keys = {"mode": task.mode, "model": escaped(task.model), "inputs": escaped(task.inputs)}
            if task.outputs:
                keys["outputs"] = escaped(task.outputs)
            keys |= {"kernels": self.settings.kernels, "threads": str(task.threads)}
            keys["deadline_s"] = _decimal(self.settings.deadline_seconds)
            if delegate:
                keys["delegate"] = escaped(delegate)
            if self.settings.cpu_mask:
                keys["cpu_mask"] = self.settings.cpu_mask
            lines += [f"task {task.id}", *(f"{key}={value}" for key, value in (keys | dict(task.keys)).items())]
        return "\n".join(lines) + "\n"

    def most_seconds(self) -> float:
        """After which every task has been killed."""
        return 60.0 + len(self.tasks) * (self.settings.deadline_seconds + 5.0)

    def expected_seconds(self) -> float:
        """About how long it takes, without transfers and outputs."""
        keys = [task.keys for task in self.tasks]
        return sum(0.1 + float(own.get("warmup_s", 0)) + float(own.get("min_seconds", 0)) for own in keys)

    def fingerprint(self) -> str:
        """Hash of the tasks and of the content of the files."""
        digest = hashlib.sha256(self.text("").encode())
        for name, path in sorted(self.files.items()):
            digest.update(f"{name} {file_sha256(path)}\n".encode())
        return digest.hexdigest()


def bench_tasks(model: int, inputs: str, settings: Settings) -> list[tuple[tuple[int, ...], Task]]:
    """The tasks of one model and their place in the job.

    Outputs of all models come first, then the latencies, in rounds in which the models take turns, every other round
    backwards: what warms up or wears out touches all alike. Profiles come last.
    """
    path = model_path(model)
    placed: list[tuple[tuple[int, ...], Task]] = []
    name = f"m{model:03}"
    # The Python interpreter starts every sample from a fresh state, too.
    reset = {"reset_state": "1"}
    task = Task(f"{name}/outputs", "outputs", path, inputs, outputs_path(model), max(settings.threads), reset)
    placed.append(((0, model), task))
    for place, threads in enumerate(settings.threads):
        for turn in range(settings.rounds):
            task = Task(
                f"{name}/latency/t{threads}/r{turn}", "latency", path, inputs, "", threads, timing_keys(settings)
            )
            placed.append(((1, place, turn, model if turn % 2 == 0 else -model), task))
    # Without --profile_ops a short profile counts the operators.
    keys = timing_keys(settings) if settings.profile_ops else {**_SHORT, "warmup_s": "0"}
    for place, threads in enumerate(settings.threads if settings.profile_ops else settings.threads[:1]):
        task = Task(f"{name}/profile/t{threads}", "profile", path, inputs, "", threads, keys)
        placed.append(((2, place, model), task))
    return placed


def check_size(models: int, settings: Settings) -> None:
    """Raises UserError where a job of so many models would be too large."""
    tasks = models * len(bench_tasks(0, "", settings))
    if tasks > _MOST_TASKS:
        raise UserError(
            f"{models} models, --rounds={settings.rounds} and {len(settings.threads)} numbers of --threads make"
            f" {tasks:,} processes; a job may have {_MOST_TASKS:,}, give fewer of them"
        )


_SHORT = {"min_runs": "5", "max_runs": "5", "min_seconds": "0"}


def timing_keys(settings: Settings) -> dict[str, str]:
    return {
        "warmup_s": _decimal(settings.warmup_seconds),
        "min_runs": str(settings.min_runs),
        "max_runs": str(settings.max_runs),
        "min_seconds": _decimal(settings.seconds),
    }


def model_path(model: int) -> str:
    return f"models/m{model:03}.tflite"


def outputs_path(model: int) -> str:
    return f"outputs/m{model:03}.tensors"


def escaped(path: str) -> str:
    """A path as a value of the job: `%` and control characters as %XX."""
    return re.sub(rb"[\x00-\x1f\x7f%]", lambda m: b"%%%02X" % m[0][0], path.encode(errors="surrogateescape")).decode(
        errors="surrogateescape"
    )


def file_sha256(path: Path) -> str:
    """Raises UserError for a file that cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file that can be read") from error
    return digest.hexdigest()


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
