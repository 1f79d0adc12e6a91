"""A detector by tfq and by its peers, judged by average precision: `python -m benchmarks.detection`.

The case is FastestDet on COCO: 128 images to calibrate on, 128 others with 898 boxes to judge by. The untouched Keras
model goes through TFLiteConverter in float and in full-integer int8, its float file through ai-edge-quantizer, and the
model through `tfq.pipeline.quantize` with the options of `VARIANTS`. All files are decoded alike and judged on the same
images; latencies are ratios of models that take turns. Calibration has no labels, and nothing is tuned on test data.
Files are kept in --work: a run that was stopped goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import aeq, cases, common, tflite
from benchmarks.common import Bar
from tfq.data.boxes import padded
from tfq.data.loading import load_samples
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation, evaluate, input_signatures
from tfq.evaluation.latency import Timing
from tfq.evaluation.metrics import find_metric
from tfq.execution.progress import Lines, Progress
from tfq.recipe import Recipe
from tfq.report.summary import interval, number

DECODER = "fastestdet"
FLOAT, INT8 = "float", "tfq int8"
MOST_DROP = 0.5
WITHIN_DROP = f"tfq, AP50 drop at most {MOST_DROP:g}"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    INT8: {},
    "tfq int8 light": {"pipeline": "light"},
    "tfq 4 bits advanced": {"pipeline": "advanced", "weight_bits": 4},
    WITHIN_DROP: {"pipeline": "light", "max_accuracy_drop": MOST_DROP},
}
PEERS = ("TFLite int8", "ai-edge-quantizer int8", "ai-edge-quantizer 4 bits")
_POINTS = 0.3  # of AP50 that int8 may lose
_SECONDS = 3.0  # of latency for a model
_DEVIATIONS = 2 * 1.96  # between the ends of a 95 % interval

FLAGS = new_flags()
flags.DEFINE_list("variants", list(VARIANTS), "Which of tfq's files to make.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_string("work", "build/detection", "Folder of the files that are made.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of detection.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
      seconds: to make each file, evaluation and verification of tfq's included.
      by_ap50, by_map: all files by either metric, float first.
    """

    seconds: Mapping[str, float]
    by_ap50: Evaluation
    by_map: Evaluation

    def figures(self) -> dict[str, Any]:
        """As the benchmark's JSON keeps it: without every single timing."""
        evaluations = {name: dataclasses.asdict(getattr(self, name)) for name in ("by_ap50", "by_map")}
        for evaluation in evaluations.values():
            for model in evaluation["models"]:
                if model["latency"] is not None:
                    del model["latency"]["times_ms"]
        return {"seconds": dict(self.seconds), **evaluations}


def write_data(folder: Path) -> Path:
    """Write calibration.npz and test.npz; gives the path of the model."""
    model, calibration, test, labels = cases.data(cases.DETECTOR)
    np.savez(folder / "calibration.npz", x=calibration)
    boxes = []
    for classes, x, y, width, height in (found.T for found in labels):
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        boxes.append(np.column_stack([classes, *sides, np.ones(len(classes))]))
    np.savez(folder / "test.npz", x=test, y=padded(boxes))
    return Path(model)


def make_peers(model: Path, work: Path) -> dict[str, float]:
    """Write float.tflite and the peers' files; name -> seconds."""
    seconds = tflite.convert(model, work / "calibration.npz", work)
    (work / "int8.tflite").rename(_file(work, PEERS[0]))
    found = {FLOAT: seconds["float"], PEERS[0]: seconds["int8"]}
    with np.load(work / "calibration.npz") as arrays:
        calibration = arrays["x"]
    for name, bits in zip(PEERS[1:], (8, 4), strict=True):
        start = time.monotonic()
        options: dict[str, Any] = {"weight_bits": bits, "algorithm": aeq.ALGORITHMS[0]}
        _file(work, name).write_bytes(aeq.quantize(work / "float.tflite", calibration, **options))
        found[name] = time.monotonic() - start
    return found


def _file(work: Path, name: str) -> Path:
    return work / f"{name.replace(' ', '_').replace(',', '')}.tflite"


def measure(variants: Sequence[str], work: Path, *, seed: int, progress: Progress) -> Measured:
    """Make the files that are not there yet, and judge all.

    Raises:
      VerificationError: a file of tfq's is not what was specified.
    """
    with progress.task("data", 0):
        model = common.in_fresh_process(write_data, work)
    kept = work / "seconds.json"
    seconds: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if not set(PEERS) <= set(seconds):
        with progress.task("peers", 0):
            seconds |= common.in_fresh_process(make_peers, model, work)
        kept.write_text(json.dumps(seconds), encoding="utf-8")
    for variant in variants:
        if variant in seconds:
            continue
        recipe = Recipe(
            model=str(model),
            calibration_data=str(work / "calibration.npz"),
            evaluation_data=str(work / "test.npz"),
            metric="ap50",
            decoder=DECODER,
            seed=seed,
            **VARIANTS[variant],
        )
        folder = _file(work, variant).with_suffix("")
        with progress.task(variant, 0):
            seconds[variant] = common.in_fresh_process(common.run_tfq, recipe, folder).seconds
        (folder / "model.tflite").replace(_file(work, variant))
        kept.write_text(json.dumps(seconds), encoding="utf-8")
    files = {name: _file(work, name) for name in (FLOAT, *PEERS, *variants)}
    with progress.task("evaluation", 0):
        found = common.in_fresh_process(compare, files, work / "test.npz", seed)
    return Measured({name: seconds[name] for name in files}, *found)


def compare(files: Mapping[str, Path], test: Path, seed: int) -> tuple[Evaluation, Evaluation]:
    """All files on the test images against the first, by AP50 and by mAP."""
    samples = load_samples(str(test), input_signatures(files[FLOAT]), require_labels=True)
    by_ap50 = find_metric("ap50", decoder=DECODER)
    first = evaluate(files, samples, metric=by_ap50, seed=seed, timing=Timing(seconds=_SECONDS))
    return first, evaluate(files, samples, metric=find_metric("map", decoder=DECODER), seed=seed, timing=None)


def bars(found: Measured) -> list[Bar]:
    """What is demanded of int8 and of the largest drop."""
    models = {model.name: model for model in found.by_ap50.models}
    demands = []
    if INT8 in models:
        lost, _ = _lost(models[INT8])
        demands.append(Bar.at_most(f"{INT8}: AP50 lost", lost, _POINTS, "{:+.2f} points"))
    if WITHIN_DROP in models:
        lost, error = _lost(models[WITHIN_DROP])
        what = f"{WITHIN_DROP}: AP50 lost, less one standard error ({error:.2f})"
        demands.append(Bar.at_most(what, lost - error, MOST_DROP, "{:+.2f} points"))
    return demands


def _lost(model: ModelEvaluation) -> tuple[float, float]:
    """(points lost, their standard error)."""
    found = model.difference
    assert found is not None
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return -found.value, (found.high - found.low) / _DEVIATIONS


def page(found: Measured, demands: Sequence[Bar], where: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["file", "AP50", "less float", "mAP", "less float", "SQNR", "bytes", "download / float"]
    header += ["latency / float", "partitions", "seconds to make"]
    rows = []
    baseline = found.by_ap50[FLOAT].size
    for model, other in zip(found.by_ap50.models, found.by_map.models, strict=True):
        is_float = model.name == FLOAT
        size, latency, delegation = model.size, model.latency, model.delegation
        assert size is not None
        assert baseline is not None
        assert latency is not None
        assert delegation is not None
        rows.append(
            [
                model.name,
                number(model.score),
                "" if is_float else interval(model.difference, sign="+"),
                number(other.score),
                "" if is_float else interval(other.difference, sign="+"),
                "" if is_float else number(model.sqnr, 1),
                f"{size.file_bytes:,}",
                "" if is_float else f"{size.download_bytes / baseline.download_bytes:.3f} x",
                "" if is_float else interval(latency.ratio),
                f"{delegation.partitions}",
                f"{found.seconds[model.name]:.0f}",
            ]
        )
    text = (
        f"FastestDet (COCO, 352 x 352, 252,868 parameters) on {found.by_ap50.samples} images of COCO val. Average"
        " precision as COCO computes it, over boxes with a score of 0.01 or more, at most 300 an image, NMS at 0.45."
        " 128 calibration images without labels. Brackets are 95 % intervals of the paired bootstrap over images, which"
        " are wide, as 128 images are few. Latency: one thread, XNNPACK, models in turns; only ratios mean anything."
        " Seconds of tfq's files include its own evaluation and verification."
    )
    parts = [text, common.markdown_table(header, rows)]
    return common.page_text("Detection: tfq and its peers", where, parts, demands, _left_out(found))


def _left_out(found: Measured) -> list[str]:
    return [f"{name} was not measured" for name in VARIANTS if name not in found.seconds]


def main(values: flags.FlagValues) -> int:
    common.check_choices("variants", values.variants, list(VARIANTS))
    aeq.check_installed()
    output, work = common.output_directory(values.output), common.output_directory(values.work)
    where = common.environment("benchmarks.detection")
    missing = cases.absence(cases.DETECTOR)
    if missing:
        print(f"skipped: {missing}")
        return 0
    found = measure(values.variants, work, seed=values.seed, progress=Lines(sys.stderr))
    demands = bars(found)
    figures = {**where, **found.figures()}
    return common.finish(output / "detection.md", page(found, demands, where), figures, demands, _left_out(found))


def run() -> None:
    run_command(
        "benchmarks.detection",
        main,
        FLAGS,
        summary="Measure a detector by tfq and by its peers on the same images; the exit code is 1 where a bar is"
        " missed.",
        groups={"Benchmark": ("variants", "seed", "work", "output")},
    )


if __name__ == "__main__":
    run()
