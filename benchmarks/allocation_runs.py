"""Whole runs of tfq with a budget or a largest accuracy drop, each in a process of its own, judged on test samples."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import common, cost
from benchmarks.cases import CaseFiles
from benchmarks.common import TfqRun
from tfq.recipe import Recipe

MAX_DROP = 0.5
_HALF_WIDTH = 1.96  # of a 95 % interval, in standard errors


def run_budget(files: CaseFiles, num_samples: int, budget: float, seed: int) -> dict[str, Any]:
    """`--pipeline=advanced --size_budget=...`.

    Raises:
      VerificationError: the file is not what was specified.
    """
    recipe = dataclasses.replace(_plain(files, num_samples, seed), pipeline="advanced", size_budget=budget)
    with tempfile.TemporaryDirectory() as temporary:
        run = common.in_fresh_process(common.run_tfq, recipe, Path(temporary))
    return {"budget": budget, "seed": seed} | _judged(run) | _allocated(run)


def run_drop(files: CaseFiles, num_samples: int, seed: int, pipeline: str = "advanced") -> dict[str, Any]:
    """Plain int8 and a pipeline with `--max_accuracy_drop=0.5`, and their files side by side.

    Raises:
      VerificationError: one of the files is not what was specified.
    """
    plain = _plain(files, num_samples, seed)
    recipes = {"int8": plain, pipeline: dataclasses.replace(plain, pipeline=pipeline, max_accuracy_drop=MAX_DROP)}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        runs = {n: common.in_fresh_process(common.run_tfq, recipe, directory / n) for n, recipe in recipes.items()}
        paths = {name: directory / name / "model.tflite" for name in runs}
        beside = common.in_fresh_process(cost.side_by_side, paths, files.calibration)
    found = {name: _judged(run) | {"latency_ratio": beside[name]["latency_ratio"]} for name, run in runs.items()}
    mixed = found[pipeline] | _allocated(runs[pipeline])
    return {"seed": seed, "pipeline": pipeline, "int8": found["int8"], pipeline: mixed}


def _plain(files: CaseFiles, num_samples: int, seed: int) -> Recipe:
    return files.recipe(num_samples, seed)


def _judged(run: TfqRun) -> dict[str, Any]:
    """What the file is, and points against float with the standard error of the paired difference."""
    evaluation = run.report["evaluation"]
    before, after = evaluation["models"]
    difference, size = after["difference"], after["size"]
    return {
        "float_score": before["score"]["value"],
        "difference": difference,
        "standard_error": (difference["high"] - difference["low"]) / (2 * _HALF_WIDTH),
        "agreement": after["agreement"]["value"],
        "test_samples": evaluation["samples"],
        "calibration_samples": run.report["calibration_samples"],
        "weight_bits": size["weight_bits"],
        "file_bytes": size["file_bytes"],
        "download_bytes": size["download_bytes"],
        "seconds": run.seconds,
        "peak_memory_mb": run.peak_memory_mb,
    }


def _allocated(run: TfqRun) -> dict[str, Any]:
    """How the precisions were found."""
    found: Mapping[str, Any] = run.report["allocation"]
    rounds = [
        {
            "kind": entry["kind"],
            "name": entry["name"],
            "predicted": entry["predicted"],
            "measured_loss": entry["measured"]["loss"],
            "drop": entry["measured"]["drop"],
            "holds": entry["holds"],
        }
        for entry in found["rounds"]
    ]
    candidates = found["allocation"]["candidates"].values()
    return {"precisions": " ".join(candidates), "attained": found["attained"], "rounds": rounds}
