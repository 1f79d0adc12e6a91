"""tfq-evaluate: any .tflite models side by side on any data. Flags -> tfq.evaluation.evaluate -> a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from tfq_tools.arguments import check_idle
from tfq_tools.command import define_evaluation_flags, new_flags, run_command

from tfq.errors import UserError

if TYPE_CHECKING:
    from tfq.evaluation.bootstrap import Estimate
    from tfq.evaluation.evaluate import Evaluation, ModelEvaluation

MOST_THREADS = 256

FLAGS = new_flags()
define_evaluation_flags(FLAGS)
flags.DEFINE_integer(
    "latency_runs",
    48,
    "Time each model at least this many times; 0: do not time.",
    lower_bound=0,
    upper_bound=10**6,
    flag_values=FLAGS,
)
flags.DEFINE_integer("threads", 1, "Number of threads while timing.", 1, MOST_THREADS, flag_values=FLAGS)
flags.DEFINE_boolean("xnnpack", True, "Run with the XNNPACK delegate, as devices do.", flag_values=FLAGS)
flags.DEFINE_string("json", "", "Also write every measured number to this JSON file.", flag_values=FLAGS)

GROUPS = {
    "Models and data": ("models", "evaluation_data", "preprocess", "num_samples"),
    "What is measured": ("metric", "seed", "latency_runs", "threads", "xnnpack"),
    "Output": ("json",),
}
SUMMARY = "Compare .tflite models on the same samples: score, agreement with the first model, size, latency."


def main(values: flags.FlagValues) -> None:
    from tfq.data.loading import load_samples
    from tfq.evaluation.evaluate import check_metric, evaluate, input_signatures
    from tfq.evaluation.metrics import find_metric
    from tfq.execution.files import write_atomic
    from tfq.execution.progress import Lines

    progress = Lines(sys.stderr)
    check_idle(values, {"threads": values.latency_runs > 0}, "--latency_runs is 0: nothing is timed; leave it out")
    models = name_models([Path(path) for path in values.models])
    find_metric(values.metric)  # a misspelt one is told before the data is read
    signatures = [input_signatures(path) for path in models.values()]  # all files are opened before the data is read
    samples = load_samples(
        values.evaluation_data,
        signatures[0],
        limit=values.num_samples or None,
        preprocess=values.preprocess,
        progress=progress,
    )
    check_metric(values.metric, next(iter(models.values())), samples)
    found = evaluate(
        models,
        samples,
        metric=values.metric,
        seed=values.seed,
        latency_runs=values.latency_runs,
        latency_threads=values.threads,
        delegate=values.xnnpack,
        progress=progress,
    )
    print(evaluation_table(found))
    if values.json:
        write_atomic(Path(values.json), found.to_json().encode())


def name_models(paths: list[Path]) -> dict[str, Path]:
    """A short name for each file: its own, with as many folders before it as tell the files apart."""
    twice = [path for index, path in enumerate(paths) if path in paths[:index]]
    if twice:
        raise UserError(f"--models names {twice[0]} twice; to compare a file with itself, copy it")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return {str(Path(*path.parts[-depth:])): path for path in paths}


def evaluation_table(found: Evaluation) -> str:
    """The evaluation as text: one row a model, and below it what the columns mean."""
    from tfq.report.table import format_table, without_empty

    header = ["model", found.metric, "difference [95 %]", "agreement", "SQNR", "file", "download", "bits", "p50 ms"]
    header += ["p90 ms", "time ratio [95 %]"]
    rows = [_row(model, baseline=not index) for index, model in enumerate(found.models)]
    table = format_table(*without_empty(header, rows))
    notes = [
        f"{found.samples} samples; the others are compared with the first model."
        " Brackets: 95 % intervals (paired bootstrap)."
    ]
    if len(found.outputs) > 1:
        notes.append(
            f"Only the first output, {found.outputs[0]!r}, is measured, of {', '.join(map(repr, found.outputs))}."
        )
    if found.omitted:
        notes.append(f"No score: {found.omitted}.")
    timed = found.models[0].latency
    if timed:
        threads = f"{timed.threads} thread{'s' if timed.threads > 1 else ''}"
        notes.append(
            f"Latency on this machine: {timed.runs} runs each after {timed.warm_up} untimed, in turns, batch"
            f" {timed.batch}, {threads}, XNNPACK {'on' if timed.delegate else 'off'}."
        )
    notes.append("File and download (compressed) in bytes; bits: mean bits of a weight.")
    return "\n".join([table, "", *notes])


def _row(model: ModelEvaluation, *, baseline: bool) -> list[str]:
    from tfq.report.summary import number

    size, latency = model.size, model.latency
    same = model.sqnr is not None and model.sqnr.value is None
    return [
        model.name,
        number(model.score, 2),
        _with_interval(model.difference, 2, sign="+"),
        number(model.agreement, 2),
        "equal" if same else number(model.sqnr, 1),
        f"{size.file_bytes:,}" if size else "",
        f"{size.download_bytes:,}" if size else "",
        f"{size.weight_bits:.2f}" if size else "",
        f"{latency.p50_ms:.3f}" if latency else "",
        f"{latency.p90_ms:.3f}" if latency else "",
        "" if baseline or latency is None else _with_interval(latency.ratio, 2),
    ]


def _with_interval(found: Estimate | None, digits: int, *, sign: str = "") -> str:
    if found is None or found.value is None:
        return ""
    form = f"{sign}.{digits}f" if found.unit else f"{sign}.3g"
    text = f"{found.value:{form}}"
    return text if found.low is None else f"{text} [{found.low:{form}}, {found.high:{form}}]"


def run() -> None:
    required = ("models", "evaluation_data")
    run_command("tfq-evaluate", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required, writes=("json",))


if __name__ == "__main__":
    run()
