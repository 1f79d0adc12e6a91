"""tfq-report: several results of tfq-quantize side by side, as a page and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.arguments import as_flag, with_flags
from tfq_tools.command import new_flags, run_command

GROUPS = {
    "What to compare": {
        "runs": "Output directories of tfq-quantize or their report.json, two or more; --runs=a,b is the same as a b.",
    },
    "Output": {"output": "The page to write."},
}
_DEFAULTS: dict[str, Any] = {"runs": [], "output": "comparison.html"}
FLAGS = new_flags(GROUPS, _DEFAULTS)
SUMMARY = "Compare results of tfq-quantize: figures, layers and options that differ, as one page."


def main(values: flags.FlagValues) -> None:
    from tfq.errors import UserError
    from tfq.execution.files import write_atomic
    from tfq.report.comparison import compare, comparison_page, comparison_table, read_runs

    directories = list(dict.fromkeys(map(_directory, values.runs)))
    if len(directories) < 2:
        raise UserError(f"{directories[0]} alone is nothing to compare; give two results or more")
    found = compare(read_runs(directories))
    write_atomic(Path(values.output), comparison_page(found, as_flag).encode())
    print(with_flags(comparison_table(found)))
    print(f"\nEverything is in {values.output}")


def _directory(run: str) -> Path:
    path = Path(run)
    return path.parent if path.name == "report.json" else path


def run() -> None:
    run_command("tfq-report", main, FLAGS, summary=SUMMARY, groups=GROUPS, required=("runs",), writes=("output",))


if __name__ == "__main__":
    run()
