"""The picture of the README, drawn from a report.json alone: `python -m benchmarks.picture --report=FILE`."""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags
from tfq_tools.command import new_flags, run_command

FLAGS = new_flags()
flags.DEFINE_string("report", "out/demo/report.json", "A report of tfq-quantize.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/images/layers.png", "The picture.", flag_values=FLAGS)

GROUPS = {"Picture": ("report", "output")}
SUMMARY = "Draw every layer's error against float from report.json."


def main(values: flags.FlagValues) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    report = json.loads(Path(values.report).read_text(encoding="utf-8"))
    layers = [layer for layer in report["layers"] if layer["own_sqnr_db"] is not None]
    places = range(len(layers))
    figure, axes = plt.subplots(figsize=(9, 4.2), dpi=120, layout="constrained")
    axes.bar(places, [x["own_sqnr_db"] for x in layers], color="#9ecae1", label="the layer's own error")
    axes.plot(
        places,
        [x["sqnr_db"] for x in layers],
        color="#08519c",
        marker="o",
        markersize=4,
        label="error that has arrived at it",
    )
    axes.set_xticks(places, [x["name"] for x in layers], rotation=45, ha="right", fontsize=8)
    axes.set_ylabel("SQNR against float, dB (more is better)")
    axes.set_title(f"{report['model']['name']}: int8 against float, layer by layer", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    axes.set_ylim(0, 1.15 * max(x["own_sqnr_db"] for x in layers))
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Software": None})


def run() -> None:
    run_command("benchmarks.picture", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
