"""One cell of the reconstruction benchmark: a method on a case at a width, judged as users would judge it.

The methods of the table start from the same calibrated model, rounded to the nearest, and change nothing else; the
two pipelines are what `tfq-quantize` does; the peers get the same samples. What several cells of a case need is
kept from call to call, so a process of its own should serve one case.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import aeq, tflite
from benchmarks.cases import CaseFiles
from benchmarks.cells import Key, Outcome, Width
from tfq.calibration.calibrate import Calibration, calibrate
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.data.calibration_set import CalibrationSet
from tfq.data.loading import Selection, load_samples
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.evaluation.evaluate import Evaluation, Simulated, evaluate
from tfq.execution.predict import predict
from tfq.execution.progress import Silent
from tfq.export.package import export_plain, export_quantized
from tfq.models.graph import Graph
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.models.widths import activation_bits, assign_precisions
from tfq.pipeline import quantize
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct
from tfq.reconstruction.steps import Setting, Step, tune_batch_norms, tune_whole_network, with_mse_scales
from tfq.simulate.divergence import divergence
from tfq.simulate.eager import simulate
from tfq.simulate.judge import Judge

_BATCH, _FEW, _REPRESENTATIVE = 32, 8, 100
_FLOAT, _QUANTIZED = "float", "quantized"

Precisions = Mapping[str, Precision]
"""Of every weighted layer, by node name."""

# Row name -> (method of the engine, mode).
ENGINE = {
    "bias_correction": ("bias_correction", "sequential"),
    "least_squares": ("least_squares", "sequential"),
    "adaround": ("adaround", "sequential"),
    "adaquant_parallel": ("adaquant", "parallel"),
    "adaquant": ("adaquant", "sequential"),
    "best": ("best", "sequential"),
}
# Row name -> (row it goes on from, step).
STAGES: Mapping[str, tuple[str, Step]] = {
    "best_bn": ("best", tune_batch_norms),
    "best_bn_bias": ("best_bn", tune_whole_network),
}
PIPELINES = ("light", "advanced")


def measure(files: CaseFiles, key: Key, width: Width) -> Outcome:
    """Measure one cell.

    Raises:
      VerificationError: a pipeline's file is not what was specified.
    """
    if key.method in PIPELINES:
        return _of_pipeline(files, key, width)
    if key.method == "tflite":
        return _of_tflite(files, key)
    if key.method == "aeq":
        return _of_aeq(files, key, width)
    found = _quantized(files, key, width)
    deployed = _deployed(files, found.model, width)
    return _outcome(_judged(files, deployed), found.seconds, found.note, _divergence(files, deployed))


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    """A case, ready to be quantised and to be judged on: the float graph and file, and the test samples."""

    graph: Graph
    float_model: bytes
    representative: Samples
    test: Samples


def load_prepared(model: Path, calibration: Path, count: int) -> tuple[Graph, Samples]:
    """(the prepared float graph, the first `count` calibration samples)."""
    loaded = load_model(model)
    samples = load_samples(str(calibration), input_signatures(loaded.graph), Selection(count))
    return prepare(loaded.graph, samples.head(_FEW).read(), original=loaded, seed=0).graph, samples


def calibrated(graph: Graph, precisions: Precisions, samples: Samples, *, judges: bool = True) -> Calibration:
    """With the defaults of `tfq-quantize`; judges: on the samples too that judge steps."""
    used = samples if judges else CalibrationSet.of(samples).seen
    bits = activation_bits(graph, precisions)
    return calibrate(graph, used.batches(_BATCH), method="auto", total=len(used), bits=bits)


def setting_of(recipe: Recipe, graph: Graph, precisions: Precisions, samples: Samples) -> Setting:
    """What the pipelines' steps work with."""

    def recalibrate(changed: Graph) -> Mapping[str, Range]:
        return calibrated(changed, precisions, samples, judges=False).ranges

    calibration = CalibrationSet.of(samples)
    judge = Judge(graph, calibration.judging.arrays)
    return Setting.of(recipe, calibration, judge, recalibrate, recipe.resources(Silent()))


@functools.lru_cache(maxsize=1)
def _case(files: CaseFiles) -> _Case:
    graph, samples = load_prepared(files.model, files.calibration, _REPRESENTATIVE)
    test = load_samples(str(files.test), input_signatures(graph), require_labels=True)
    content = export_plain(graph, "float32", samples.representative_dataset())
    return _Case(graph, content, samples, test)


@functools.lru_cache(maxsize=1)
def _samples(files: CaseFiles, count: int, selection: str, seed: int) -> Samples:
    signatures = input_signatures(_case(files).graph)
    return load_samples(str(files.calibration), signatures, Selection(count, selection, seed))


def _samples_of(files: CaseFiles, key: Key) -> Samples:
    """The seed draws random samples only: the first ones are loaded, and calibrated with, once for all seeds."""
    return _samples(files, key.samples, key.selection, key.seed if key.selection == "random" else 0)


@functools.lru_cache(maxsize=1)
def _calibration(files: CaseFiles, samples: Samples, width: Width) -> Calibration:
    graph, precisions = _precisions(files, width)
    return calibrated(graph, precisions, samples)


def _precisions(files: CaseFiles, width: Width) -> tuple[Graph, Precisions]:
    precision = Precision(weight_bits=width.weight_bits, activation_bits=width.activation_bits)
    return assign_precisions(_case(files).graph, precision, first_last_bits=width.first_last_bits)


@dataclasses.dataclass(frozen=True, eq=False)
class _Quantized:
    """What a method made, how long it took in all, and what is to be known about it."""

    model: QuantizedModel
    seconds: float
    note: str = ""


@functools.lru_cache(maxsize=2)  # a stage goes on from another row's model
def _quantized(files: CaseFiles, key: Key, width: Width) -> _Quantized:
    graph, precisions = _precisions(files, width)
    samples = _samples_of(files, key)
    if key.method in STAGES:
        recipe = Recipe(
            model="", pipeline="advanced", seed=key.seed, batch_norm_tuning="always", network_tuning="always"
        )
        return _next_stage(files, key, width, setting_of(recipe, graph, precisions, samples))
    # the bits of the weights do not matter to calibration
    calibration = _calibration(files, samples, dataclasses.replace(width, weight_bits=8))
    start = specify(graph, calibration.ranges, precisions)  # rounded to the nearest
    began = time.monotonic()
    if key.method == "nearest":
        return _Quantized(start, 0.0)
    if key.method == "mse":
        return _Quantized(with_mse_scales(start), time.monotonic() - began)
    method, mode = ENGINE[key.method]
    how = Reconstruction(method, METHODS[method], mode)
    model, layers = reconstruct(graph, start, CalibrationSet.of(samples), how, seed=key.seed)
    rolled_back = sum(not layer.kept for layer in layers)
    note = f"{rolled_back} of {len(layers)} layers rolled back" if rolled_back else ""
    return _Quantized(model, time.monotonic() - began, note)


def _next_stage(files: CaseFiles, key: Key, width: Width, setting: Setting) -> _Quantized:
    """A step of the pipelines, with their judge, on the model of another row."""
    before, step = STAGES[key.method]
    earlier = _quantized(files, dataclasses.replace(key, method=before), width)
    began = time.monotonic()
    model, outcome = step(setting, earlier.model)
    note = "" if outcome.kept else f"{outcome.name} rolled back"
    return _Quantized(model, earlier.seconds + time.monotonic() - began, note)


def _deployed(files: CaseFiles, model: QuantizedModel, width: Width) -> bytes | Simulated:
    """The file, or the simulation where TFLite has no kernels."""
    case = _case(files)
    if width.activation_bits == 8:
        return export_quantized(model, case.representative.representative_dataset())
    return Simulated(simulate(model, case.test.arrays), "simulated")


def _judged(files: CaseFiles, model: bytes | Path | Simulated) -> Evaluation:
    case = _case(files)
    return evaluate({_FLOAT: case.float_model, _QUANTIZED: model}, case.test, timing=None)


@functools.lru_cache(maxsize=1)
def _float_outputs(files: CaseFiles) -> Sequence[np.ndarray]:
    case = _case(files)
    return predict(case.float_model, case.test.arrays)


def _divergence(files: CaseFiles, model: bytes | Simulated) -> float:
    """From the float model's outputs, on the test inputs."""
    outputs = predict(model, _case(files).test.arrays) if isinstance(model, bytes) else tuple(model.outputs.values())
    return float(divergence(_float_outputs(files), outputs).mean())


def _outcome(evaluation: Evaluation, seconds: float, note: str = "", departure: float | None = None) -> Outcome:
    """Of the last model against the first."""
    first, last = evaluation.models[0], evaluation.models[-1]
    difference = last.difference
    assert first.score is not None
    assert first.score.value is not None
    assert difference is not None
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    assert last.agreement is not None
    assert last.agreement.value is not None
    return Outcome(
        float_score=first.score.value,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        agreement=last.agreement.value,
        seconds=seconds,
        n=evaluation.samples,
        note=note,
        divergence=departure,
    )


def _of_pipeline(files: CaseFiles, key: Key, width: Width) -> Outcome:
    recipe = files.recipe(
        key.samples, key.seed, pipeline=key.method, selection=key.selection, **dataclasses.asdict(width)
    )
    report = quantize(recipe).report
    seconds = sum(stage.seconds for stage in report.stages if stage.name != "evaluate")
    rolled_back = [step.name for step in report.steps if step.guards and not step.kept]
    return _outcome(report.evaluation, seconds, f"{', '.join(rolled_back)} rolled back" if rolled_back else "")


def _of_tflite(files: CaseFiles, key: Key) -> Outcome:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        seconds = tflite.convert(files.model, _first(files, key.samples, directory), directory)
        return _outcome(_judged(files, directory / "int8.tflite"), seconds["int8"])


def _of_aeq(files: CaseFiles, key: Key, width: Width) -> Outcome:
    """The best of its algorithms, by the test samples: no peer is judged below what it can do."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        calibration = _first(files, key.samples, directory)
        tflite.convert(files.model, calibration, directory)
        with np.load(calibration) as arrays:
            samples = arrays["x"]
        for algorithm in aeq.ALGORITHMS:
            start = time.monotonic()
            content = aeq.quantize(
                directory / "float.tflite", samples, weight_bits=width.weight_bits, algorithm=algorithm
            )
            seconds = time.monotonic() - start
            found.append(_outcome(_judged(files, content), seconds, algorithm))
    return max(found, key=lambda outcome: outcome.difference)


def _first(files: CaseFiles, count: int, directory: Path) -> Path:
    """The first calibration samples as a file."""
    path = directory / "calibration.npz"
    with np.load(files.calibration) as arrays:
        np.savez(path, x=arrays["x"][:count])
    return path
