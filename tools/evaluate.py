"""tfq-evaluate: any .tflite models side by side on any data. Flags -> tfq.evaluate -> a table."""

from __future__ import annotations

from pathlib import Path

from absl import flags
from tfq_tools.arguments import check_idle
from tfq_tools.command import define_evaluation_flags, lasting_imports, new_flags, run_command

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
    from tfq.execution.files import write_atomic

    with lasting_imports():
        from tfq.library.comparison import evaluate

    check_idle(values, {"threads": values.latency_runs > 0}, "--latency_runs is 0: nothing is timed; leave it out")
    found = evaluate(
        values.models,
        values.evaluation_data,
        metric=values.metric,
        preprocess=values.preprocess,
        num_samples=values.num_samples,
        seed=values.seed,
        progress=True,
        latency_runs=values.latency_runs,
        threads=values.threads,
        xnnpack=values.xnnpack,
    )
    print(found)
    if values.json:
        write_atomic(Path(values.json), found.to_json().encode())


def run() -> None:
    required = ("models", "evaluation_data")
    run_command("tfq-evaluate", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required, writes=("json",))


if __name__ == "__main__":
    run()
