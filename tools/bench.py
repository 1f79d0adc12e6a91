"""tfq-bench: latency and accuracy of .tflite models on devices. Flags -> tfq_bench -> a table and a JSON per device.

Exit codes: those of every command, and 3 where something failed on a device or a model could not be run; the
report is there and says what.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from tfq_bench.job import KERNELS, Settings
from tfq_tools.arguments import as_flag, check_idle
from tfq_tools.command import EVALUATION, SAMPLES, SCORE, new_flags, run_command
from tfq_tools.supervise import FAILED

from tfq.errors import UserError
from tfq.evaluation.names import name_models

if TYPE_CHECKING:
    from tfq_bench.bench import Run
    from tfq_bench.elf import Target
    from tfq_bench.results import Description

    from tfq.evaluation.metric import Metric
    from tfq.execution.progress import Progress

_BEGINNING = b'{\n "kind": "tfq-bench"'  # of a report

GROUPS = {
    "Models and data": {
        **SAMPLES,
        "evaluation_data": f"{SAMPLES['evaluation_data']} Without it the inputs are random: latency and memory are"
        " measured, accuracy is not.",
        **SCORE,
        "result": "The --output_dir of a tfq-quantize run, in place of --models. Its two files are measured, and the"
        " figures are added to its report.json and report.html.",
    },
    "Devices": {
        "device": "host: this machine. adb: Android devices.",
        "serials": "Devices as `adb devices` lists them, or HOST:PORT, or all.",
        "library": "The runtime's library for the devices, such as libLiteRt.so; one for each ABI.",
        "runner": "A built tfq_runner for the devices; otherwise it is built now.",
        "delegate": "Library of a GPU or NPU delegate to use.",
        "keep": "Leave the job's folder on the devices.",
    },
    "What is measured": {
        "threads": "Numbers of threads to measure, separated by commas.",
        "cpu_mask": "Processors to run on, in hexadecimal: f0 is 4 to 7. By default the system chooses.",
        "kernels": "Kernels for the operators that no delegate takes.",
        "profile_ops": "Also time each operator, in a process of its own.",
        "allowed_lsb": "How many steps of an output's grid a device may differ from this machine before its outputs"
        " count as different.",
    },
    "How long": {
        "rounds": "How often every model is timed, each time in a new process; the models take turns.",
        "warmup_seconds": "Seconds of untimed runs at the start of each process.",
        "seconds": "Time each model at least this many seconds in each process.",
        "min_runs": "Time each model at least this often in each process.",
        "max_runs": "Time each model at most this often in each process.",
        "deadline": "Kill a process after this many seconds.",
    },
    "Latency table": {
        "latency_table": "Time every operation of --model at every precision, and write the table to this file."
        " tfq-quantize reads it with --latency_table.",
        "model": "The model of --latency_table: .keras, .h5, a SavedModel or a float .tflite.",
    },
    "Output": {
        "output_dir": "Folder for a JSON file per device and for summary.txt.",
        "overwrite": "Replace what an earlier run wrote to --output_dir.",
    },
}
_TEXTS = dict.fromkeys(("result", "delegate", "latency_table", "model"), "")
_LISTS: dict[str, list[str]] = {"serials": ["all"], "threads": ["1"], "library": [], "runner": []}
_OTHERS = {"device": ("host", "adb"), "keep": False, "deadline": Settings.deadline_seconds, "allowed_lsb": 2.0}
_OUTPUT = {"output_dir": "out/bench", "overwrite": False}
_DEFAULTS = {**EVALUATION, **vars(Settings()), "kernels": KERNELS, **_TEXTS, **_LISTS, **_OTHERS, **_OUTPUT}
FLAGS = new_flags(GROUPS, _DEFAULTS, allowed_lsb=(0, 65536))
SUMMARY = (
    "Measure latency, memory, outputs and accuracy of .tflite models on this machine or on Android devices, and compare"
    " each model with the first (docs/on_device.md). The exit code is 3 if anything failed."
)


def main(values: flags.FlagValues) -> int:
    from tfq.execution.progress import Lines

    progress = Lines(sys.stderr)
    _check_flags(values)
    settings = settings_from_flags(values)
    devices = find_devices(values, progress)
    if values.latency_table and len(devices) > 1:
        raise UserError(f"a latency table is for one device; name one of {', '.join(devices)} with --serials")
    failed = False
    try:
        if values.models or values.result:
            failed |= compare_models(values, settings, devices, progress)
        if values.latency_table:
            ((_, run),) = devices.values()
            failed |= write_latency_table(values, settings, run, progress)
    except KeyboardInterrupt:
        if values.device == "adb":
            print("the devices continue by themselves; run the same command again for their results", file=sys.stderr)
        raise
    return FAILED if failed else 0


def _metric(values: flags.FlagValues) -> Metric | None:
    """What judges the outputs; None without data."""
    from tfq.evaluation.metrics import find_metric

    found = find_metric(values.metric, outputs=values.outputs, decoder=values.decoder)
    return found if values.evaluation_data else None


def _check_flags(values: flags.FlagValues) -> None:
    from tfq.data.location import check_sources
    from tfq.models.model_files import check_model_file

    if bool(values.latency_table) != bool(values.model):
        raise UserError("--latency_table and --model go together: the file to write, and the model to time")
    if values.models and values.result:
        raise UserError("--models and --result are both given; --result measures the files of that run, leave one out")
    if values.result:
        from tfq.report.devices import read_report, rendered

        rendered(read_report(Path(values.result)), Path(values.result, "report.json"))  # told before all measuring
    named = values.models or values.result
    if not named and not values.latency_table:
        raise UserError("missing --models, or --latency_table and --model; tfq-bench --help lists the flags")
    if values.evaluation_data and not named:
        raise UserError("missing --models; tfq-bench --help lists the flags")
    check_sources(values.evaluation_data or None, annotations=values.annotations)
    if values.latency_table:
        check_model_file(Path(values.model))
    _metric(values)  # a misspelt one is told before the data is read
    reading = ("preprocess", "num_samples", "metric", "outputs", "decoder", "annotations")
    check_idle(values, dict.fromkeys(reading, bool(values.evaluation_data)), "there is no --evaluation_data; add it")
    compared = ("allowed_lsb", "output_dir", "overwrite", "profile_ops")
    check_idle(values, dict.fromkeys(compared, bool(named)), "no --models or --result are compared; leave it out")
    android = dict.fromkeys(("serials", "keep"), values.device == "adb")
    check_idle(values, android, "--device is host; add --device=adb, or leave it out")


def compare_models(
    values: flags.FlagValues, settings: Settings, devices: Mapping[str, tuple[Description, Run]], progress: Progress
) -> bool:
    """Measures --models or those of --result, writes and prints the reports; whether anything failed."""
    from tfq_bench.bench import prepare, run_bench
    from tfq_bench.inputs import random_samples
    from tfq_bench.summary import device_summary

    from tfq.data.loading import Selection, load_samples
    from tfq.evaluation.evaluate import check_metric, few_outputs, input_signatures
    from tfq.execution.files import staged_directory
    from tfq.execution.resources import Resources
    from tfq.report.devices import MODELS, merge_devices

    result = Path(values.result) if values.result else None
    models = name_models([Path(path) for path in values.models] if result is None else [result / n for n in MODELS])
    readable = _first_readable(list(models.values()))
    signatures, metric = input_signatures(readable), _metric(values)
    if metric is None:
        samples = random_samples(signatures, seed=values.seed)
    else:
        samples = load_samples(
            values.evaluation_data,
            signatures,
            Selection(values.num_samples or None),
            preprocess=values.preprocess,
            annotations=values.annotations,
            resources=Resources(progress=progress),
        )
        check_metric(metric, samples, *few_outputs(readable, samples))
    output, names = Path(values.output_dir), {serial: re.sub(r"[^\w.-]", "_", serial) + ".json" for serial in devices}
    ours = {"summary.txt", "work", *names.values(), *_earlier(output)}
    with staged_directory(output, overwrite=values.overwrite, ours=ours) as folder:
        work = folder / "work"
        bench = prepare(
            models,
            samples,
            work / "job",
            settings=settings,
            metric=metric,
            allowed_lsb=values.allowed_lsb,
            seed=values.seed,
            progress=progress,
        )
        reports = run_bench(bench, devices, work, progress=progress)
        texts = [device_summary(report, bench) for report in reports]
        for report, name in zip(reports, names.values(), strict=True):
            (folder / name).write_text(report.to_json(), encoding="utf-8")
        (folder / "summary.txt").write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")
        shutil.rmtree(work)
    if result is not None:
        found = [json.loads((output / name).read_text(encoding="utf-8")) for name in names.values()]
        merge_devices(result, found, as_flag)
    print("\n\n\n".join(texts))
    print("\n" + "\n".join(f"report: {output / name}" for name in names.values()))
    return any(report.failures for report in reports)


def write_latency_table(values: flags.FlagValues, settings: Settings, run: Run, progress: Progress) -> bool:
    """Times the operations of --model on the only device, writes the table; whether anything failed."""
    from tfq_bench.latency_job import latency_table, prepare_table
    from tfq_tools.profile import prepared_graph, table_summary

    from tfq.execution.files import write_atomic
    from tfq.report.words import counted

    graph = prepared_graph(values)
    with tempfile.TemporaryDirectory(prefix="tfq-bench-") as folder:
        made = prepare_table(graph, Path(folder) / "job", settings=settings, seed=values.seed, progress=progress)
        (Path(folder) / "device").mkdir()
        with progress.task("time the operations", 0, expected_seconds=made.job.expected_seconds()):
            found = run(made.job, Path(folder) / "device")
        table, failures = latency_table(made, found)
    write_atomic(Path(values.latency_table), table.to_json().encode())
    print(f"\n{table.device}, {table.runtime}, {counted(table.threads, 'thread')}")
    print(table_summary(table, Path(values.latency_table)))
    for failure in failures:
        print(f"failed: {failure.model} ({failure.task}): {failure.stage}: {failure.error}")
    return bool(failures)


def settings_from_flags(values: flags.FlagValues) -> Settings:
    from tfq.execution.inputs import check_regular

    if not all(text.strip().isdecimal() for text in values.threads):
        raise UserError(f"--threads is {','.join(values.threads)}; expected numbers such as 1,4")
    if values.delegate:
        check_regular(Path(values.delegate), f"--delegate={values.delegate}")
    given = {name: values[name].value for name in vars(Settings()) if name in values} | {
        "threads": tuple(map(int, values.threads)),
        "cpu_mask": values.cpu_mask.lower().removeprefix("0x"),
        "delegate": Path(values.delegate) if values.delegate else None,
        "deadline_seconds": values.deadline,
    }
    return Settings(**given)


def find_devices(values: flags.FlagValues, progress: Progress) -> dict[str, tuple[Description, Run]]:
    """The devices of the flags by serial, each with what runs a job on it."""
    from tfq_bench.build import find_runner
    from tfq_bench.elf import elf_target, host_target
    from tfq_bench.host_device import describe_host, run_on_host
    from tfq_bench.library import find_library

    libraries, runners = [Path(path) for path in values.library], [Path(path) for path in values.runner]
    if values.device == "host":
        target = host_target()
        library = find_library(target, libraries)
        runner = find_runner(target, runners, progress=progress)
        return {"host": (describe_host(), lambda job, folder: run_on_host(job, runner, library, folder))}
    from tfq_bench.adb import Adb
    from tfq_bench.adb_answers import devices
    from tfq_bench.android_device import Programs, describe, run_on_android

    def find(target: Target) -> Programs:
        return Programs(target, find_runner(target, runners, progress=progress), find_library(target, libraries))

    for path in (*libraries, *runners):
        elf_target(path)  # a file that is neither is told before any device is asked
    serials, attached = values.serials, [found.serial for found in devices()]
    if serials == ["all"]:
        serials = attached
        if not serials:
            raise UserError("adb lists no device; connect one and allow USB debugging, then check `adb devices`")
    for serial in serials:
        if serial not in attached and ":" not in serial:  # HOST:PORT is connected to
            raise UserError(f"--serials names {serial!r}; adb lists {', '.join(attached) or 'no device'}")
    if len(set(serials)) < len(serials):
        raise UserError(f"--serials names a device twice: {','.join(serials)}")

    def run(serial: str) -> Run:
        return lambda job, folder: run_on_android(Adb(serial), job, folder, find=find, keep=values.keep)

    return {serial: (describe(serial, {}, None), run(serial)) for serial in serials}


def _first_readable(paths: list[Path]) -> Path:
    """The first model that can be read; one that cannot is a failure in the report."""
    from tfq.evaluation.evaluate import input_signatures

    errors = []
    for path in paths:
        try:
            input_signatures(path)
        except UserError as error:
            errors.append(str(error))
        else:
            return path
    raise UserError("; ".join(errors))


def _earlier(folder: Path) -> list[str]:
    """Reports of earlier runs in a folder, on whatever devices."""
    from tfq.execution.inputs import kind_of

    def begins(path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING))

    return [p.name for p in folder.glob("*.json") if kind_of(p) == "a file" and begins(p) == _BEGINNING]


def run() -> None:
    run_command("tfq-bench", main, FLAGS, summary=SUMMARY, groups=GROUPS, writes=("latency_table",))


if __name__ == "__main__":
    run()
