"""tfq-evaluate: any .tflite models side by side on any data. Flags -> tfq.evaluate -> a table."""

from __future__ import annotations

from pathlib import Path

from absl import flags
from tfq_tools.arguments import check_idle
from tfq_tools.command import EVALUATION, SAMPLES, SCORE, lasting_imports, new_flags, run_command

GROUPS = {
    "Models and data": SAMPLES,
    "What is measured": {
        **SCORE,
        "latency_runs": "Time each model at least this many times; 0: do not time.",
        "threads": "Number of threads while timing.",
        "xnnpack": "Run with the XNNPACK delegate, as devices do.",
    },
    "Output": {"json": "Also write every measured number to this JSON file."},
}
_DEFAULTS = {**EVALUATION, "latency_runs": 48, "threads": 1, "xnnpack": True, "json": ""}
FLAGS = new_flags(GROUPS, _DEFAULTS, latency_runs=(0, 10**6), threads=(1, 256))
SUMMARY = "Compare .tflite models on the same samples: score, agreement with the first model, size, latency."


def main(values: flags.FlagValues) -> None:
    from tfq.execution.files import write_atomic

    with lasting_imports():
        from tfq.library.comparison import evaluate

    check_idle(values, {"threads": values.latency_runs > 0}, "--latency_runs is 0: nothing is timed; leave it out")
    options = {name: values[name].value for name in _DEFAULTS if name not in ("models", "evaluation_data", "json")}
    found = evaluate(values.models, values.evaluation_data, progress=True, **options)
    print(found)
    if values.json:
        write_atomic(Path(values.json), found.to_json().encode())


def run() -> None:
    required = ("models", "evaluation_data")
    run_command("tfq-evaluate", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=required, writes=("json",))


if __name__ == "__main__":
    run()
