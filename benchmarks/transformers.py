"""Transformers by tfq and by TFLiteConverter: `python -m benchmarks.transformers`.

The case is all-MiniLM-L6-v2, fine-tuned on SST-2, with its attention mask: 22.4 million weights, half of them the
embedding. In one run: the untouched Keras model through TFLiteConverter in float, in full-integer int8 and in dynamic
range, and `tfq.pipeline.quantize` with the options of `VARIANTS`, on the same calibration samples. All files are judged
on the same dev sentences; latencies are ratios of models that take turns. Nothing is tuned on test data.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common, tflite
from benchmarks.common import Bar, TfqRun
from tfq.data.loading import load_samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import Evaluation, evaluate, input_signatures
from tfq.evaluation.latency import Timing
from tfq.execution.predict import predict
from tfq.execution.progress import Lines, Progress
from tfq.report.summary import interval, number

CASE = "minilm_sst2"
FLOAT = "float"
CONVERTERS = {"int8": "TFLite int8", "dynamic": "TFLite dynamic range"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "tfq default": {},
    "tfq static int8": {"precision": "int8"},
    "tfq 4 bits light": {"precision": "dynamic_range", "weight_bits": 4, "pipeline": "light"},
    "tfq 4 bits advanced": {"precision": "dynamic_range", "weight_bits": 4, "pipeline": "advanced"},
    "tfq 3 bits light": {"precision": "dynamic_range", "weight_bits": 3, "pipeline": "light"},
    "tfq 3 bits by budget": {
        "precision": "dynamic_range",
        "size_budget": 3 / 32,
        "candidates": ("d2", "d3", "d4"),  # others are hardly chosen at that average, and every one takes minutes
        "pipeline": "light",
    },
    "tfq drop of 0.5": {"precision": "dynamic_range", "max_accuracy_drop": 0.5, "pipeline": "light"},
}
_SECONDS = 3.0  # of latency for a model

FLAGS = new_flags()
flags.DEFINE_list("variants", list(VARIANTS)[:3], "Which of tfq's files to make.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of tfq and of the bootstrap.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of transformers.md and .json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
      seconds: of TFLiteConverter, by its files.
      runs: tfq's, by variant.
      evaluation: all files, float first.
      notes: what was left out.
    """

    seconds: Mapping[str, float]
    runs: Mapping[str, TfqRun]
    evaluation: Evaluation
    notes: Sequence[str]

    def figures(self) -> dict[str, Any]:
        """As the benchmark's JSON keeps it: without every single timing."""
        evaluation = dataclasses.asdict(self.evaluation)
        for model in evaluation["models"]:
            del model["latency"]["times_ms"]
        runs = {name: run.figures() for name, run in self.runs.items()}
        return {"seconds": dict(self.seconds), "runs": runs, "evaluation": evaluation}


def measure(variants: Sequence[str], *, num_samples: int, seed: int, progress: Progress) -> Measured:
    """Make and judge all files.

    Raises:
      VerificationError: a file of tfq's is not what was specified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with progress.task("data", 0):
            files = common.in_fresh_process(cases.write_named, CASE, directory, num_samples)
        with progress.task("TFLiteConverter", 0):
            names = (FLOAT, *CONVERTERS)
            seconds = common.in_fresh_process(tflite.convert, files.model, files.calibration, directory, names)
        made = {FLOAT: directory / "float.tflite"}
        made |= {label: directory / f"{name}.tflite" for name, label in CONVERTERS.items()}
        runs = {}
        for variant in variants:
            recipe = files.recipe(num_samples, seed, **VARIANTS[variant])
            folder = directory / variant.replace(" ", "_")
            with progress.task(variant, 0):
                runs[variant] = common.in_fresh_process(common.run_tfq, recipe, folder)
            made[variant] = folder / "model.tflite"
        with progress.task("evaluation", 0):
            evaluation, notes = common.in_fresh_process(compare, made, files.test, seed)
    return Measured(seconds, runs, evaluation, notes)


def compare(files: Mapping[str, Path], test: Path, seed: int) -> tuple[Evaluation, list[str]]:
    """(all files on the test samples, against the first; which of TFLiteConverter's do not run on them)."""
    samples = load_samples(str(test), input_signatures(files[FLOAT]), require_labels=True)
    running, notes = {}, []
    for name, file in files.items():
        try:
            if name in CONVERTERS.values():
                predict(file, samples.arrays)
        except UserError as error:
            notes.append(f"{name} does not run on all test samples: {error}")
        else:
            running[name] = file
    return evaluate(running, samples, seed=seed, timing=Timing(seconds=_SECONDS)), notes


def bars(found: Measured) -> list[Bar]:
    """What is demanded of the default, of 4 bits, and of 3 bits on average."""
    demands = []
    limits = {
        "tfq default": (-0.2, 99.3, 0.26, "file_bytes"),
        "tfq 4 bits light": (-1.0, 97.0, 0.15, "file_bytes"),
        "tfq 3 bits by budget": (-2.0, 95.0, 0.12, "download_bytes"),
    }
    models = {model.name: model for model in found.evaluation.models}
    for name, (points, agreement, share, cost) in limits.items():
        if name not in models:
            continue
        model = models[name]
        demands += [
            Bar.at_least(f"{name}: top-1 less float's", _value(model.difference), points, "{:+.2f} points"),
            Bar.at_least(f"{name}: agreement with float", _value(model.agreement), agreement, "{:.2f} %"),
            Bar.at_most(f"{name}: {cost.replace('_', ' ')} of float's", _share(found, name, cost), share, "{:.3f} x"),
        ]
    if "tfq default" in models:
        latencies = [models[name].latency for name in ("tfq default", CONVERTERS["dynamic"])]
        ratios = [_value(found and found.ratio) for found in latencies]
        what = f"tfq default: latency of {CONVERTERS['dynamic']}'s"
        demands.append(Bar.at_most(what, ratios[0] / ratios[1], 1.0, "{:.2f} x"))
    return demands


def _value(found: Any) -> float:
    assert found is not None
    assert found.value is not None
    return float(found.value)


def _share(found: Measured, name: str, cost: str = "file_bytes") -> float:
    size, of_float = (found.evaluation[of].size for of in (name, FLOAT))
    assert size is not None
    assert of_float is not None
    return float(getattr(size, cost) / getattr(of_float, cost))


def page(found: Measured, demands: Sequence[Bar], where: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    header = [
        "file",
        "top-1",
        "less float",
        "agreement with float",
        "output SQNR",
        "bytes / float",
        "download / float",
        "bits per weight",
    ]
    header += ["latency / float", "partitions", "seconds to make"]
    rows = []
    seconds = {label: found.seconds[name] for name, label in {FLOAT: FLOAT, **CONVERTERS}.items()}
    seconds |= {name: run.seconds for name, run in found.runs.items()}
    for model in found.evaluation.models:
        is_float = model.name == FLOAT
        size, latency, delegation = model.size, model.latency, model.delegation
        assert size is not None
        assert latency is not None
        assert delegation is not None
        rows.append(
            [
                model.name,
                number(model.score),
                "" if is_float else interval(model.difference, sign="+"),
                "" if is_float else number(model.agreement),
                "" if is_float else number(model.sqnr, 1),
                "" if is_float else f"{_share(found, model.name):.3f} x",
                "" if is_float else f"{_share(found, model.name, 'download_bytes'):.3f} x",
                f"{size.weight_bits:.2f}",
                "" if is_float else interval(latency.ratio),
                f"{delegation.partitions}",
                f"{seconds[model.name]:.0f}",
            ]
        )
    text = (
        f"{found.evaluation.samples} dev sentences of SST-2, 64 tokens and an attention mask. Brackets are 95 %"
        " intervals of the paired bootstrap. Latency: one thread, XNNPACK, models in turns; only the ratios mean"
        " anything. Seconds of tfq's files include its own evaluation and verification."
    )
    parts = [text, common.markdown_table(header, rows)]
    return common.page_text("Transformers: tfq and TFLiteConverter", where, parts, demands, found.notes)


def main(values: flags.FlagValues) -> int:
    common.check_choices("variants", values.variants, list(VARIANTS))
    common.check_num_samples(values.num_samples)
    output = common.output_directory(values.output)
    where = common.environment("benchmarks.transformers")
    missing = cases.absence(CASE)
    if missing:
        print(f"skipped: {missing}")
        return 0
    found = measure(values.variants, num_samples=values.num_samples, seed=values.seed, progress=Lines(sys.stderr))
    demands = bars(found)
    figures = {**where, **found.figures()}
    return common.finish(output / "transformers.md", page(found, demands, where), figures, demands, found.notes)


def run() -> None:
    run_command(
        "benchmarks.transformers",
        main,
        FLAGS,
        summary="Measure a text transformer by tfq and by TFLiteConverter on the same samples; the exit code is 1"
        " where a bar is missed.",
        groups={"Benchmark": ("variants", "num_samples", "seed", "output")},
    )


if __name__ == "__main__":
    run()
