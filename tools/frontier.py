"""tfq-frontier: accuracy over size and latency, from the smallest model to one that loses nothing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from absl import flags
from tfq_tools.arguments import check_idle, with_flags
from tfq_tools.command import lasting_imports, run_command
from tfq_tools.recipe_flags import (
    check_files,
    groups_of,
    ledger_from_flags,
    new_recipe_flags,
    recipe_from_flags,
)

from tfq.execution.files import FRONTIER_NAMES, MOST_POINTS, POINT_NAMES
from tfq.options import check_written
from tfq.recipe import UNBOUND

ABSENT = {
    "precision": "whose points are static int8",
    "activation_bits": "whose points are files, and TFLite runs no fewer bits",
    "mode": "whose points are fitted one layer at a time, or in sequence with --reconstruct",
    **dict.fromkeys(
        ("batch_norm_tuning", "network_tuning", "distill", "distillation_data", "distillation_steps"),
        "whose points are not tuned",
    ),
    **dict.fromkeys(("labels", "package", "model_card", "model_explorer", "nms"), "which only compares models"),
    **dict.fromkeys(UNBOUND, "which has models of every size and accuracy"),
}
"""Flag of tfq-quantize -> why there is none here."""
FLAGS = new_recipe_flags(output=", ".join(FRONTIER_NAMES), without=ABSENT)
FLAGS.set_default("pipeline", "advanced")
_POINTS = (
    "How many size budgets to try, from the smallest model to the best one; with a latency table also as many latency"
    " budgets."
)
_RECONSTRUCT = (
    "Reconstruct every point in sequence, as tfq-quantize does with that budget. The models are better, but each takes"
    " as long as a run."
)
_WRITE = (
    "Also write the models of these points: all, or names such as point_1,point_3. Run again with the same --journal to"
    " write points that you have seen."
)
flags.DEFINE_integer("points", 12, _POINTS, lower_bound=2, upper_bound=MOST_POINTS, flag_values=FLAGS)
flags.DEFINE_boolean("reconstruct", False, _RECONSTRUCT, flag_values=FLAGS)
flags.DEFINE_list("write", [], _WRITE, flag_values=FLAGS)
SUMMARY = (
    "Measure how accurate the model is at every size, and with a latency table at every latency, to choose a budget for"
    " tfq-quantize."
)


def main(values: flags.FlagValues) -> None:
    alone = "points are put together from layers that are fitted one by one; add --reconstruct, or leave it out"
    check_idle(values, {"granularity": values.reconstruct}, alone)
    check_written(values.write, values.points * (2 if values.latency_table else 1))
    recipe = recipe_from_flags(values, **UNBOUND)
    output, ledger = Path(values.output_dir), ledger_from_flags(values, recipe)
    check_files(recipe)

    with lasting_imports():
        from tfq.execution.engines import engine
        from tfq.execution.files import staged_directory
        from tfq.execution.progress import Course
        from tfq.pipeline import explore, plan_of_frontier

    with staged_directory(output, overwrite=values.overwrite, ours=(*FRONTIER_NAMES, *POINT_NAMES)) as directory:
        with engine(values.engine, recipe.workers) as executor:
            report = explore(
                recipe,
                points=values.points,
                reconstruct=values.reconstruct,
                write=values.write,
                ledger=ledger,
                progress=Course(sys.stderr, plan_of_frontier()),
                executor=executor,
            )
        report = dataclasses.replace(report, warnings=tuple(map(with_flags, report.warnings)))
        report.write(directory)
    print(report.table())
    for warning in report.warnings:
        print(f"warning: {warning}")
    print("* by its loss on calibration samples, no other point beats this one in size, latency and accuracy together.")
    print(f"Everything is in {output}")


def run() -> None:
    required = ("model", "calibration_data", "output_dir")
    groups = {**groups_of(FLAGS), "Frontier": ("points", "reconstruct", "write")}
    run_command("tfq-frontier", main, FLAGS, summary=SUMMARY, groups=groups, required=required)


if __name__ == "__main__":
    run()
