"""What the reconstruction benchmark demands, judged on the results there are."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

from benchmarks import cases
from benchmarks.cells import OverSeeds, Results
from benchmarks.common import Bar

# (width, case) -> points below float, floor (the bar) and goal.
MOST_LOST = {
    ("W4A8", "resnet8_cifar10"): (1.2, 0.6),
    ("W4A8", "resnet20_cifar10"): (0.4, 0.1),
    ("W4A8", "kws_dscnn"): (0.6, 0.3),
    ("W4A8", "mobilenet_v2_035_imagenette"): (2.0, 1.0),
    ("W4A8", "mobilenet_v3_small_imagenette"): (1.0, 0.5),
    ("W3A8", "resnet8_cifar10"): (9.0, 5.0),
    ("W3A8", "resnet20_cifar10"): (1.3, 0.5),
    ("W3A8", "kws_dscnn"): (2.0, 1.0),
    ("W3A8", "mobilenet_v2_035_imagenette"): (8.0, 4.0),
    ("W4A4", "resnet20_cifar10"): (1.0, 1.0),
    ("W4A4", "resnet8_cifar10"): (3.0, 3.0),
}
RIVALS, RIVAL_WIDTHS = ("adaround", "adaquant", "adaquant_parallel"), ("W4A8", "W3A8")
FEW_BITS = ("W4A8", "W3A8", "W2A8", "W4A4")
FEW_SAMPLES = 16
# Stage after the row it goes on from, and what it may lose: a few of the test samples.
STAGES, MOST_LOST_BY_STAGE = (("best", "best_bn"), ("best_bn", "best_bn_bias")), 0.3
MOST_LATENCY, LEAST_SPEEDUP, MOST_NONLINEAR = 1.05, 1.6, 1.25


@dataclasses.dataclass(frozen=True)
class ProductLimits:
    """Download against plain int8's, seconds and MiB of the advanced pipeline."""

    download: float
    seconds: float
    memory: float


PRODUCTS = {
    "resnet20_cifar10": ProductLimits(0.56, 240.0, 4e9 / 2**20),
    "mobilenet_v2_035_imagenette": ProductLimits(0.62, 900.0, 4e9 / 2**20),
}

NETS = (10, 20, 40)
PARALLEL_CASE, PARALLEL_METHODS = "resnet20_cifar10", ("adaquant", "best")


def net_name(layers: int) -> str:
    """Under which a net's run is stored."""
    return f"net of {layers} layers"


def product_name(case: str) -> str:
    """Under which a case's products are stored."""
    return f"products {case}"


def parallel_name(method: str, workers: int) -> str:
    """Under which a run of parallel mode is stored."""
    return f"parallel {method}, {workers} worker{'s' * (workers > 1)}"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The bars that could be judged, and what the others are about."""

    bars: list[Bar]
    unmeasured: list[str]


def judge(results: Results) -> Judgement:
    """All that is demanded, of all results there are."""
    bars: list[Bar] = []
    unmeasured: list[str] = []
    for what, bar in _demands(results):
        if bar is None:
            unmeasured.append(what)
        else:
            bars.append(bar)
    return Judgement(bars, unmeasured)


def _demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    """(what, its bar, None where it has not been measured)."""
    table = functools.partial(results.over_seeds, selection="first")

    def both(case: str, width: str, one: str, other: str) -> tuple[OverSeeds | None, OverSeeds | None]:
        return table(case, width, one, beside=other), table(case, width, other, beside=one)

    for (width, case), (floor, goal) in MOST_LOST.items():
        what = f"{case} {width}: advanced against float"
        found = table(case, width, "advanced")
        yield what, None if found is None else _lost(what, found, floor, goal)
    for width, case, rival in itertools.product(RIVAL_WIDTHS, cases.SHARED, RIVALS):
        pair = both(case, width, "best", rival)
        yield _compared(f"{case} {width}: best less {rival}", *pair)
        # counts every sample whose class has changed, not only those that turned wrong: less of it is chance
        yield _compared(f"{case} {width}: agreement with float, best less {rival}", *pair, of="agreement")
        yield _diverged(f"{case} {width}: divergence from float, best over {rival}", *pair)
    for width, case in itertools.product(FEW_BITS, cases.SHARED):
        what = f"{case} {width}: adaquant less nearest"
        yield _compared(what, *both(case, width, "adaquant", "nearest"), lowest=None)
    for width, case, (before, stage) in itertools.product(RIVAL_WIDTHS, cases.SHARED, STAGES):
        what = f"{case} {width}: {stage} less {before}"
        yield _compared(what, *both(case, width, stage, before), lowest=-MOST_LOST_BY_STAGE)
    curve = functools.partial(results.over_seeds, selection="random", samples=FEW_SAMPLES)
    for case in cases.SHARED:
        what = f"{case} W4A8, {FEW_SAMPLES} samples: best less nearest"
        yield _compared(what, curve(case, "W4A8", "best"), curve(case, "W4A8", "nearest"), lowest=None)
    yield from _product_demands(results)
    yield from _cost_demands(results)


def _lost(what: str, found: OverSeeds, floor: float, goal: float) -> Bar:
    bar = Bar.at_least(f"{what}, {found.seeds} seeds", found.difference, -floor, "{:+.2f} points")
    if goal == floor:
        return bar
    reached = "reached" if found.difference >= -goal else "not reached"
    return dataclasses.replace(bar, text=f"{bar.text}; goal {-goal:+.2f} {reached}")


def _compared(
    what: str, one: OverSeeds | None, other: OverSeeds | None, *, lowest: float | None = 0.0, of: str = "difference"
) -> tuple[str, Bar | None]:
    """Mean difference of two methods, which is `lowest` at least; None: it has to be a gain."""
    if one is None or other is None:
        return what, None
    gain = round(getattr(one, of) - getattr(other, of), 9) + 0.0  # means of the same scores may differ in the last bit
    if lowest is None:
        return what, Bar(f"{what}: {gain:+.2f} points, bar above +0.00 points", gain > 0)
    return what, Bar.at_least(what, gain, lowest, "{:+.2f} points")


def _diverged(what: str, one: OverSeeds | None, other: OverSeeds | None) -> tuple[str, Bar | None]:
    """Divergence of one over that of another, at most 1: it changes with every probability of every sample."""
    if one is None or other is None or one.divergence is None or not other.divergence:
        return what, None
    return what, Bar.at_most(what, one.divergence / other.divergence, 1.0, "{:.3f} x")


def _product_demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    for case, limits in PRODUCTS.items():
        found = results.runs.get(product_name(case))
        if found is None:
            yield product_name(case), None
            continue
        plain, advanced = found["int8"], found["advanced"]
        download = advanced["download_bytes"] / plain["download_bytes"]
        ratio = advanced["latency_ratio"]["value"]
        for what, value, limit, form in (
            ("latency of plain int8's", ratio, MOST_LATENCY, "{:.3f} x"),
            ("download of plain int8's", download, limits.download, "{:.3f} x"),
            ("whole run", advanced["seconds"], limits.seconds, "{:.0f} s"),
            ("peak memory", advanced["peak_memory_mb"], limits.memory, "{:,.0f} MiB"),
        ):
            yield what, Bar.at_most(f"{case} advanced W4A8: {what}", value, limit, form)


def _cost_demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    nets = [results.runs.get(net_name(layers)) for layers in (NETS[0], NETS[-1])]
    what = f"seconds a layer, {NETS[-1]} layers against {NETS[0]}"
    if nets[0] is None or nets[1] is None:
        yield what, None
    else:
        small, large = (net["seconds"] / net["layers"] for net in nets if net is not None)
        yield what, Bar.at_most(what, large / small, MOST_NONLINEAR, "{:.2f} x")
    for method in PARALLEL_METHODS:
        what = f"{PARALLEL_CASE}: parallel {method}, 1 worker against 2"
        one, two = (results.runs.get(parallel_name(method, n)) for n in (1, 2))
        if one is None or two is None:
            yield what, None
        else:
            yield what, Bar.at_least(what, one["seconds"] / two["seconds"], LEAST_SPEEDUP, "{:.2f} x")
