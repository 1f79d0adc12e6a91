"""One model of the coverage benchmark: what tfq and TFLiteConverter make of it, measured on samples neither has seen.

    SQNR = 10 log10( sum (y - mean y)^2 / sum (y - q)^2 )      in dB; y float, q dequantised, mean over the samples

What is the same for all samples is no signal here: a random network may put out little else. Of several outputs the
worst counts. TFLiteConverter gets the model as a function of one sample, its built-in operators, and, for int8, the
same calibration samples; its inputs and outputs stay float, as its documentation has it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import tfq
from benchmarks.coverage_models import make
from benchmarks.coverage_models.making import CALIBRATION, SAMPLES, Case, pack
from tfq.errors import VerificationError
from tfq.evaluation.signals import finite_decibels
from tfq.execution.interpreter import TfliteModel
from tfq.execution.terminal import silenced

_TIMED = 0.1  # seconds for each file
_LONGEST = 240  # characters of a message that are kept
_VARIES = 1e-3  # of an output's size: what its samples must differ by at the least
_CLOSE = 1e-2  # of an output's peak: how far the two float files may be apart

REFUSED, NOT_VERIFIED, CRASHED, TIMED_OUT = "refused", "not verified", "crashed", "timed out"
ACCEPTED, DEGENERATE = "accepted", "degenerate"


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """What was measured of one model.

    Attributes:
      outcome: "accepted", or why tfq gave no file; "degenerate" where the model itself is no fit one.
      message: what tfq said.
      tflite_message: what TFLiteConverter said of int8; "" where it gave a file.
      float_operations: "kind: reason" -> how many layers tfq left in float.
      sqnr_db: file -> worst output's; only files that there are.
      latency: file -> of the float file's; likewise.
      bytes: file -> size.
      float_error: largest difference of the two float files, of an output's peak.
      seconds: tfq's run.
    """

    outcome: str
    message: str = ""
    tflite_message: str = ""
    float_operations: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sqnr_db: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    latency: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    float_error: float | None = None
    seconds: float = 0.0


def measure(name: str, seed: int = 0) -> Iterator[CaseResult]:
    """What is known of the model "theme/name": first of tfq's part alone, for TFLiteConverter may end the process."""
    keras.utils.set_random_seed(seed)
    case = make(name)
    calibration, unseen = (
        {key: value[part] for key, value in case.samples.items()}
        for part in (slice(CALIBRATION), slice(CALIBRATION, None))
    )
    start = time.monotonic()
    outcome, message, operations, files = ACCEPTED, "", {}, {}
    try:
        result = tfq.quantize(case.model, calibration, evaluation=unseen, seed=seed, allow_unsafe_deserialization=True)
    except tfq.UserError as error:
        outcome, message = REFUSED, str(error)
    except VerificationError as error:
        outcome, message = NOT_VERIFIED, str(error)
    except Exception as error:  # a defect of tfq; the others are still measured
        outcome, message = CRASHED, f"{type(error).__name__}: {error}"
    else:
        operations = _float_operations(result.report.layers)
        files = {"tfq float": result.files["float.tflite"], "tfq int8": result.tflite}
    seconds = round(time.monotonic() - start, 1)

    def found(converted: Mapping[str, bytes], tflite_message: str) -> CaseResult:
        measured = _measured({**converted, **files}, unseen)
        return dataclasses.replace(
            measured,
            outcome=measured.outcome if outcome == ACCEPTED else outcome,
            message=_short(message),
            tflite_message=_short(tflite_message),
            float_operations=operations,
            seconds=seconds,
        )

    yield found({}, "TFLiteConverter ended the process")
    converted, messages = _converted(case, seed)
    yield found(converted, messages.get("int8", ""))


def _short(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _float_operations(layers: Sequence[Any]) -> dict[str, int]:
    found = collections.Counter(f"{layer.kind}: {layer.reason}" for layer in layers if layer.precision != "int8")
    return dict(found.most_common())


# --- TFLiteConverter ----------------------------------------------------------------------------------------------


def _converted(case: Case, seed: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """(files, messages): "float", "dynamic range" and "int8" of TFLiteConverter, under "TFLite ..."."""
    function = case.function or (lambda values: case.model(pack(case.model, values), training=False))
    specs = {name: tf.TensorSpec((1, *value.shape[1:]), value.dtype, name=name) for name, value in case.samples.items()}

    def representative_dataset() -> Iterator[dict[str, np.ndarray]]:
        for i in range(CALIBRATION):
            yield {name: value[i : i + 1] for name, value in case.samples.items()}

    files, messages = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("float", "dynamic range", "int8"):
            keras.utils.set_random_seed(seed)
            try:
                with silenced():
                    if not os.listdir(directory):
                        _save(case, function, specs, directory)
                    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
                    if kind != "float":
                        converter.optimizations = [tf.lite.Optimize.DEFAULT]
                    if kind == "int8":
                        converter.representative_dataset = representative_dataset
                    files[f"TFLite {kind}"] = converter.convert()
            except Exception as error:  # whatever it raises, it gave no file
                messages[kind] = f"{type(error).__name__}: {error}"
    return files, messages


def _save(case: Case, function: Callable[..., Any], specs: Mapping[str, tf.TensorSpec], directory: str) -> None:
    module = tf.Module()
    module.function = tf.function(lambda **values: function(values))
    traced = module.function.get_concrete_function(**specs)
    module.held = [*traced.graph.variables, *([case.model] if case.function is None else [])]
    if isinstance(case.model, keras.Model):  # it does not show TensorFlow the seeds of its random layers
        module.seeds = [variable.value for variable in case.model.variables]
    tf.saved_model.save(module, directory, traced)


# --- measurements -------------------------------------------------------------------------------------------------


def _measured(files: Mapping[str, bytes], samples: Mapping[str, np.ndarray]) -> CaseResult:
    """SQNR, latency and size of the files, against their own float ones."""
    outputs: dict[str, list[np.ndarray]] = {}
    models: dict[str, TfliteModel] = {}
    for name, content in files.items():
        with contextlib.suppress(tfq.UserError):
            models[name] = TfliteModel(content)
            outputs[name] = _outputs(models[name], samples)
    wanted = outputs.get("TFLite float") or outputs.get("tfq float")
    if wanted is None:
        return CaseResult(ACCEPTED)
    fit = [_varies(y) for y in wanted]
    ratios = _latencies({name: models[name] for name in outputs})
    error = None
    if "tfq float" in outputs and "TFLite float" in outputs:
        error = _difference(outputs["tfq float"], outputs["TFLite float"])
    sqnr = {}
    for name, found in outputs.items():
        own = outputs.get("tfq float" if name.startswith("tfq") else "TFLite float")
        if own is not None and not name.endswith("float"):
            sqnr[name] = _worst([_decibels(y, q) for y, q in zip(own, found, strict=True) if _varies(y)])
    outcome = ACCEPTED if all(fit) else DEGENERATE
    return CaseResult(
        outcome, sqnr_db=sqnr, latency=ratios, bytes={name: len(content) for name, content in files.items()},
        float_error=error,
    )  # fmt: skip


def _outputs(model: TfliteModel, samples: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """[n, ...] of every output, the order of the file."""
    feeds = _by_input(model, samples)
    runs = [
        model.run({name: values[i : i + 1] for name, values in feeds.items()}) for i in range(SAMPLES - CALIBRATION)
    ]
    return [np.concatenate(found).astype(np.float64) for found in zip(*runs, strict=True)]


def _by_input(model: TfliteModel, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Samples by the names of the file, which may be others than the case's: then one of that shape, in order."""
    left = dict(samples)
    found = {}
    for info in model.inputs:
        if info.name in left:
            found[info.name] = left.pop(info.name)
    for info in model.inputs:
        if info.name not in found:
            fitting = [name for name, values in left.items() if values.shape[1:] == tuple(info.shape[1:])]
            found[info.name] = left.pop((fitting or list(left))[0])
    return found


def _varies(y: np.ndarray) -> bool:
    """Whether an output says something of its sample."""
    return bool(np.isfinite(y).all() and np.std(y - y.mean(0)) > _VARIES * np.sqrt(np.mean(y**2)))


def _decibels(y: np.ndarray, q: np.ndarray) -> float | None:
    return finite_decibels(float(np.square(y - y.mean(0)).sum()), float(np.square(y - q).sum()))


def _worst(values: Sequence[float | None]) -> float | None:
    """None where every output is equal in every bit."""
    found = [value for value in values if value is not None]
    return round(min(found), 2) if found else None


def _difference(given: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Of every output to the one that is nearest among those of its size; the two files may order them otherwise."""

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a.ravel() - b.ravel()).max() / max(np.abs(b).max(), 1e-9))

    return max(min((apart(a, b) for a in given if a.size == b.size), default=float("inf")) for b in wanted)


def _latencies(models: Mapping[str, TfliteModel]) -> dict[str, float]:
    """Median time of an invocation on its processor, of the float file's; the files take turns."""
    taken: dict[str, list[int]] = {name: [] for name in models}
    end = time.monotonic() + _TIMED * len(models)
    while time.monotonic() < end or len(next(iter(taken.values()))) < 5:
        for name, model in models.items():
            start = time.thread_time_ns()
            model.invoke()
            taken[name].append(time.thread_time_ns() - start)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    base = medians.get("TFLite float") or medians["tfq float"]
    return {name: round(value / base, 3) for name, value in medians.items() if not name.endswith("float")}


def serve(pipe: Any) -> None:
    """Measure what comes through the pipe, (name, seed); send what is found, and None behind it."""
    while True:
        name, seed = pipe.recv()
        try:
            for found in measure(name, seed):
                pipe.send(found)
        except Exception as error:  # the model could not be made, or measured
            pipe.send(CaseResult(CRASHED, _short(f"the benchmark: {type(error).__name__}: {error}")))
        pipe.send(None)
        keras.backend.clear_session()
        tf_keras.backend.clear_session()
