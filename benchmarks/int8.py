"""tfq's int8 against TFLiteConverter's own: `python -m benchmarks.int8`.

For every case, in one run: the untouched Keras model through TFLiteConverter in float and in int8, and
`tfq.pipeline.quantize` with the defaults of `tfq-quantize`, on the same calibration samples. The three
files are judged on the same test samples; differences come with paired bootstrap intervals, latencies
are ratios of models that take turns. Nothing is tuned on test data.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common, tflite
from benchmarks.common import Bar, TfqRun
from tfq.data.loading import load_samples
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, evaluate, input_signatures
from tfq.evaluation.latency import Timing
from tfq.execution.progress import Lines, Progress
from tfq.report.summary import interval, number

LOWEST_DIFFERENCE, MOST_BYTES, MOST_TIME, MOST_STEPS = -0.3, 1.02, 1.05, 1
FLOAT, TFLITE, TFQ = "float", "TFLite int8", "tfq int8"
_LATENCY_SECONDS = 3.0  # a model; the bar is narrow

FLAGS = new_flags()
flags.DEFINE_list("cases", [*cases.CASES, *cases.LARGER], "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples at most; kws_dscnn has 200.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of int8.md and int8.json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """What was measured of one case.

    Attributes:
      calibration_samples: their number.
      converter_seconds: "float", "int8" -> time of TFLiteConverter.
      tfq: the run of tfq.
      against_float: TFLite int8 and tfq int8 with float as the baseline.
      against_tflite: tfq int8 with TFLite int8 as the baseline.
    """

    name: str
    calibration_samples: int
    converter_seconds: dict[str, float]
    tfq: TfqRun
    against_float: Evaluation
    against_tflite: Evaluation

    @property
    def time_ratio(self) -> Estimate:
        """Latency of tfq's file against TFLite's."""
        return _ratio(self.against_tflite)

    def bytes_ratio(self, size: str) -> float:
        """`size` ("file_bytes" or "download_bytes") of tfq's file against TFLite's."""
        sizes = [getattr(model.size, size) for model in self.against_tflite.models]
        return sizes[1] / sizes[0]

    def figures(self) -> dict[str, Any]:
        """As the benchmark's JSON keeps it: without every single timing."""
        found = {name: dataclasses.asdict(getattr(self, name)) for name in ("against_float", "against_tflite")}
        for model in (model for evaluation in found.values() for model in evaluation["models"]):
            del model["latency"]["times_ms"]
        return {
            "name": self.name,
            "calibration_samples": self.calibration_samples,
            "converter_seconds": self.converter_seconds,
            "tfq": self.tfq.figures(),
            **found,
        }


def run_case(name: str, *, num_samples: int, seed: int, progress: Progress) -> CaseResult:
    """Run one case in temporary files.

    Raises:
      VerificationError: tfq's file is not what was specified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with progress.task(f"{name}: data", 0):
            files = common.in_fresh_process(cases.write_case, name, directory, num_samples)
        with progress.task(f"{name}: TFLiteConverter, float and int8", 0):
            seconds = common.in_fresh_process(tflite.convert, files.model, files.calibration, directory)
        recipe = files.recipe(num_samples, seed)
        with progress.task(f"{name}: tfq", 0):
            run = common.in_fresh_process(common.run_tfq, recipe, directory / "tfq")
        with progress.task(f"{name}: evaluation", 0):
            evaluations = common.in_fresh_process(compare, directory, files.test, seed)
    return CaseResult(name, files.calibration_samples, seconds, run, *evaluations)


def compare(directory: Path, test: Path, seed: int) -> tuple[Evaluation, Evaluation]:
    """The three files on the test samples: (against float, against TFLite int8)."""
    files = {FLOAT: directory / "float.tflite", TFLITE: directory / "int8.tflite", TFQ: directory / "tfq/model.tflite"}
    samples = load_samples(str(test), input_signatures(files[FLOAT]), require_labels=True)
    against_float = evaluate(files, samples, seed=seed, timing=Timing(seconds=_LATENCY_SECONDS))
    both = {name: files[name] for name in (TFLITE, TFQ)}
    return against_float, evaluate(both, samples, seed=seed, timing=Timing(seconds=_LATENCY_SECONDS))


def bars(result: CaseResult) -> list[Bar]:
    """What is demanded of one case; that the file was verified is told by its result being there."""
    difference = result.against_tflite[TFQ].difference
    assert difference is not None
    assert difference.value is not None
    assert result.time_ratio.value is not None
    verified = result.tfq.report["verification"]
    name = result.name
    return [
        Bar.at_least(f"{name}: top-1 less TFLite's", difference.value, LOWEST_DIFFERENCE, "{:+.2f} points"),
        Bar.at_most(f"{name}: file bytes of TFLite's", result.bytes_ratio("file_bytes"), MOST_BYTES, "{:.3f} x"),
        Bar.at_most(f"{name}: latency of TFLite's", result.time_ratio.value, MOST_TIME, "{:.3f} x"),
        Bar(f"{name}: verified, {verified['integers']:,} integers as specified", True),
        Bar.at_most(f"{name}: layer parity", result.tfq.max_steps, MOST_STEPS, "{:d} steps"),
    ]


def page(results: Sequence[CaseResult], notes: Sequence[str], demands: Sequence[Bar], where: dict[str, Any]) -> str:
    """The results as Markdown."""
    parts = [
        "TFLite int8 is TFLiteConverter's own post-training quantisation of the untouched Keras model (full integer,"
        " int8 in and out); float is its float export. Both int8 files saw the same calibration samples, all three the"
        " same test samples. Brackets are 95 % intervals of the paired bootstrap. Latency: one thread, XNNPACK, models"
        " in turns; only the ratios mean anything. The bars judge the measured value: where an interval reaches beyond"
        " its bar, the samples do not settle it.",
    ]
    if results:
        parts += [
            "## Accuracy",
            _accuracy(results),
            "## Size and latency",
            _size_and_latency(results),
            "## Verification and parity",
            "Every integer and scale of tfq's files compared with the specification. Steps: the file against the"
            " simulation, in steps of the tensor's grid; per layer on the layer's own inputs, end to end at the output"
            " with XNNPACK and with the builtin kernels.",
            _verification(results),
            "## Time and memory",
            "Seconds; tfq's with the import of TensorFlow and with its own evaluation. Calibration cost: against the"
            " bare forward pass of the same samples.",
            _cost(results),
        ]
    return common.page_text("int8: tfq and TFLiteConverter", where, parts, demands, notes)


def _ratio(evaluation: Evaluation, name: str = TFQ) -> Estimate:
    latency = evaluation[name].latency
    assert latency is not None
    return latency.ratio


def _accuracy(results: Sequence[CaseResult]) -> str:
    header = [
        "case",
        "n",
        "float",
        TFLITE,
        TFQ,
        "tfq less TFLite",
        f"agreement with float, {TFLITE}",
        f"the same, {TFQ}",
    ]
    rows = []
    for result in results:
        models = [result.against_float[name] for name in (FLOAT, TFLITE, TFQ)]
        rows.append(
            [
                result.name,
                f"{result.against_float.samples:,}",
                *(number(model.score) for model in models),
                interval(result.against_tflite[TFQ].difference, sign="+"),
                *(number(model.agreement) for model in models[1:]),
            ]
        )
    return common.markdown_table(header, rows)


def _size_and_latency(results: Sequence[CaseResult]) -> str:
    header = ["case"]
    for size in ("bytes", "download bytes"):
        header += [f"{size}, {FLOAT}", TFLITE, TFQ, "tfq / TFLite"]
    header += ["latency, tfq / TFLite", "TFLite / float", "tfq / float"]
    rows = []
    for result in results:
        cells = [result.name]
        for size in ("file_bytes", "download_bytes"):
            cells += [f"{getattr(result.against_float[name].size, size):,}" for name in (FLOAT, TFLITE, TFQ)]
            cells.append(f"{result.bytes_ratio(size):.3f} x")
        cells += [interval(result.time_ratio), *(interval(_ratio(result.against_float, n)) for n in (TFLITE, TFQ))]
        rows.append(cells)
    return common.markdown_table(header, rows)


def _verification(results: Sequence[CaseResult]) -> str:
    header = ["case", "activations", "weights", "biases", "integers", "operations in float", "layers", "steps at most"]
    header += ["end to end, mean and max, XNNPACK", "builtin"]
    rows = []
    for result in results:
        verified, ends = result.tfq.report["verification"], result.tfq.report["parity"]
        rows.append(
            [
                result.name,
                *(f"{verified[name]:,}" for name in ("activations", "weights", "biases", "integers")),
                f"{verified['float_operators']} of {verified['operators']}",
                f"{result.tfq.layers}",
                f"{result.tfq.max_steps}",
                *(
                    "; ".join(f"{e['mean_steps']:.3f}, {e['max_steps']:g}" for e in ends if e["kernels"] == kernels)
                    for kernels in ("xnnpack", "builtin")
                ),
            ]
        )
    return common.markdown_table(header, rows)


def _cost(results: Sequence[CaseResult]) -> str:
    stages = list(results[0].tfq.stages)
    header = ["case", "calibration samples", "TFLite float", "TFLite int8", "tfq", *stages]
    header += ["peak memory, MiB"]
    rows = [
        [
            result.name,
            f"{result.calibration_samples}",
            *(f"{result.converter_seconds[name]:.1f}" for name in ("float", "int8")),
            f"{result.tfq.seconds:.1f}",
            *(f"{result.tfq.stages[stage]:.1f}" for stage in stages),
            f"{result.tfq.peak_memory_mb:,.0f}",
        ]
        for result in results
    ]
    return common.markdown_table(header, rows)


def main(values: flags.FlagValues) -> int:
    common.check_choices("cases", values.cases, (*cases.CASES, *cases.LARGER))
    common.check_num_samples(values.num_samples)
    output = common.output_directory(values.output)
    where = common.environment("benchmarks.int8")
    run = functools.partial(run_case, num_samples=values.num_samples, seed=values.seed, progress=Lines(sys.stderr))
    present, notes = cases.present(values.cases)
    results, demands = common.judged(present, run, bars)
    return common.finish(
        output / "int8.md",
        page(results, notes, demands, where),
        {**where, "cases": [result.figures() for result in results]},
        demands,
        notes,
    )


def run() -> None:
    run_command(
        "benchmarks.int8",
        main,
        FLAGS,
        summary="Measure tfq's int8 against TFLiteConverter's own on the same calibration and test samples; the exit"
        " code is 1 where a bar is missed.",
        groups={"Benchmark": ("cases", "num_samples", "seed", "output")},
    )


if __name__ == "__main__":
    run()
