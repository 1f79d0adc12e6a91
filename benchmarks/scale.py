"""Time, memory and repeatability on models of real size: `python -m benchmarks.scale`.

MobileNetV2 and EfficientNetB0 for 1000 classes at 224 pixels, from tf_keras and from Keras 3, with
random weights: what a run costs depends on the shapes alone. The images are seeded noise with the 1/f
spectrum of natural images. Every run is a process of its own, so that its peak memory is its own; each
model is run twice, and both runs have to give the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import common
from benchmarks.common import REPEATABLE, Bar, TfqRun
from tfq.execution.progress import Lines, Progress
from tfq.recipe import Recipe

MOST_SECONDS, MOST_MEMORY_MIB, MOST_CALIBRATION = 240.0, 4e9 / 2**20, 2.0
FRAMEWORKS = ("tf_keras", "keras")
# Architecture -> how its inputs are scaled; EfficientNet does it inside.
PREPROCESS = {"MobileNetV2": "minus_one_one", "EfficientNetB0": "raw"}
MODELS = tuple(f"{architecture}/{framework}" for architecture in PREPROCESS for framework in FRAMEWORKS)
_SIDE = 224
_RUNS = 2
_BATCH, _TIMED = 32, (128, 512)  # samples by which calibration is timed

FLAGS = new_flags()
flags.DEFINE_list("models", list(MODELS), "Which models to run, as architecture/framework.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of weights, images and tfq.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of scale.md and scale.json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What was measured of one model.

    Attributes:
      runs: repetitions of the same command.
      calibration_ratio: time of the calibration pass against the forward pass alone.
    """

    name: str
    runs: tuple[TfqRun, ...]
    calibration_ratio: float

    @property
    def changed(self) -> tuple[str, ...]:
        """Files that are not the same in every byte in all runs."""
        return tuple(name for name in REPEATABLE if len({run.digests[name] for run in self.runs}) > 1)

    @property
    def seconds(self) -> float:
        """Of the slower run."""
        return max(run.seconds for run in self.runs)

    @property
    def peak_memory_mb(self) -> float:
        """Of the larger run."""
        return max(run.peak_memory_mb for run in self.runs)

    def figures(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "changed": self.changed,
            "calibration_ratio": self.calibration_ratio,
            "runs": [run.figures() for run in self.runs],
        }


def images(count: int, side: int, *, seed: int) -> np.ndarray:
    """Noise that looks like images, uint8 [count, side, side, 3]: amplitude falls as 1 / spatial frequency.

    The spectrum is that of natural images (Field, "Relations between the statistics of natural images and the
    response properties of cortical cells", 1987). Most of the noise is common to the colours; brightness and
    contrast differ from image to image.
    """
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / side)
    found = np.empty((count, side, side, 3), np.uint8)
    for image in found:
        spectra = np.fft.rfft2(generator.normal(size=(4, side, side))) * amplitude
        planes = np.fft.irfft2(spectra, s=(side, side))
        planes = np.moveaxis(planes[:1] + 0.3 * planes[1:], 0, -1)
        planes = (planes - planes.mean()) / planes.std()
        brightness, contrast = generator.uniform(80, 170), generator.uniform(25, 70)
        image[...] = np.clip(np.rint(brightness + contrast * planes), 0, 255)
    return found


def write_inputs(name: str, directory: Path, num_samples: int, seed: int) -> Recipe:
    """Write the model and its calibration images, and return how to quantise them."""
    architecture, framework = name.split("/")
    keras = importlib.import_module(framework)
    keras.utils.set_random_seed(seed)
    model = getattr(keras.applications, architecture)(weights=None, input_shape=(_SIDE, _SIDE, 3), classes=1000)
    model.save(directory / "model.keras")
    np.savez(directory / "calibration.npz", x=images(num_samples, _SIDE, seed=seed))
    return Recipe(
        model=str(directory / "model.keras"),
        calibration_data=str(directory / "calibration.npz"),
        num_calibration_samples=num_samples,
        preprocess=PREPROCESS[architecture],
        seed=seed,
    )


def run_model(name: str, *, num_samples: int, seed: int, progress: Progress) -> ModelResult:
    """Make the model and run tfq on it, each time in a process of its own.

    Raises:
      VerificationError: tfq's file is not what was specified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with progress.task(f"{name}: model and images", 0):
            recipe = common.in_fresh_process(write_inputs, name, directory, num_samples, seed)
        runs = []
        for number in range(1, _RUNS + 1):
            with progress.task(f"{name}: run {number} of {_RUNS}", 0):
                runs.append(common.in_fresh_process(common.run_tfq, recipe, directory / str(number)))
        with progress.task(f"{name}: calibration", 0):
            ratio = common.in_fresh_process(time_calibration, recipe)
    return ModelResult(name, tuple(runs), ratio)


def time_calibration(recipe: Recipe) -> float:
    """Seconds of the pass that collects statistics for each second of the forward pass of the same samples.

    Both are what more samples take: that of some samples less that of a few, so that what is built does not count.
    """
    from tfq.calibration.calibrate import calibrate
    from tfq.data.loading import Selection, load_samples
    from tfq.data.signatures import input_signatures
    from tfq.models.graph import build_model
    from tfq.models.load import load_model
    from tfq.models.prepare import prepare

    loaded = load_model(Path(recipe.model))
    signatures = input_signatures(loaded.graph)
    samples = load_samples(recipe.calibration_data, signatures, Selection(_TIMED[-1]), preprocess=recipe.preprocess)
    graph = prepare(loaded.graph, samples.head(_BATCH).read(), original=loaded, seed=recipe.seed).graph
    forward = build_model(graph)

    def run(count: int) -> None:
        for batch in samples.head(count).batches(_BATCH):
            forward.predict_on_batch([batch[name] for name in graph.inputs])

    def collect(count: int) -> None:
        calibrate(graph, samples.head(count).batches(_BATCH), method="minmax", total=count)

    def more(work: Callable[[int], None]) -> float:
        seconds = []
        for count in (_TIMED[0], *_TIMED):  # once to warm up
            start = time.monotonic()
            work(count)
            seconds.append(time.monotonic() - start)
        return seconds[2] - seconds[1]

    return more(collect) / more(run)


def bars(result: ModelResult) -> list[Bar]:
    """What is demanded of one model, of its worse run."""
    name = result.name
    same = f"differ: {', '.join(result.changed)}" if result.changed else f"the same: {', '.join(REPEATABLE)}"
    return [
        Bar.at_most(f"{name}: whole run", result.seconds, MOST_SECONDS, "{:.0f} s"),
        Bar.at_most(f"{name}: peak memory", result.peak_memory_mb, MOST_MEMORY_MIB, "{:,.0f} MiB"),
        Bar.at_most(f"{name}: calibration of the forward pass", result.calibration_ratio, MOST_CALIBRATION, "{:.2f} x"),
        Bar(f"{name}: bytes of {_RUNS} runs {same}", not result.changed),
    ]


def page(results: Sequence[ModelResult], demands: Sequence[Bar], where: dict[str, Any], num_samples: int) -> str:
    """The results as Markdown."""
    parts = [
        f"1000 classes, 224 x 224 x 3, random weights, {num_samples} calibration images of 1/f noise. Seconds of the"
        " whole of `tfq.pipeline.quantize` with the import of TensorFlow; memory is the largest resident set of the"
        " process; calibration (in the bars) is its pass against the forward pass of the same samples, each timed"
        " alone. The weights are random: the probabilities are all near 1/1000, which is 0 on the grid of 1/256, so the"
        " outputs show nothing; the"
        " parity of the layers does.",
    ]
    if results:
        parts += ["## Runs", _runs(results), "## Seconds by stage", _stages(results)]
    return common.page_text("Time, memory and repeatability", where, parts, demands)


def _named_runs(results: Sequence[ModelResult]) -> list[tuple[str, TfqRun]]:
    return [(f"{r.name}, run {number}", run) for r in results for number, run in enumerate(r.runs, 1)]


def _runs(results: Sequence[ModelResult]) -> str:
    header = ["run", "total seconds", "peak memory, MiB", "integers verified", "layers", "steps at most"]
    rows = [
        [
            name,
            f"{run.seconds:.1f}",
            f"{run.peak_memory_mb:,.0f}",
            f"{run.report['verification']['integers']:,}",
            f"{run.layers}",
            f"{run.max_steps}",
        ]
        for name, run in _named_runs(results)
    ]
    return common.markdown_table(header, rows)


def _stages(results: Sequence[ModelResult]) -> str:
    stages = list(results[0].runs[0].stages)
    rows = [[name, *(f"{run.stages[stage]:.1f}" for stage in stages)] for name, run in _named_runs(results)]
    return common.markdown_table(["run", *stages], rows)


def main(values: flags.FlagValues) -> int:
    common.check_choices("models", values.models, MODELS)
    common.check_num_samples(values.num_samples)
    output = common.output_directory(values.output)
    where = common.environment("benchmarks.scale")
    run = functools.partial(run_model, num_samples=values.num_samples, seed=values.seed, progress=Lines(sys.stderr))
    results, demands = common.judged(values.models, run, bars)
    return common.finish(
        output / "scale.md",
        page(results, demands, where, values.num_samples),
        {**where, "models": [result.figures() for result in results]},
        demands,
    )


def run() -> None:
    run_command(
        "benchmarks.scale",
        main,
        FLAGS,
        summary="Measure time, peak memory and repeatability of tfq on 1000-class models at 224 pixels; the exit code"
        " is 1 where a bar is missed.",
        groups={"Benchmark": ("models", "num_samples", "seed", "output")},
    )


if __name__ == "__main__":
    run()
