"""Latency of int8 against float: `python -m benchmarks.latency`.

The models are those of keras.applications, 1000 classes at 224 pixels, and the cases of the other benchmarks with the
detector. The weights of the former are random, since time depends on shapes and scales alone; the statistics of
batch normalisation are those of the images, so that activations have the ranges of a trained network, and logits are as
large as one's. For every model: TFLiteConverter's float and int8 files of the untouched Keras model, and tfq's int8
with its defaults, on the same calibration samples. SQNR is that of the first output, on samples that none of them saw.

The three files take turns in each of five processes, with one thread and XNNPACK. The time is that of the thread on its
processor, so that other programs that want the processor do not count; what they do to caches does. Of every process
the median counts, and of the ratios in the processes again the median. Brackets hold the ratios of all processes. The
true median of five lies in them with 94 % (1 - 2 / 2^5), so a file is called slower than another where every process
says so.

Models that were measured stay in latency.json, and the page is made from all that are there: a run may measure some.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import cases, common, scale, tflite
from benchmarks.common import Bar, Origin
from tfq.data.preprocess import NORMALIZATIONS
from tfq.execution.progress import Lines, Progress
from tfq.recipe import Recipe

MOST_TIME, MOST_TIME_OF_SMALL, MOST_PARTITIONS = 0.9, 1.0, 2
MOST_TIME_OF_TFLITE = {"MobileNetV3Small": 0.4}  # of its int8; the others are to be no slower
FLOAT, TFLITE, TFQ = "float", "TFLite int8", "tfq int8"
PREPROCESS = {
    "MobileNetV2": "minus_one_one",
    "MobileNetV3Small": "raw",
    "MobileNetV3Large": "raw",
    "EfficientNetB0": "raw",
    "EfficientNetV2B0": "raw",
    "NASNetMobile": "minus_one_one",
    "DenseNet121": "imagenet",
    "ResNet50": "imagenet",
    "ConvNeXtTiny": "raw",
}
CASES = (*cases.CASES, "mobilenet_v3_small_imagenette", cases.DETECTOR)
MODELS = (*PREPROCESS, *CASES)
SMALL = ("ConvNeXtTiny", "kws_dscnn", cases.DEMO)  # of which int8 need only be as fast as float
_SIDE, _FITTED = 224, 32  # images for the statistics of batch normalisation
_GAMMA = 0.1  # of ConvNeXt's LayerScale, which begins at 1e-6: residuals of a trained one are no smaller
_LOGITS = 3.0  # their standard deviation; from random weights all classes would have the probability 1/1000
_UNSEEN = 16  # samples for SQNR
_WARM_UP, _LEAST = 3, 9

FLAGS = new_flags()
flags.DEFINE_list("models", list(MODELS), "Which models to measure.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 32, "Calibration samples.", flag_values=FLAGS)
flags.DEFINE_integer("processes", 5, "Processes in which the files are timed.", flag_values=FLAGS)
flags.DEFINE_float("seconds", 2.0, "Time of each file in each process, in seconds.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of weights, images and tfq.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of latency.md and latency.json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class FileResult:
    """What was measured of one file.

    Attributes:
      milliseconds: the median of each process.
      partitions, operators, outside: as in `tfq.execution.delegation.Delegation`.
      sqnr_db: of the first output against the float file's; None for that itself.
    """

    milliseconds: tuple[float, ...]
    partitions: int
    operators: int
    outside: Mapping[str, int]
    sqnr_db: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """The files of one model, and what measured them when."""

    files: Mapping[str, FileResult]
    origin: Origin
    load_average: float

    def ratios(self, name: str, baseline: str) -> list[float]:
        """Of the latencies of two files in each process, from the smallest to the largest."""
        pairs = zip(self.files[name].milliseconds, self.files[baseline].milliseconds, strict=True)
        return sorted(a / b for a, b in pairs)

    def ratio(self, name: str, baseline: str) -> float:
        """The median of these."""
        return statistics.median(self.ratios(name, baseline))

    def interval(self, name: str, baseline: str) -> str:
        """ "0.28 x [0.27, 0.30]": the median, the smallest and the largest of these."""
        found = self.ratios(name, baseline)
        return f"{statistics.median(found):.2f} x [{found[0]:.2f}, {found[-1]:.2f}]"

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ModelResult:
        files = {
            name: FileResult(**{**file, "milliseconds": tuple(file["milliseconds"])})
            for name, file in found["files"].items()
        }
        return cls(files, Origin(**found["origin"]), found["load_average"])


def write_inputs(name: str, directory: Path, num_samples: int, seed: int) -> Path:
    """Write calibration.npz and unseen.npz, whose arrays `x` are as the model takes them; the path of the model."""
    if name in CASES:
        model, calibration, unseen, _ = cases.data(name)
        unseen = unseen[:_UNSEEN]
    else:
        model, samples = _fitted_model(name, directory, num_samples, seed)
        calibration, unseen = samples[:-_UNSEEN], samples[-_UNSEEN:]
    np.savez(directory / "calibration.npz", x=calibration[:num_samples].astype(np.float32))
    np.savez(directory / "unseen.npz", x=unseen.astype(np.float32))
    return model


def _fitted_model(name: str, directory: Path, num_samples: int, seed: int) -> tuple[Path, np.ndarray]:
    """The path of a model of keras.applications, which is written, and samples for it."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(seed)
    model = getattr(keras.applications, name)(weights=None, input_shape=(_SIDE, _SIDE, 3), classes=1000)
    images = scale.images(max(num_samples, _FITTED) + _UNSEEN, _SIDE, seed=seed)
    samples = NORMALIZATIONS[PREPROCESS[name]](images)
    _fit(keras, model, samples[:_FITTED])
    model.save(directory / "model.keras")
    return directory / "model.keras", samples


def _fit(keras: Any, model: Any, samples: np.ndarray) -> None:
    """Give batch normalisations the statistics of what they read, by one pass as in training, and logits their size."""
    normalizations = False
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum, normalizations = 0.0, True
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.full(layer.gamma.shape, _GAMMA))
    if normalizations:
        model(samples, training=True)
    logarithms = np.log(np.asarray(model(samples)))  # the logits, each sample's less a number of its own
    spread = (logarithms - logarithms.mean(axis=-1, keepdims=True)).std()
    kernel = [layer for layer in model.layers if hasattr(layer, "kernel")][-1].kernel
    kernel.assign(kernel * (_LOGITS / spread))


def time_files(files: Mapping[str, Path], seconds: float) -> dict[str, float]:
    """Name -> median milliseconds of processor time of an invocation; the files take turns."""
    from tfq.execution.interpreter import TfliteModel

    models = {name: TfliteModel(path, threads=1) for name, path in files.items()}
    rng = np.random.default_rng(0)
    for model in models.values():
        shapes = {info.name: (1, *info.shape[1:]) for info in model.inputs}
        model.run({name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()})
    taken: dict[str, list[float]] = {name: [] for name in models}
    while min(map(len, taken.values())) < _WARM_UP + _LEAST or sum(map(sum, taken.values())) < 1e3 * seconds * len(
        taken
    ):
        for name, model in models.items():
            start = time.thread_time_ns()
            model.invoke()
            taken[name].append((time.thread_time_ns() - start) / 1e6)
    return {name: statistics.median(times[_WARM_UP:]) for name, times in taken.items()}


def facts(files: Mapping[str, Path], unseen: Path) -> dict[str, dict[str, Any]]:
    """Name -> what XNNPACK takes of a file, and how far its outputs are off, by the fields of `FileResult`."""
    from tfq.evaluation.signals import finite_decibels
    from tfq.execution.delegation import delegation
    from tfq.execution.interpreter import TfliteModel
    from tfq.execution.predict import predict

    with np.load(unseen, allow_pickle=False) as arrays:
        samples = arrays["x"]
    models = {name: TfliteModel(path) for name, path in files.items()}
    outputs = {
        name: predict(path, {models[name].inputs[0].name: samples})[0].astype(float) for name, path in files.items()
    }
    signal = float(np.square(outputs[FLOAT]).sum())
    return {
        name: {
            **vars(delegation(model)),
            "sqnr_db": finite_decibels(signal, float(np.square(outputs[name] - outputs[FLOAT]).sum())),
        }
        for name, model in models.items()
    }


def run_model(name: str, values: flags.FlagValues, where: Mapping[str, Any], progress: Progress) -> ModelResult:
    """Make the files of one model and time them.

    Raises:
      VerificationError: tfq's file is not what was specified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        calibration = directory / "calibration.npz"
        with progress.task(f"{name}: model", 0):
            model = common.in_fresh_process(write_inputs, name, directory, values.num_samples, values.seed)
        with progress.task(f"{name}: TFLiteConverter, float and int8", 0):
            common.in_fresh_process(tflite.convert, model, calibration, directory)
        recipe = Recipe(model=str(model), calibration_data=str(calibration), seed=values.seed)
        with progress.task(f"{name}: tfq", 0):
            common.in_fresh_process(common.run_tfq, recipe, directory / "tfq")
        files = {
            FLOAT: directory / "float.tflite",
            TFLITE: directory / "int8.tflite",
            TFQ: directory / "tfq/model.tflite",
        }
        times = []
        for number in range(1, values.processes + 1):
            with progress.task(f"{name}: process {number} of {values.processes}", 0):
                times.append(common.in_fresh_process(time_files, files, values.seconds))
        taken = common.in_fresh_process(facts, files, directory / "unseen.npz")
    found = {file: FileResult(tuple(t[file] for t in times), **taken[file]) for file in files}
    return ModelResult(found, Origin.of(where), where["load_average"])


def bars(name: str, result: ModelResult) -> list[Bar]:
    """What is demanded of one model."""
    most = result.files[FLOAT].partitions + MOST_PARTITIONS
    most_time = MOST_TIME_OF_SMALL if name in SMALL else MOST_TIME
    of_tflite = f"{name}: latency of TFLite int8's"
    beside_tflite = Bar(
        f"{of_tflite}: {result.interval(TFQ, TFLITE)}, bar not slower in every process",
        result.ratios(TFQ, TFLITE)[0] <= 1.0,
    )
    if name in MOST_TIME_OF_TFLITE:
        beside_tflite = Bar.at_most(of_tflite, result.ratio(TFQ, TFLITE), MOST_TIME_OF_TFLITE[name], "{:.2f} x")
    return [
        Bar.at_most(f"{name}: latency of float's", result.ratio(TFQ, FLOAT), most_time, "{:.2f} x"),
        beside_tflite,
        Bar.at_most(f"{name}: partitions", result.files[TFQ].partitions, most, "{:d}"),
    ]


def page(
    results: Mapping[str, ModelResult], demands: Sequence[Bar], where: Mapping[str, Any], notes: Sequence[str] = ()
) -> str:
    """The results as Markdown."""
    header = ["model", "float, ms", "TFLite int8 / float", "tfq int8 / float", "tfq / TFLite"]
    header += [f"partitions, {name}" for name in (FLOAT, TFLITE, TFQ)]
    header += ["outside XNNPACK, TFLite int8", "the same, tfq int8", "SQNR, TFLite int8", "SQNR, tfq int8"]
    header += ["load average"]
    rows = [
        [
            name,
            f"{statistics.median(result.files[FLOAT].milliseconds):.2f}",
            *(result.interval(*pair) for pair in ((TFLITE, FLOAT), (TFQ, FLOAT), (TFQ, TFLITE))),
            *(f"{result.files[file].partitions}" for file in (FLOAT, TFLITE, TFQ)),
            *(_outside(result.files[file]) for file in (TFLITE, TFQ)),
            *(f"{result.files[file].sqnr_db:.1f} dB" for file in (TFLITE, TFQ)),
            f"{result.load_average:.1f}",
        ]
        for name, result in results.items()
    ]
    text = (
        "Names in capitals are models of keras.applications at 224 pixels with 1000 classes, random weights and fitted"
        " batch normalisation; the others are trained. One thread,"
        " XNNPACK; the files take turns in each process. Times are those of the thread on its processor; ratios are"
        " medians over the processes, in brackets the smallest and the largest; with five processes that is the 94 %"
        " interval of the median. tfq is called slower than TFLiteConverter where every process says so. This machine"
        " is an x86-64: a phone's kernels are others (`tfq-bench`). The float file is TFLiteConverter's"
        " own; its int8 and tfq's saw the same calibration samples. SQNR is of the first"
        f" output on {_UNSEEN} other samples; random weights amplify errors, so that it says little there."
    )
    origins = {name: result.origin for name, result in results.items()}
    parts = [text, common.markdown_table(header, rows)]
    return common.page_text("Latency of int8 against float", where, parts, demands, notes, origins=origins)


def _outside(file: FileResult) -> str:
    return ", ".join(f"{count} {name}" for name, count in file.outside.items()) or "none"


def _kept(path: Path) -> dict[str, ModelResult]:
    """What was measured before."""
    if not path.is_file():
        return {}
    return {name: ModelResult.of(found) for name, found in json.loads(path.read_text())["models"].items()}


def main(values: flags.FlagValues) -> int:
    common.check_choices("models", values.models, MODELS)
    common.check_num_samples(values.num_samples)
    common.check_positive("processes", [values.processes])
    output = common.output_directory(values.output)
    _, notes = cases.present([name for name in values.models if name in CASES])
    where, results = common.environment("benchmarks.latency"), _kept(output / "latency.json")
    for name in values.models:
        if name not in CASES or not cases.absence(name):
            results[name] = run_model(name, values, where, Lines(sys.stderr))
    results = {name: results[name] for name in MODELS if name in results}
    demands = [bar for name, result in results.items() for bar in bars(name, result)]
    figures = {**where, "models": {name: dataclasses.asdict(result) for name, result in results.items()}}
    return common.finish(output / "latency.md", page(results, demands, where, notes), figures, demands, notes)


def run() -> None:
    run_command(
        "benchmarks.latency",
        main,
        FLAGS,
        summary="Measure the latency of tfq's int8 against float and TFLiteConverter's int8 on models of"
        " keras.applications and on the cases; the exit code is 1 where a bar is missed.",
        groups={"Benchmark": ("models", "num_samples", "processes", "seconds", "seed", "output")},
    )


if __name__ == "__main__":
    run()
