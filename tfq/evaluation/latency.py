"""Time of one invocation on this machine, as a comparison of models.

The models take turns in short blocks, A B, B A, A B ..., so that a clock that speeds up or another
program that comes by touches all of them alike. The first invocation of a block only warms the caches.
The ratio of two models is the median over the rounds of (median of the block of one / of the other).
Setting inputs and reading outputs is not timed. Figures of a host do not carry over to a phone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfq.evaluation.bootstrap import Estimate, Statistic, estimate, resampled
from tfq.execution.interpreter import TfliteModel
from tfq.execution.progress import SILENT, Progress

BLOCK = 4
WARM_UP = 5
_MOST_RUNS = 1000


@dataclasses.dataclass(frozen=True)
class Timing:
    """How models are timed.

    Attributes:
      runs: timed invocations of each at the least, rounded up to whole blocks of 4.
      seconds: go on for about so long a model, up to 1000 runs, so that fast models are timed well too.
      threads: of one invocation.
    """

    runs: int = 48
    seconds: float = 1.0
    threads: int = 1


DEFAULT = Timing()


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one model.

    Attributes:
      p50_ms, p90_ms: quantiles of the timed invocations, in milliseconds.
      ratio: to the baseline, with its interval over the rounds; below 1 is faster.
      runs, warm_up: timed invocations, and those before them.
      threads, batch: threads and samples of one invocation.
      delegate: XNNPACK was on.
      times_ms: every timed invocation, in order.
    """

    p50_ms: float
    p90_ms: float
    ratio: Estimate
    runs: int
    warm_up: int
    threads: int
    batch: int
    delegate: bool
    times_ms: tuple[float, ...]


def measure_latency(
    models: Mapping[str, bytes | Path],
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    *,
    timing: Timing = DEFAULT,
    delegate: bool = True,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Latency]:
    """Time models against the first of them.

    Args:
      models: .tflite files or their content, by name; the first is the baseline.
      inputs: by model name: real-valued arrays of one invocation, batch axis included, by input name.
      seed: of the bootstrap of the ratio.
    """
    loaded = {name: TfliteModel(content, threads=timing.threads, delegate=delegate) for name, content in models.items()}
    names = list(models)
    start = time.perf_counter()
    for name, model in loaded.items():
        model.run(inputs[name])
        for _ in range(WARM_UP - 1):
            model.invoke()
    each = (time.perf_counter() - start) / (WARM_UP * len(names))
    runs = max(timing.runs, min(_MOST_RUNS, round(timing.seconds / each)))
    rounds = -(-runs // BLOCK)
    times = np.empty((len(names), rounds, BLOCK))
    with progress.task("time", rounds) as advance:
        for turn in range(rounds):
            order = range(len(names)) if turn % 2 == 0 else reversed(range(len(names)))
            for row in order:
                times[row, turn] = _block(loaded[names[row]])
            advance(1)
    medians = np.median(times, axis=2)
    latencies = {}
    for row, name in enumerate(names):
        p50, p90 = np.quantile(times[row], [0.5, 0.9])
        latencies[name] = Latency(
            p50_ms=float(p50),
            p90_ms=float(p90),
            ratio=_ratio(medians[row] / medians[0], seed=seed),
            runs=rounds * BLOCK,
            warm_up=WARM_UP,
            threads=timing.threads,
            batch=len(next(iter(inputs[name].values()))),
            delegate=delegate,
            times_ms=tuple(times[row].ravel().tolist()),
        )
    return latencies


def _block(model: TfliteModel) -> list[float]:
    """Milliseconds of BLOCK invocations, after one that is not timed."""
    model.invoke()
    taken = []
    for _ in range(BLOCK):
        start = time.perf_counter_ns()
        model.invoke()
        taken.append((time.perf_counter_ns() - start) / 1e6)
    return taken


def _ratio(ratios: np.ndarray, *, seed: int) -> Estimate:
    order = np.argsort(ratios)

    def medians(weights: np.ndarray) -> np.ndarray:
        seen = np.cumsum(weights[:, order], axis=1)
        half = seen[:, -1:] / 2
        lower = ratios[order][np.argmax(seen >= half, axis=1)]
        upper = ratios[order][np.argmax(seen > half, axis=1)]
        return (lower + upper) / 2

    statistic = Statistic(medians)
    drawn = resampled([statistic], len(ratios), seed=seed)[0]
    return estimate(float(np.median(ratios)), drawn, unit="x", n=len(ratios))
