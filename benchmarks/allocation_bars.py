"""What the allocation benchmark demands, judged on the results there are."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import cases
from benchmarks.cells import Results
from benchmarks.common import Bar
from benchmarks.reconstruction_bars import Judgement

# Names of the models at one budget.
PROGRAM, GREEDY, UNIFORM, RECONSTRUCTED = "program", "greedy", "uniform", "reconstructed"
RANDOMS = ("random 0", "random 1", "random 2")
RIVALS = (GREEDY, UNIFORM)
FLOAT = "float"
LATENCY_POINTS = 8  # budgets of latency

# Budget that leaves the weights so many grid bits on average.
BUDGET_OF_BITS = {4: 0.125, 3: 0.09375}
# (mean bits, case) -> points below float, floor (the bar) and goal.
MOST_LOST = {
    (4, "resnet8_cifar10"): (0.8, 0.3),
    (4, "mobilenet_v2_035_imagenette"): (1.2, 0.5),
    (3, "resnet8_cifar10"): (4.0, 2.0),
    (3, "resnet20_cifar10"): (1.0, 0.5),
    (3, "kws_dscnn"): (1.2, 0.6),
    (3, "mobilenet_v2_035_imagenette"): (4.0, 2.0),
}
MOST_GAP = 1e-6  # of the program, as a fraction of its objective
MOST_DROP, MOST_LATENCY = 0.5, 1.05
# Case -> download of plain int8's, at most, of a run with a largest accuracy drop.
MOST_DOWNLOAD = dict.fromkeys(cases.SHARED, 0.6) | {"mobilenet_v2_100_imagenet": 0.62}
MOST_OFF = 0.1  # of a predicted latency
COST_CASE, COST_SAMPLES, FRONTIER_POINTS = "resnet20_cifar10", 256, 12
MOST_SURVEY, MOST_FRONTIER, MOST_SOLVE = 60.0, 20.0, 2.0
# Layers and samples of the nets that show how the cost grows.
GROWTH = ((10, 256), (20, 256), (40, 256), (20, 64), (20, 128))


def runs_of(results: Results, part: str) -> list[dict[str, Any]]:
    """The measurements of a part, cases in their order, small budgets and seeds first."""

    def order(run: dict[str, Any]) -> tuple[Any, ...]:
        place = (*cases.CASES, *cases.LARGER).index(run["case"]) if "case" in run else 0
        return (place, *(run.get(name, 0) for name in ("budget", "seed", "layers", "samples", "costs")))

    return sorted((run for run in results.runs.values() if run["part"] == part), key=order)


def mixed_of(run: dict[str, Any]) -> dict[str, Any]:
    """Of a run with a largest accuracy drop: the model of mixed precision."""
    return run[pipeline_of(run)]


def pipeline_of(run: dict[str, Any]) -> str:
    """That made it; the first ones that were stored do not say so."""
    return run.get("pipeline", "advanced")


def judge(results: Results) -> Judgement:
    """All that is demanded, of all results there are."""
    demands = list(_demands(results))
    return Judgement([bar for _, bar in demands if bar], [what for what, bar in demands if bar is None])


def _demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    """(what, its bar, None where it has not been measured)."""
    for case in cases.CASES:
        yield from _curve_demands(case, [run for run in runs_of(results, "curve") if run["case"] == case])
    for (bits, case), (floor, goal) in MOST_LOST.items():
        what = f"{case}, {bits} bits a weight on average: against float"
        found = over_seeds(results, case, bits)
        yield what, _lost(what, found, floor, goal) if found else None
    for case in MOST_DOWNLOAD:
        yield from _drop_demands(case, [run for run in runs_of(results, "drop") if run["case"] == case])
    for case in cases.SHARED:
        yield from _latency_demands(case, [run for run in runs_of(results, "latency") if run["case"] == case])
    for case in cases.SHARED:
        yield from _speed_demands(case, [run for run in runs_of(results, "speed") if run["case"] == case])
    yield from _cost_demands(results)


def _curve_demands(case: str, runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Bar | None]]:
    """Of all budgets together: the objectives, the gap, the scores."""
    if not runs:
        yield f"{case}: budgets of size", None
        return
    count = f"{len(runs)} budgets"
    found = [run["rows"] for run in runs]
    excess = [
        rows[PROGRAM]["objective"] - rows[rival]["objective"] for rows in found for rival in RIVALS if rival in rows
    ]
    what = f"{case}: the program's objective less greedy's and uniform's"
    yield what, Bar.at_most(f"{what}, {count}, the most", max(excess), 0.0, "{:.3g}") if excess else None
    yield _proved(case, [rows[PROGRAM] for rows in found])
    for rival in RIVALS:
        what = f"{case}: test top-1 of the program at least {rival}'s within noise"
        compared = [run for run in runs if rival in run["rows"]]
        if not compared:
            yield what, None
            continue
        worst = max(compared, key=lambda run: run["rows"][rival]["against_program"]["value"])
        lead = worst["rows"][rival]["against_program"]
        beaten = [run["budget"] for run in compared if run["rows"][rival]["against_program"]["low"] > 0]
        where = ", ".join(f"{budget:g}" for budget in beaten) or "none"
        text = (
            f"{what}, {len(compared)} budgets: most behind at {worst['budget']:g}, by {lead['value']:+.2f} points"
            f" [{lead['low']:+.2f}, {lead['high']:+.2f}]; beyond noise at {where}"
        )
        yield what, Bar(text, not beaten)


def gap_of(row: dict[str, Any]) -> float | None:
    """The gap that the solver proved; None where it was not measured: of rows from before its bound was kept."""
    if "bound" not in row:
        return None
    return math.inf if row["gap"] is None else float(row["gap"])


def _proved(case: str, rows: Sequence[dict[str, Any]]) -> tuple[str, Bar | None]:
    """The gap of all budgets of a case."""
    what = f"{case}: gap that the solver of the program proved"
    gaps = [gap for row in rows if (gap := gap_of(row)) is not None]
    if len(gaps) < len(rows):
        return what, None
    optimal = all(row["status"] == "optimal" for row in rows)
    status = "all optimal" if optimal else "not all optimal"
    text = f"{what}, {len(rows)} budgets: {status}, at most {max(gaps):g}, bar optimal and at most {MOST_GAP:g}"
    return what, Bar(text, optimal and max(gaps) <= MOST_GAP)


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """Runs that differ in their seed alone: means, and the smallest and the largest difference to float."""

    difference: float
    low: float
    high: float
    least: float
    most: float
    agreement: float
    weight_bits: float
    download_bytes: float
    seconds: float
    seeds: int


def over_seeds(results: Results, case: str, bits: int) -> OverSeeds | None:
    """None for no runs."""
    runs = [run for run in runs_of(results, "average") if (run["case"], run["bits"]) == (case, bits)]
    if not runs:
        return None
    differences = [run["difference"]["value"] for run in runs]
    return OverSeeds(
        difference=statistics.fmean(differences),
        low=statistics.fmean(run["difference"]["low"] for run in runs),
        high=statistics.fmean(run["difference"]["high"] for run in runs),
        least=min(differences),
        most=max(differences),
        agreement=statistics.fmean(run["agreement"] for run in runs),
        weight_bits=statistics.fmean(run["weight_bits"] for run in runs),
        download_bytes=statistics.fmean(run["download_bytes"] for run in runs),
        seconds=statistics.fmean(run["seconds"] for run in runs),
        seeds=len(runs),
    )


def _lost(what: str, found: OverSeeds, floor: float, goal: float) -> Bar:
    bar = Bar.at_least(f"{what}, {found.seeds} seeds", found.difference, -floor, "{:+.2f} points")
    reached = "reached" if found.difference >= -goal else "not reached"
    return dataclasses.replace(bar, text=f"{bar.text}; goal {-goal:+.2f} {reached}")


def _drop_demands(case: str, runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Bar | None]]:
    """Of every seed that was run, the worst counts."""
    name = f"{case} --max_accuracy_drop={MOST_DROP:g}"
    if not runs:
        yield name, None
        return
    worst = max(map(mixed_of, runs), key=lambda found: -found["difference"]["value"] - found["standard_error"])
    lost, error = -worst["difference"]["value"], worst["standard_error"]
    text = (
        f"{name}: {lost:+.2f} test points lost, bar at most {MOST_DROP:+.2f} within one standard error ({error:.2f}):"
        f" at most {MOST_DROP + error:+.2f}"
    )
    yield name, Bar(text, lost - error <= MOST_DROP)
    download = max(mixed_of(run)["download_bytes"] / run["int8"]["download_bytes"] for run in runs)
    yield name, Bar.at_most(f"{name}: download of plain int8's", download, MOST_DOWNLOAD[case], "{:.3f} x")
    ratio = max(mixed_of(run)["latency_ratio"]["value"] for run in runs)
    yield name, Bar.at_most(f"{name}: latency of plain int8's", ratio, MOST_LATENCY, "{:.3f} x")


def _latency_demands(case: str, runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Bar | None]]:
    what = f"{case}: predicted latency off the measured"
    if not runs:
        yield what, None
    for check in (check for run in runs for check in run["checks"]):
        off = abs(check["predicted_ms"] / check["measured_ms"] - 1)
        yield what, Bar.at_most(f"{what}, {check['model']}", 100 * off, 100 * MOST_OFF, "{:.1f} %")


def _speed_demands(case: str, runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Bar | None]]:
    what = f"{case}: predicted latency off the measured, models of budgets of latency, the most"
    rows = [row for run in runs for row in run["rows"].values()]
    off = [abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows]
    yield what, Bar.at_most(what, 100 * max(off), 100 * MOST_OFF, "{:.1f} %") if off else None


def _cost_demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    surveys = runs_of(results, "survey")
    what = f"{COST_CASE}: states and sensitivities of 6 candidates a layer, {COST_SAMPLES} samples"
    yield what, Bar.at_most(what, surveys[0]["seconds"], MOST_SURVEY, "{:.1f} s") if surveys else None
    what = f"{COST_CASE}: frontier of {FRONTIER_POINTS} points after the sensitivities"
    yield what, Bar.at_most(what, surveys[0]["frontier_seconds"], MOST_FRONTIER, "{:.1f} s") if surveys else None
    nets = {(run["layers"], run["samples"]): run["seconds"] for run in runs_of(results, "growth")}
    for small, large, power, of in (
        ((10, 256), (40, 256), 2, "layers"),
        ((20, 64), (20, 256), 1, "samples"),
    ):
        times = (large[0] / small[0]) * (large[1] / small[1])
        what = f"states and sensitivities, {times:g} x the {of}: time"
        both = small in nets and large in nets
        yield what, Bar.at_most(what, nets[large] / nets[small], times**power, "{:.2f} x") if both else None
    solved = runs_of(results, "solve")
    if not solved:
        yield "program", None
    for run in solved:
        what = f"program of {run['layers']} layers x {run['candidates']} candidates, {run['costs']} budgets"
        yield (
            what,
            Bar.at_most(
                f"{what}, slowest of {len(run['seconds'])}",
                max(run["seconds"]),
                MOST_SOLVE,
                "{:.2f} s",
            ),
        )
