"""What allocation costs: latency tables, survey and frontier, nets of several depths, the program alone.

TensorFlow is imported inside the functions: each is called in a process of its own.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import cases, common, cost
from benchmarks.allocation_bars import FRONTIER_POINTS
from benchmarks.cases import CaseFiles
from tfq.execution.predict import available_cores
from tfq.execution.progress import Advance

PROGRAMS = ((20, 8), (60, 8), (200, 8), (200, 12), (400, 8))  # layers and candidates of made-up networks
_INSTANCES = 3
EIGHT = ("w2", "w3", "w4", "w5", "w6", "w8", "float16", "float32")  # what most programs choose among
_FEW = 8
# Budgets of a made-up network, as a share of what 8 bits everywhere cost; the first one, two and three are kept.
_SHARES = {"bytes": 0.5, "ms": 1.2, "bops": 0.6}
BUDGETS = tuple(range(1, len(_SHARES) + 1))


class TaskTimes:
    """A progress that shows nothing and adds up the seconds of every task; tasks within others count in both."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, expected_seconds: float = 0.0) -> Iterator[Advance]:  # noqa: ARG002
        start = time.monotonic()
        yield lambda _: None
        self.seconds[description] = self.seconds.get(description, 0.0) + time.monotonic() - start


def profile_case(files: CaseFiles) -> dict[str, Any]:
    """The latency table of a case, and what it predicts of whole models, which are then measured anew."""
    return common.in_fresh_process(_profiled, files.model, files.calibration)


def _profiled(model: Path, calibration: Path) -> dict[str, Any]:
    from benchmarks.ablation import load_prepared
    from tfq.allocation.profile import predicted_whole, profile, whole_models
    from tfq.evaluation.latency import measure_latency

    graph, _ = load_prepared(model, calibration, _FEW)
    table = profile(graph)
    whole = whole_models(graph, seed=1)
    again = measure_latency(whole.files, dict.fromkeys(whole.files, whole.inputs))
    return {
        "entries": len(table.entries),
        "overhead_ms": table.overhead_ms,
        "in_place": dict(table.in_place),
        "runtime": table.runtime,
        "checks": [
            {"model": name, "predicted_ms": predicted_whole(table, graph, name), "measured_ms": time.p50_ms}
            for name, time in again.items()
        ],
    }


def survey_case(case: str, num_samples: int) -> dict[str, Any]:
    """States and sensitivities of a case by one worker a core, and then its frontier."""
    with tempfile.TemporaryDirectory() as temporary:
        files = common.in_fresh_process(cases.write_case, case, Path(temporary), num_samples)
        return common.in_fresh_process(_surveyed, files.model, files.calibration, num_samples, True)


def survey_net(layers: int, num_samples: int) -> dict[str, Any]:
    """States and sensitivities of a net of so many layers."""
    with tempfile.TemporaryDirectory() as temporary:
        net = common.in_fresh_process(cost.write_residual_net, Path(temporary), layers, num_samples, 0)
        return common.in_fresh_process(_surveyed, *net, num_samples, False)


def _surveyed(model: Path, calibration: Path, num_samples: int, with_frontier: bool) -> dict[str, Any]:
    from benchmarks.allocation_survey import ready
    from tfq.allocation.frontier import budgets_between, frontier
    from tfq.allocation.wish import WEIGHTS
    from tfq.execution.journal import peak_memory_mb

    workers, times = available_cores(), TaskTimes()
    start = ready(model, calibration, num_samples, workers=workers)
    before = peak_memory_mb()
    began = time.monotonic()
    found = start.survey(progress=times)
    result = {
        "seconds": time.monotonic() - began,
        "tasks": dict(times.seconds),
        "peak_memory_mb": peak_memory_mb(),
        "peak_memory_before_mb": before,
        "layers": len(found.units),
        "candidates": len(found.sensitivities) // len(found.units),
        "samples": len(start.samples),
        "workers": workers,
    }
    if with_frontier:
        began = time.monotonic()
        budgets = [(WEIGHTS, budget) for budget in budgets_between(found.problem, WEIGHTS, FRONTIER_POINTS)]
        made = frontier(found.problem, found.bench, budgets)
        result |= {"frontier_seconds": time.monotonic() - began, "frontier_points": len(made.points)}
    return result


def solve(layers: int, candidates: int, budgets: int) -> dict[str, Any]:
    """Seconds of the program on made-up networks of so many layers and candidates, with so many budgets at once."""
    return common.in_fresh_process(_solved, layers, candidates, budgets)


def _solved(layers: int, candidates: int, budgets: int) -> dict[str, Any]:
    from benchmarks.allocation_networks import network_problem
    from tfq.allocation.program import minimise_degradation
    from tfq.precision import CANDIDATES

    offered = EIGHT if candidates == len(EIGHT) else tuple(CANDIDATES)[:candidates]
    seconds = []
    for seed in range(_INSTANCES):
        problem = network_problem(layers, candidates=offered, seed=seed)
        in_eight_bits = dict.fromkeys(problem.values, "w8")
        limits = {n: share * problem.total(n, in_eight_bits) for n, share in list(_SHARES.items())[:budgets]}
        seconds.append(minimise_degradation(problem, budgets=limits).seconds)
    return {"seconds": seconds}
