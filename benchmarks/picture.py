"""The picture of the README, drawn from a report.json alone: `python -m benchmarks.picture --report=FILE`."""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags
from tfq_tools.command import new_flags, run_command

from tfq.errors import UserError

FLAGS = new_flags()
flags.DEFINE_string("report", "out/demo/report.json", "A report of tfq-quantize.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/images/layers.png", "The picture.", flag_values=FLAGS)

GROUPS = {"Picture": ("report", "output")}
SUMMARY = "Draw every layer's error against float from report.json."


def main(values: flags.FlagValues) -> None:
    from tfq.report.pictures import layer_errors

    report = json.loads(Path(values.report).read_text(encoding="utf-8"))
    figure = layer_errors(report)
    if figure is None:
        raise UserError(f"{values.report} has no errors of layers; give the report.json of an int8 run")
    figure.axes[0].set_title(f"{report['model']['name']}: int8 against float, layer by layer", fontsize=10)
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Software": None})


def run() -> None:
    run_command("benchmarks.picture", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
