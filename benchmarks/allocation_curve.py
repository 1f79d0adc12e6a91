"""Budgets of size and of latency: allocations put together, exported and measured.

At a budget of size the program's allocation and its rivals; between the fastest model and float the frontier of
latency, of layers of 8 bits, of packed 4 bits and in float32.

The survey of a case is made once and kept from call to call, so a process of its own should serve one case. Test
samples judge models; nothing else sees them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.allocation_bars import FLOAT, GREEDY, LATENCY_POINTS, PROGRAM, RANDOMS, RECONSTRUCTED, UNIFORM
from benchmarks.allocation_networks import random_allocation
from benchmarks.allocation_survey import Ready, ready
from benchmarks.cases import CaseFiles
from tfq.allocation.allocate import DOWNLOAD
from tfq.allocation.baselines import greedy, uniform
from tfq.allocation.frontier import budgets_between, frontier
from tfq.allocation.problem import Allocation
from tfq.allocation.profile import profile
from tfq.allocation.program import Infeasible, minimise_degradation
from tfq.allocation.survey import Survey
from tfq.allocation.wish import LATENCY, WEIGHTS, float_bytes
from tfq.data.loading import load_samples
from tfq.data.samples import Samples
from tfq.data.signatures import input_signatures
from tfq.evaluation.bootstrap import estimate, point, resampled
from tfq.evaluation.latency import measure_latency
from tfq.evaluation.metric import Predictions
from tfq.evaluation.metrics import find_metric
from tfq.evaluation.size import measure_size
from tfq.execution.predict import predict
from tfq.export.package import export_plain
from tfq.option_groups import BudgetOptions

_REPRESENTATIVE = 100
_FAST = BudgetOptions(candidates=("w4-packed", "w8", "float32"))
_KEPT = 64  # models; budgets that are close to each other often share one


def measure(files: CaseFiles, num_samples: int, budget: float) -> dict[str, Any]:
    """The program, greedy, the best uniform width and chance at one budget, from parallel states.

    Args:
      budget: share of the float weights' bytes.

    Raises:
      Infeasible: no allocation keeps the budget.
    """
    surveyed = _surveyed(files, num_samples)
    made = {name: _assembled(files, num_samples, own) for name, own in surveyed.proposals(budget).items()}
    return _facts(surveyed) | {"budget": budget, "rows": _judged(surveyed, made)}


def measure_reconstructed(files: CaseFiles, num_samples: int, budget: float) -> dict[str, Any]:
    """The program's allocation at one budget reconstructed in sequence, and put together from parallel states."""
    surveyed = _surveyed(files, num_samples)
    allocation = surveyed.allocation(budget)
    began = time.monotonic()
    model, found = surveyed.found.bench.rebuild(allocation.candidates)
    seconds = time.monotonic() - began
    rebuilt = _Made(allocation, surveyed.found.bench.export(model), found.loss)
    made = {PROGRAM: _assembled(files, num_samples, allocation), RECONSTRUCTED: rebuilt}
    rows = _judged(surveyed, made)
    return _facts(surveyed) | {"budget": budget, "reconstruction_seconds": seconds, "rows": rows}


def measure_speed(files: CaseFiles, num_samples: int) -> dict[str, Any]:
    """The frontier of latency on this machine: every model timed in turns with float, and judged on test samples."""
    start = ready(files.model, files.calibration, num_samples)
    table = profile(start.graph)
    surveyed = _judging(files, start, wish=_FAST, table=table)
    problem, bench = surveyed.found.problem, surveyed.found.bench
    budgets = [(LATENCY, budget) for budget in budgets_between(problem, LATENCY, LATENCY_POINTS)]
    made = {
        f"{point.budget:.4g} ms": _Made(point.allocated.allocation, bench.export(point.model), point.last.measured.loss)
        for point in frontier(problem, bench, budgets).points.values()
    }
    contents = {FLOAT: surveyed.float_file} | {name: model.content for name, model in made.items()}
    sample = {name: values[:1] for name, values in surveyed.test.arrays.items()}
    times = measure_latency(contents, dict.fromkeys(contents, sample))
    rows = _judged(surveyed, made)
    for name, row in rows.items():
        row["predicted_ms"] = made[name].allocation.costs[LATENCY]
        row["measured_ms"], row["latency_ratio"] = times[name].p50_ms, dataclasses.asdict(times[name].ratio)
    return _facts(surveyed) | {"float_ms": times[FLOAT].p50_ms, "rows": rows}


@dataclasses.dataclass(frozen=True, eq=False)
class _Made:
    """A model of an allocation: its file, and its loss above the 8-bit model's on calibration samples."""

    allocation: Allocation
    content: bytes
    loss: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Surveyed:
    """A case with its survey, and what models are judged by."""

    found: Survey
    float_bytes: int
    samples: int
    test: Samples
    float_file: bytes
    float_outputs: tuple[np.ndarray, ...]
    seconds: float

    def allocation(self, budget: float) -> Allocation:
        return minimise_degradation(self.found.problem, budgets=self._limits(budget))

    def proposals(self, budget: float) -> dict[str, Allocation]:
        """By name; of the rivals those that find something within the budget."""
        problem, limits = self.found.problem, self._limits(budget)
        rivals = {GREEDY: greedy, UNIFORM: uniform}
        rivals |= {name: functools.partial(random_allocation, seed=seed) for seed, name in enumerate(RANDOMS)}
        proposals = {PROGRAM: self.allocation(budget)}
        for name, find in rivals.items():
            with contextlib.suppress(Infeasible):  # they search less than the program, which has found one
                proposals[name] = find(problem, budgets=limits)
        return proposals

    def _limits(self, budget: float) -> dict[str, float]:
        return {WEIGHTS: budget * self.float_bytes}


@functools.lru_cache(maxsize=1)
def _surveyed(files: CaseFiles, num_samples: int) -> _Surveyed:
    return _judging(files, ready(files.model, files.calibration, num_samples))


def _judging(files: CaseFiles, start: Ready, **options: Any) -> _Surveyed:
    """The survey, with these options of `Ready.survey`, and what models are judged by."""
    began = time.monotonic()
    found = start.survey(**options)
    seconds = time.monotonic() - began
    test = load_samples(str(files.test), input_signatures(start.graph), require_labels=True)
    content = export_plain(start.graph, "float32", start.samples.head(_REPRESENTATIVE).representative_dataset())
    outputs = predict(content, test.arrays)
    size = float_bytes(start.graph, found.units)
    return _Surveyed(found, size, len(start.samples), test, content, outputs, seconds)


def _assembled(files: CaseFiles, num_samples: int, allocation: Allocation) -> _Made:
    content, loss = _assemble(files, num_samples, tuple(sorted(allocation.candidates.items())))
    return _Made(allocation, content, loss)


@functools.lru_cache(maxsize=_KEPT)
def _assemble(files: CaseFiles, num_samples: int, mixture: tuple[tuple[str, str], ...]) -> tuple[bytes, float]:
    bench = _surveyed(files, num_samples).found.bench
    model, found = bench.assemble(dict(mixture))
    return bench.export(model), found.loss


def _facts(surveyed: _Surveyed) -> dict[str, Any]:
    return {
        "units": len(surveyed.found.units),
        "float_weight_bytes": surveyed.float_bytes,
        "calibration_samples": surveyed.samples,
        "test_samples": len(surveyed.test),
        "survey_seconds": surveyed.seconds,
    }


def _judged(surveyed: _Surveyed, made: Mapping[str, _Made]) -> dict[str, dict[str, Any]]:
    """A row of every model: what was predicted of it, what it is, and top-1 against float and the program's, paired."""
    test, judge = surveyed.test, find_metric("top1")
    outputs = {"float": surveyed.float_outputs}
    outputs |= {name: predict(model.content, test.arrays) for name, model in made.items()}
    statistics = [
        judge.statistic(Predictions(found, test.labels, test.arrays, surveyed.float_outputs))
        for found in outputs.values()
    ]
    n = len(test)
    values = dict(zip(outputs, (point(statistic, n) for statistic in statistics), strict=True))
    drawn = dict(zip(outputs, resampled(statistics, n, seed=0), strict=True))

    def difference(name: str, other: str) -> dict[str, Any]:
        return dataclasses.asdict(
            estimate(values[name] - values[other], drawn[name] - drawn[other], unit="points", n=n)
        )

    float_classes = surveyed.float_outputs[0].argmax(-1)
    rows = {}
    for name, model in made.items():
        allocation, size = model.allocation, measure_size(model.content)
        own = allocation.candidates
        rows[name] = {
            "precisions": " ".join(own[unit.name] for unit in surveyed.found.units),
            "objective": allocation.degradation,
            "measured_loss": model.loss,
            "weight_bytes": allocation.costs[WEIGHTS],
            "weight_bits": 32 * allocation.costs[WEIGHTS] / surveyed.float_bytes,
            "predicted_download_bytes": allocation.costs[DOWNLOAD],
            "download_bytes": size.download_bytes,
            "file_bytes": size.file_bytes,
            "status": allocation.status,
            "bound": allocation.bound if np.isfinite(allocation.bound) else None,
            "gap": allocation.gap if np.isfinite(allocation.gap) else None,
            "solver": allocation.solver,
            "solve_seconds": allocation.seconds,
            "score": values[name],
            "float_score": values["float"],
            "difference": difference(name, "float"),
            "agreement": 100.0 * float((outputs[name][0].argmax(-1) == float_classes).mean()),
        }
        if PROGRAM in made:
            rows[name]["against_program"] = difference(name, PROGRAM)
    return rows
