"""tfq-profile: the latency table of a model's operations on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from tfq_tools.command import new_flags, run_command

if TYPE_CHECKING:
    from tfq.allocation.latency_table import LatencyTable
    from tfq.models.graph import Graph

GROUPS = {
    "Model and table": {
        "model": "The model: .keras, .h5, a SavedModel folder or a float .tflite.",
        "output": "The file to write: the latency table, as JSON.",
    },
    "How it is timed": {
        "threads": "Number of threads.",
        "min_runs": "Time each operation at least this many times.",
        "seconds": "Time each operation for about so many seconds.",
        "seed": "Seed of the random inputs.",
    },
}
_DEFAULTS = {"model": "", "output": "", "threads": 1, "min_runs": 48, "seconds": 0.2, "seed": 0}
FLAGS = new_flags(GROUPS, _DEFAULTS, threads=(1, 256), min_runs=(4, 10**6), seconds=(0, 86400))
SUMMARY = "Time every operation of a model at every precision on this machine, for --latency_table of tfq-quantize."


def main(values: flags.FlagValues) -> None:
    from tfq.models.model_files import check_model_file

    check_model_file(Path(values.model))  # before the libraries are imported, which takes seconds

    from tfq.allocation.profile import profile
    from tfq.execution.files import write_atomic
    from tfq.execution.progress import Lines

    table = profile(
        prepared_graph(values),
        threads=values.threads,
        runs=values.min_runs,
        seconds=values.seconds,
        seed=values.seed,
        progress=Lines(sys.stderr),
    )
    write_atomic(Path(values.output), table.to_json().encode())
    print(table_summary(table, Path(values.output)))


def prepared_graph(values: flags.FlagValues) -> Graph:
    """That of --model, checked on random inputs."""
    from tfq.allocation.profile import random_inputs
    from tfq.models.load import load_model
    from tfq.models.prepare import prepare
    from tfq.targets.cpu import CPU

    loaded = load_model(Path(values.model))
    samples = random_inputs(loaded.graph, 4, values.seed)
    return prepare(loaded.graph, samples, original=loaded, seed=values.seed, target=CPU).graph


def table_summary(table: LatencyTable, path: Path) -> str:
    """What the table predicts of whole models beside what was measured, and where it is."""
    from tfq.report.table import format_table

    rows = [
        [
            c.model,
            f"{c.measured_ms:.3f} ms",
            f"{table.in_place[c.model]:.2f} x" if c.model in table.in_place else "",
            "" if c.model in table.in_place else f"{c.predicted_ms:.3f} ms",
            "" if c.model in table.in_place else f"{c.predicted_ms / c.measured_ms - 1:+.1%}",
        ]
        for c in table.checks
    ]
    header = ["whole model", "measured", "of its operations' sum", "predicted", "off by"]
    checks = [format_table(header, rows, left=1)] if rows else []
    size = f"{len(table.entries)} entries in {path}; every call of the runtime takes {table.overhead_ms:.4f} ms on top"
    return "\n".join([*checks, size])


def run() -> None:
    required = ("model", "output")
    run_command("tfq-profile", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required, writes=("output",))


if __name__ == "__main__":
    run()
