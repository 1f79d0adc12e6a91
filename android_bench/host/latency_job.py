"""The latency table of a device: the models of single operations that tfq-profile times, timed by the runner.

What is timed, and what the table means, is `tfq.allocation.profile`'s and `tfq.allocation.latency_table`'s. Here every
file is timed in `rounds` processes of its own, all files in turns; a file's times are those of all its rounds. An
operation gets a fifth of the seconds of a model, as in tfq-profile.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path

from tfq_bench.collect import task_failure
from tfq_bench.inputs import feed_of, write_inputs
from tfq_bench.job import Job, Settings, Task, model_path, timing_keys
from tfq_bench.report import Failure
from tfq_bench.results import Collected

from tfq.allocation.latency_table import LatencyTable, Operation
from tfq.allocation.profile import (
    Isolated,
    count_operations,
    idle_operation,
    isolated_operations,
    make_entry,
    make_table,
    whole_models,
)
from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel
from tfq.execution.progress import SILENT, Progress
from tfq.models.graph import Graph

_SHARE = 0.2  # of a model's seconds, for an operation
_IDLE, _WHOLE = "overhead", "whole model"


@dataclasses.dataclass(frozen=True)
class TableJob:
    """A job whose results make a latency table.

    Attributes:
      graph: the prepared graph.
      tasks: of every file, by (what it is, operation, family): an entry of the table, the overhead or a whole model.
    """

    job: Job
    graph: Graph
    tasks: Mapping[tuple[str, Operation, str], tuple[Task, ...]]


def prepare_table(
    graph: Graph, folder: Path, *, settings: Settings, seed: int = 0, progress: Progress = SILENT
) -> TableJob:
    """Makes the files of every operation in `folder`.

    Args:
      graph: the prepared graph.
      settings: with one number of threads.
      seed: of the random inputs.
    """
    if len(settings.threads) > 1:
        raise UserError("a latency table is for one number of threads; give one number to --threads")
    for name in ("models", "inputs"):
        (folder / name).mkdir(parents=True)
    short = dataclasses.replace(
        settings, seconds=_SHARE * settings.seconds, warmup_seconds=_SHARE * settings.warmup_seconds
    )
    files: dict[str, Path] = {}
    tasks: dict[tuple[str, Operation, str], tuple[Task, ...]] = {}

    def add(kind: str, alone: Isolated, own: Settings) -> None:
        for family, content in alone.files.items():
            number = len(tasks)
            model, inputs = model_path(number), f"inputs/i{number:03}.tensors"
            (folder / model).write_bytes(content)
            write_inputs(folder / inputs, feed_of(TfliteModel(content)), alone.inputs)
            files.update({name: folder / name for name in (model, inputs)})
            keys = timing_keys(own)
            tasks[kind, alone.operation, family] = tuple(
                Task(f"o{number:04}/{family}/r{turn}", "latency", model, inputs, "", own.threads[0], keys)
                for turn in range(own.rounds)
            )

    add(_IDLE, idle_operation(seed), short)
    with progress.task("make the operations", count_operations(graph)) as advance:
        for alone in isolated_operations(graph, seed):
            add("", alone, short)
            advance(1)
    add(_WHOLE, whole_models(graph, seed, progress=progress), settings)
    rounds = zip(*tasks.values(), strict=True)
    ordered = tuple(
        task
        for turn, round_tasks in enumerate(rounds)
        for task in (round_tasks if turn % 2 == 0 else reversed(round_tasks))
    )
    return TableJob(Job(ordered, files, settings), graph, tasks)


def latency_table(made: TableJob, found: Collected) -> tuple[LatencyTable, tuple[Failure, ...]]:
    """The table, and the operations that it lacks because they failed; with failures it has no checks.

    Raises UserError for an emulated device, or one that could not even be timed doing nothing.
    """
    emulated = found.device.emulated or ("the runner's processor is emulated" if found.machine.get("emulated") else "")
    if emulated:
        raise UserError(f"no latency table of {found.device.name}: {emulated}; its timings mean nothing")
    times: dict[tuple[str, Operation, str], list[float]] = {}
    failures = []
    for key, tasks in made.tasks.items():
        for task in tasks:
            record = found.records.get(task.id)
            if record and record["status"] == "ok":
                times.setdefault(key, []).extend(us / 1e3 for us in record["result"]["latencies_us"])
            else:
                kind, operation, family = key
                failures.append(task_failure(f"{kind or operation.name} ({family})", task, record))
    idle = next((ms for (kind, _, _), ms in times.items() if kind == _IDLE), None)
    if idle is None:
        raise UserError(f"no latency table of {found.device.name}: {failures[0].error}")
    runtime = found.machine["runtime"]
    table = make_table(
        made.graph,
        [make_entry(operation, family, ms) for (kind, operation, family), ms in times.items() if not kind],
        {}
        if failures
        else {family: statistics.median(ms) for (kind, _, family), ms in times.items() if kind == _WHOLE},
        device=f"{found.device.name} {found.device.abi}",
        runtime=f"{runtime['name']} {runtime['version']}",
        threads=made.job.settings.threads[0],
        overhead_ms=statistics.median(idle),
    )
    return table, tuple(failures)
