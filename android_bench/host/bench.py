"""One run of tfq-bench: prepare the job, run it on every device at once, report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tfq_bench.collect import Bench, Prepared, device_report, lost_device
from tfq_bench.inputs import Feed, feed_of, per_sample, write_inputs
from tfq_bench.job import Job, Settings, Task, bench_tasks, check_size, model_path
from tfq_bench.reference import reference_outputs
from tfq_bench.report import DeviceReport, Failure
from tfq_bench.results import Collected, Description
from tfq_bench.tensors import read_tensors

from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import inputs_of
from tfq.evaluation.metrics import Wanted, find_metric
from tfq.execution.interpreter import TfliteModel
from tfq.execution.progress import SILENT, Progress
from tfq.execution.tflite import read_content

# Runs a job in a folder of this host's and gives what came of it.
Run = Callable[[Job, Path], Collected]


def prepare(
    models: Mapping[str, Path],
    samples: Samples,
    folder: Path,
    *,
    settings: Settings,
    metric: Wanted | None = "top1",
    allowed_lsb: float = 2.0,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Bench:
    """Packs the job into `folder` and computes what this host makes of every model.

    A model that this host cannot read or run is a failure of the bench, not an error.

    Args:
      models: .tflite files by name; the first is the baseline.
      samples: inputs in real values by input name.
      metric: see `find_metric`; None: the samples are random, and nothing is judged.
      allowed_lsb: see `Bench`.
      seed: of the bootstrap intervals.

    Raises UserError where no model can be run.
    """
    check_size(len(models), settings)
    (folder / "models").mkdir(parents=True)
    (folder / "inputs").mkdir()
    containers: dict[Feed, str] = {}
    prepared: dict[str, Prepared] = {}
    failures: list[Failure] = []
    placed: list[tuple[tuple[int, ...], Task]] = []
    for number, (name, path) in enumerate(models.items()):
        try:
            content = read_content(path)
            model = TfliteModel(content)
            feed = feed_of(model)
            arrays = inputs_of(model, samples.arrays, name)
            if feed not in containers:
                container = f"inputs/i{len(containers):03}.tensors"
                write_inputs(folder / container, feed, arrays)
                containers[feed] = container
            inputs = read_tensors(folder / containers[feed])
            reference = reference_outputs(content, inputs, name=name, kernels=settings.kernels, progress=progress)
            for output in reference:
                per_sample(output, feed, len(samples))
        except UserError as error:
            failures.append(Failure(name, "", "host", "error", None, str(error)))
            continue
        file = folder / model_path(number)
        file.write_bytes(content)
        tasks = bench_tasks(number, containers[feed], settings)
        placed += tasks
        prepared[name] = Prepared(name, file, feed, model.outputs, reference, tuple(task for _, task in tasks))
    if not prepared:
        raise UserError("; ".join(failure.error for failure in failures))
    ordered = tuple(task for _, task in sorted(placed, key=lambda item: item[0]))
    files = {
        path: folder / path for path in (*sorted(containers.values()), *dict.fromkeys(task.model for task in ordered))
    }
    job = Job(ordered, files, settings)
    judge = metric and find_metric(metric)
    return Bench(tuple(models), prepared, job, tuple(failures), samples, judge, allowed_lsb, seed)


def run_bench(
    bench: Bench, devices: Mapping[str, tuple[Description, Run]], folder: Path, *, progress: Progress = SILENT
) -> list[DeviceReport]:
    """Runs the job on all devices at the same time; one that fails is a record and stops no other.

    Args:
      devices: by serial: what is known of the device beforehand, and what runs a job on it.
      folder: where what they leave is kept while it is looked at.
    """
    found: dict[str, Collected | UserError] = {}
    broken: list[BaseException] = []

    def work(serial: str, run: Run, own: Path) -> None:
        try:
            found[serial] = run(bench.job, own)
        except UserError as error:
            found[serial] = error
        except BaseException as error:
            broken.append(error)

    threads = []
    for number, (serial, (_, run)) in enumerate(devices.items()):
        own = folder / f"device{number}"
        own.mkdir(parents=True)
        # Daemons: an interrupted run ends at once and leaves the devices at work, for the next to collect.
        threads.append(threading.Thread(target=work, args=(serial, run, own), daemon=True))
    with progress.task("measure", 0, expected_seconds=bench.job.expected_seconds()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if broken:
        raise broken[0]
    return [
        lost_device(bench, description, result)
        if isinstance(result := found[serial], UserError)
        else device_report(bench, result)
        for serial, (description, _) in devices.items()
    ]
