"""What reconstruction costs: nets of several depths, workers, and whole pipelines with what they make."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases, common
from benchmarks.cases import CaseFiles
from benchmarks.common import TfqRun
from benchmarks.scale import images
from tfq.recipe import Recipe

_SIDE, _CHANNELS, _CLASSES = 32, 32, 10


def write_residual_net(directory: Path, layers: int, num_samples: int, seed: int) -> tuple[Path, Path]:
    """Write a residual net of `layers` weighted layers with random weights, and noise for it: (model, calibration).

    Every block is as large as any other, so that the cost of a layer is the same in nets of all depths.
    """
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    parts = tf_keras.layers

    def convolution(x: Any, activation: str | None) -> Any:
        x = parts.BatchNormalization()(parts.Conv2D(_CHANNELS, 3, padding="same", use_bias=False)(x))
        return parts.ReLU()(x) if activation else x

    image = tf_keras.Input((_SIDE, _SIDE, 3))
    x = convolution(parts.Rescaling(1 / 255)(image), "relu")
    for _ in range((layers - 2) // 2):
        x = parts.ReLU()(parts.Add()([x, convolution(convolution(x, "relu"), None)]))
    outputs = parts.Softmax()(parts.Dense(_CLASSES)(parts.GlobalAveragePooling2D()(x)))
    tf_keras.Model(image, outputs).save(directory / "net.h5")
    np.savez(directory / "noise.npz", x=images(num_samples, _SIDE, seed=seed).astype(np.float32))
    return directory / "net.h5", directory / "noise.npz"


def timed_reconstruction(
    model: Path, calibration: Path, num_samples: int, method: str, mode: str, workers: int, seed: int
) -> dict[str, Any]:
    """Seconds of the reconstruction alone at W4A8, and how many layers it took on."""
    from benchmarks.ablation import calibrated, load_prepared
    from tfq.calibration.specify import specify
    from tfq.data.calibration_set import CalibrationSet
    from tfq.execution.resources import Resources
    from tfq.models.widths import assign_precisions
    from tfq.precision import Precision
    from tfq.reconstruction.methods import METHODS
    from tfq.reconstruction.reconstruct import Reconstruction, reconstruct

    prepared, samples = load_prepared(model, calibration, num_samples)
    graph, precisions = assign_precisions(prepared, Precision(weight_bits=4))
    start = specify(graph, calibrated(graph, precisions, samples).ranges, precisions)
    how, resources = Reconstruction(method, METHODS[method], mode), Resources(workers=workers)
    began = time.monotonic()
    _, layers = reconstruct(graph, start, CalibrationSet.of(samples), how, seed=seed, resources=resources)
    return {"layers": len(layers), "samples": len(samples), "seconds": time.monotonic() - began}


def time_net(layers: int, num_samples: int, seed: int) -> dict[str, Any]:
    """Reconstruction by `best` of a net of so many layers."""
    with tempfile.TemporaryDirectory() as temporary:
        model, noise = common.in_fresh_process(write_residual_net, Path(temporary), layers, num_samples, seed)
        arguments = (model, noise, num_samples, "best", "sequential", 1, seed)
        return common.in_fresh_process(timed_reconstruction, *arguments)


def time_workers(case: str, method: str, workers: int, num_samples: int, seed: int) -> dict[str, Any]:
    """Reconstruction of a case in parallel mode by so many workers."""
    with tempfile.TemporaryDirectory() as temporary:
        files = common.in_fresh_process(cases.write_case, case, Path(temporary), num_samples)
        arguments = (files.model, files.calibration, num_samples, method, "parallel", workers, seed)
        return common.in_fresh_process(timed_reconstruction, *arguments)


def run_product(case: str, num_samples: int, seed: int) -> dict[str, Any]:
    """Plain int8 and the advanced pipeline at W4A8, each in a process of its own, and their files side by side.

    Raises:
      VerificationError: one of the files is not what was specified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        files = common.in_fresh_process(cases.write_case, case, directory, num_samples)
        runs = {
            name: common.in_fresh_process(common.run_tfq, recipe, directory / name)
            for name, recipe in _recipes(files, num_samples, seed).items()
        }
        paths = {name: directory / name / "model.tflite" for name in runs}
        found = common.in_fresh_process(side_by_side, paths, files.calibration)
    return {name: _cost(run) | found[name] for name, run in runs.items()}


def _recipes(files: CaseFiles, num_samples: int, seed: int) -> dict[str, Recipe]:
    plain = Recipe(
        model=str(files.model),
        calibration_data=str(files.calibration),
        num_calibration_samples=num_samples,
        seed=seed,
    )
    return {"int8": plain, "advanced": dataclasses.replace(plain, pipeline="advanced", weight_bits=4)}


def _cost(run: TfqRun) -> dict[str, Any]:
    return {"seconds": run.seconds, "peak_memory_mb": run.peak_memory_mb, "stages": run.stages}


def side_by_side(models: dict[str, Path], calibration: Path) -> dict[str, dict[str, Any]]:
    """Size of every file, and its latency against the first one's."""
    from tfq.evaluation.latency import Timing, measure_latency
    from tfq.evaluation.size import measure_size
    from tfq.execution.interpreter import TfliteModel

    with np.load(calibration) as arrays:
        sample = arrays["x"][:1]
    inputs = {name: {info.name: sample for info in TfliteModel(path).inputs} for name, path in models.items()}
    latencies = measure_latency(models, inputs, timing=Timing(seconds=3.0))  # a model; the bar is narrow
    return {
        name: {
            **dataclasses.asdict(measure_size(path)),
            "latency_ratio": dataclasses.asdict(latencies[name].ratio),
        }
        for name, path in models.items()
    }
