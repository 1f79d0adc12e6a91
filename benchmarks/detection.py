"""A detector by tfq and by its peers, judged by average precision: `python -m benchmarks.detection`.

The case is FastestDet on COCO: 128 images to calibrate on, 128 others with 898 boxes to judge by. The untouched Keras
model goes through TFLiteConverter in float and in full-integer int8, its float file through ai-edge-quantizer, and the
model through `tfq.pipeline.quantize` with the options of `VARIANTS`. All files are decoded alike and judged on the same
images; latencies are ratios of models that take turns. Calibration has no labels, and nothing is tuned on test data.

The order of the calibration images says which of them fit, choose and judge, so that one order is one draw. tfq's int8
is made from --seeds orders; the bar is on the mean. Order 0 is the data's own. TFLiteConverter takes the smallest and
the largest value of all images, which have no order.
Files are kept in --work: a run that was stopped goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
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
WITHIN_DROP = f"tfq AP50 drop at most {MOST_DROP:g}"
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
flags.DEFINE_integer("seeds", 5, "Seeds 0, 1, ... of the order of the calibration images.", flag_values=FLAGS)
flags.DEFINE_string("work", "build/detection", "Folder of the files that are made.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of detection.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
      seconds: to make each file, evaluation and verification of tfq's included.
      by_ap50, by_map: all files of order 0 by either metric, float first.
      orders: float and tfq's int8 of the other orders by AP50; None where there are none.
    """

    seconds: Mapping[str, float]
    by_ap50: Evaluation
    by_map: Evaluation
    orders: Evaluation | None = None

    def of_orders(self, name: str) -> list[ModelEvaluation]:
        """The file of that name in every order by AP50; empty where there is none."""
        models = [*self.by_ap50.models, *(self.orders.models if self.orders else ())]
        return [model for model in models if model.name == name or model.name.startswith(f"{name}, order ")]

    def figures(self) -> dict[str, Any]:
        """As the benchmark's JSON keeps it: without every single timing."""
        found = {name: getattr(self, name) for name in ("by_ap50", "by_map", "orders")}
        evaluations = {name: dataclasses.asdict(evaluation) for name, evaluation in found.items() if evaluation}
        for evaluation in evaluations.values():
            for model in evaluation["models"]:
                if model["latency"] is not None:
                    del model["latency"]["times_ms"]
        return {"seconds": dict(self.seconds), **evaluations}


def write_data(folder: Path, seeds: int) -> Path:
    """Write calibration.npz of every order and test.npz; gives the path of the model."""
    model, calibration, test, labels = cases.data(cases.DETECTOR)
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(calibration)) if seed else slice(None)
        np.savez(_calibration(folder, seed), x=calibration[order])
    boxes = []
    for classes, x, y, width, height in (found.T for found in labels):
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        boxes.append(np.column_stack([classes, *sides, np.ones(len(classes))]))
    np.savez(folder / "test.npz", x=test, y=padded(boxes))
    return Path(model)


def make_tflite(model: Path, work: Path) -> dict[str, float]:
    """Write TFLiteConverter's float and int8; name -> seconds."""
    seconds = tflite.convert(model, _calibration(work, 0), work)
    (work / "int8.tflite").replace(_file(work, PEERS[0]))
    return {FLOAT: seconds["float"], PEERS[0]: seconds["int8"]}


def make_aeq(work: Path, name: str, bits: int) -> dict[str, float]:
    """Write ai-edge-quantizer's file of so many bits from the float one; name -> seconds."""
    with np.load(_calibration(work, 0)) as arrays:
        calibration = arrays["x"]
    start = time.monotonic()
    content = aeq.quantize(work / "float.tflite", calibration, weight_bits=bits, algorithm=aeq.ALGORITHMS[0])
    _file(work, name).write_bytes(content)
    return {name: time.monotonic() - start}


def make_tfq(model: Path, work: Path, variant: str, seed: int) -> dict[str, float]:
    """Write tfq's file of a variant and an order; name -> seconds.

    Raises:
      VerificationError: it is not what was specified.
    """
    recipe = Recipe(
        model=str(model),
        calibration_data=str(_calibration(work, seed)),
        evaluation_data=str(work / "test.npz"),
        metric="ap50",
        decoder=DECODER,
        **VARIANTS[variant],
    )
    name = in_order(variant, seed)
    folder = _file(work, name).with_suffix("")
    seconds = common.run_tfq(recipe, folder).seconds
    (folder / "model.tflite").replace(_file(work, name))
    return {name: seconds}


def in_order(name: str, seed: int) -> str:
    """What the file of a name is called that was made from that order."""
    return f"{name}, order {seed}" if seed else name


def _calibration(work: Path, seed: int) -> Path:
    return work / f"calibration{seed}.npz"


def _file(work: Path, name: str) -> Path:
    return work / f"{name.replace(' ', '_').replace(',', '')}.tflite"


def measure(variants: Sequence[str], work: Path, *, seeds: int, progress: Progress) -> Measured:
    """Make the files that are not there yet, and judge all.

    Raises:
      VerificationError: a file of tfq's is not what was specified.
    """
    with progress.task("data", 0):
        model = common.in_fresh_process(write_data, work, seeds)
    makers: dict[str, tuple[Any, ...]] = {PEERS[0]: (make_tflite, model, work)}
    makers |= {name: (make_aeq, work, name, bits) for name, bits in zip(PEERS[1:], (8, 4), strict=True)}
    makers |= {variant: (make_tfq, model, work, variant, 0) for variant in variants}
    first = [FLOAT, *makers]
    for seed in range(1, seeds if INT8 in variants else 1):
        makers[in_order(INT8, seed)] = (make_tfq, model, work, INT8, seed)
    kept = work / "seconds.json"
    seconds: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name, (make, *arguments) in makers.items():
        if name not in seconds:
            with progress.task(name, 0):
                seconds |= common.in_fresh_process(make, *arguments)
            kept.write_text(json.dumps(seconds), encoding="utf-8")
    others = [name for name in makers if name not in first]
    with progress.task("evaluation", 0):
        found = common.in_fresh_process(compare, work, first, others)
    return Measured({name: seconds[name] for name in (*first, *others)}, *found)


def compare(
    work: Path, first: Sequence[str], others: Sequence[str]
) -> tuple[Evaluation, Evaluation, Evaluation | None]:
    """The first files on the test images against float by AP50 and by mAP, the others against float by AP50."""
    test = work / "test.npz"
    samples = load_samples(str(test), input_signatures(_file(work, FLOAT)), require_labels=True)
    files = {name: _file(work, name) for name in (*first, *others)}

    def judged(names: Sequence[str], metric: str, timing: Timing | None = None) -> Evaluation:
        chosen = {name: files[name] for name in names}
        return evaluate(chosen, samples, metric=find_metric(metric, decoder=DECODER), timing=timing)

    by_ap50 = judged(first, "ap50", Timing(seconds=_SECONDS))
    return by_ap50, judged(first, "map"), judged((FLOAT, *others), "ap50") if others else None


def bars(found: Measured) -> list[Bar]:
    """What is demanded of int8 and of the largest drop."""
    demands = []
    if models := found.of_orders(INT8):
        what = f"{INT8}: AP50 lost, the mean of {len(models)} orders"
        demands.append(Bar.at_most(what, statistics.mean(_lost(m)[0] for m in models), _POINTS, "{:+.2f} points"))
    for model in found.of_orders(WITHIN_DROP):
        lost, error = _lost(model)
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
    parts = [text, common.markdown_table(header, rows), *_orders_section(found)]
    return common.page_text("Detection: tfq and its peers", where, parts, demands, _left_out(found))


def _orders_section(found: Measured) -> list[str]:
    """tfq's int8 from several orders; nothing where there is one alone."""
    models = found.of_orders(INT8)
    if len(models) < 2:
        return []
    rows = []
    for order, model in enumerate(models):
        rows.append([f"{order}", number(model.score), interval(model.difference, sign="+"), number(model.sqnr, 1)])
    lost = [-_lost(model)[0] for model in models]
    text = (
        f"The order of the calibration images says which of them fit, choose and judge. Over {len(models)} orders"
        f" {INT8} is {statistics.mean(lost):+.2f} points from float in the mean, with a standard deviation of"
        f" {statistics.stdev(lost):.2f}. TFLiteConverter takes the smallest and the largest value of all images, which"
        " have no order."
    )
    table = common.markdown_table(["order", "AP50", "less float", "SQNR"], rows)
    return ["## Orders of the calibration images", text, table]


def _left_out(found: Measured) -> list[str]:
    return [f"{name} was not measured" for name in VARIANTS if name not in found.seconds]


def main(values: flags.FlagValues) -> int:
    common.check_choices("variants", values.variants, list(VARIANTS))
    common.check_positive("seeds", [values.seeds])
    aeq.check_installed()
    output, work = common.output_directory(values.output), common.output_directory(values.work)
    where = common.environment("benchmarks.detection")
    missing = cases.absence(cases.DETECTOR)
    if missing:
        print(f"skipped: {missing}")
        return 0
    found = measure(values.variants, work, seeds=values.seeds, progress=Lines(sys.stderr))
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
        groups={"Benchmark": ("variants", "seeds", "work", "output")},
    )


if __name__ == "__main__":
    run()
