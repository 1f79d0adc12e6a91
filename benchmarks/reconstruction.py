"""Reconstruction at 8 bits and fewer: `python -m benchmarks.reconstruction`.

Four parts, of which any can be run alone (`--parts`):

    ablation   every method at every width on every case, over seeds; the pipelines and the peers in the same run
    samples    score against the number of calibration samples, drawn anew for every seed
    products   plain int8 and the advanced pipeline at W4A8: size, latency, time, memory
    cost       nets of 10, 20 and 40 layers; parallel mode with one and two processes

Results are kept in reconstruction.json, cell by cell as they are measured: what is there is not measured again
(unless `--again`), and page and bars are made from all of it. A bar whose cells are not there is not judged, and
the page says so. Nothing is tuned on test data.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import aeq, cases, common, cost
from benchmarks.cases import CaseFiles
from benchmarks.cells import Cell, Key, Outcome, OverSeeds, Results, Width, record
from benchmarks.common import Bar
from tfq.errors import VerificationError
from tfq.execution.progress import Lines, Progress

PARTS = ("ablation", "samples", "products", "cost")
WIDTHS = {
    "W8A8": Width(8),
    "W6A8": Width(6),
    "W4A8": Width(4),
    "W3A8": Width(3),
    "W2A8": Width(2),
    "W4A4": Width(4, 4, 8),
}
METHODS = {
    "nearest": "nearest",
    "mse": "MSE scales",
    "bias_correction": "MSE scales, bias correction",
    "least_squares": "least squares, no gradients",
    "adaround": "AdaRound",
    "adaquant_parallel": "AdaQuant, parallel",
    "adaquant": "AdaQuant, sequential",
    "best": "best",
    "best_bn": "best + BN tuning",
    "best_bn_bias": "best + BN tuning + bias tuning",
    "light": "tfq --pipeline=light",
    "advanced": "tfq --pipeline=advanced",
    "tflite": "TFLiteConverter int8",
    "aeq": "ai-edge-quantizer, best of three",
}
# Peers and the one width at which each is measured.
PEERS = {"tflite": "W8A8", "aeq": "W4A8"}
# Nothing in these depends on the seed, as long as the samples do not.
SEEDLESS = ("nearest", "mse", *PEERS)
# What their cells note is of the whole model, and goes onto the page: steps rolled back, the algorithm that was best.
NOTED = ("best_bn", "best_bn_bias", "light", "advanced", "aeq")
NETS = (10, 20, 40)
PARALLEL_CASE, PARALLEL_METHODS = "resnet20_cifar10", ("adaquant", "best")

# (width, case) -> points below float, floor (the bar) and goal.
MOST_LOST = {
    ("W4A8", "resnet8_cifar10"): (1.2, 0.6),
    ("W4A8", "resnet20_cifar10"): (0.4, 0.1),
    ("W4A8", "kws_dscnn"): (0.6, 0.3),
    ("W4A8", "mobilenet_v2_035_imagenette"): (2.0, 1.0),
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

FLAGS = new_flags()
flags.DEFINE_list("parts", list(PARTS), "Which parts to run.", flag_values=FLAGS)
flags.DEFINE_list("cases", list(cases.CASES), "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_list("widths", list(WIDTHS), "Ablation: widths of weights and activations.", flag_values=FLAGS)
flags.DEFINE_list("methods", list(METHODS), "Ablation: rows of the table.", flag_values=FLAGS)
flags.DEFINE_list(
    "curve_methods", ["nearest", "adaround", "adaquant", "best"], "Samples: lines of the figure.", flag_values=FLAGS
)
flags.DEFINE_list("curve_samples", ["1", "4", "16", "64", "256", "1024"], "Samples: how many.", flag_values=FLAGS)
flags.DEFINE_string("curve_width", "W4A8", "Samples: width of weights and activations.", flag_values=FLAGS)
flags.DEFINE_integer("seeds", 3, "Seeds 0, 1, ... of ablation and samples.", flag_values=FLAGS)
flags.DEFINE_integer("num_samples", 512, "Calibration samples at most; kws_dscnn has 200.", flag_values=FLAGS)
flags.DEFINE_bool("again", False, "Measure also what has been measured.", flag_values=FLAGS)
flags.DEFINE_string(
    "output", "docs/benchmarks", "Directory of reconstruction.md and .json; the figure in ../images.", flag_values=FLAGS
)

GROUPS = {
    "Benchmark": ("parts", "cases", "seeds", "num_samples", "again", "output"),
    "Ablation": ("widths", "methods"),
    "Samples": ("curve_methods", "curve_samples", "curve_width"),
}


def ablation_keys(
    case: str, available: int, *, widths: Sequence[str], methods: Sequence[str], seeds: int, num_samples: int
) -> Iterator[Key]:
    """The cells of one case, in the order in which they share most."""
    count = min(num_samples, available)
    chosen = [method for method in METHODS if method in methods]  # a stage comes after the one it goes on from
    for width, seed, method in itertools.product([w for w in WIDTHS if w in widths], range(seeds), chosen):
        if PEERS.get(method, width) == width and (seed == 0 or method not in SEEDLESS):
            yield Key(case, width, method, count, "first", seed)


def curve_keys(
    case: str, available: int, *, width: str, methods: Sequence[str], seeds: int, counts: Sequence[int]
) -> Iterator[Key]:
    """The same of the samples' curve; of a case with fewer samples than asked for, all are taken."""
    chosen = sorted({min(count, available) for count in counts})
    for count, seed, method in itertools.product(chosen, range(seeds), methods):
        yield Key(case, width, method, count, "random", seed)


def _measure(files: CaseFiles, key: Key, width: Width) -> Outcome:
    """In another process: TensorFlow must not be imported in this one (see `common.fresh_process`)."""
    from benchmarks import ablation

    return ablation.measure(files, key, width)


def run_cells(
    case: str,
    keys_of: Callable[[int], Sequence[Key]],
    path: Path,
    where: Mapping[str, Any],
    *,
    again: bool,
    progress: Progress,
) -> list[Bar]:
    """Measure the cells of one case that are not there, and store each; the missed bars among them.

    Args:
      keys_of: the cells wanted, by the number of calibration samples that the case has.
      path: of the results file.
      where: from `common.environment`.
    """
    missed = []
    with tempfile.TemporaryDirectory() as temporary, common.fresh_process() as call:
        with progress.task(f"{case}: data", 0):
            files = call(cases.write_case, case, Path(temporary), None)
        measured = Results.read(path).cells
        wanted = [key for key in keys_of(files.calibration_samples) if again or key not in measured]
        for number, key in enumerate(wanted, 1):
            title = (
                f"{case}: {number} of {len(wanted)}, {key.width} {key.method}, {key.samples} samples, seed {key.seed}"
            )
            with progress.task(title, 0):
                try:
                    outcome = call(_measure, files, key, WIDTHS[key.width])
                except VerificationError as error:
                    missed.append(Bar(f"{case} {key.width} {key.method}: not verified: {error}", False))
                else:
                    record(path, cells=[Cell(key, outcome, where["date"], where["command"])])
    return missed


def run_once(
    name: str,
    measure: Callable[[], dict[str, Any]],
    path: Path,
    where: Mapping[str, Any],
    *,
    again: bool,
    progress: Progress,
) -> list[Bar]:
    """Measure and store under a name what is not there; the missed bars."""
    if name in Results.read(path).runs and not again:
        return []
    with progress.task(name, 0):
        try:
            found = measure()
        except VerificationError as error:
            return [Bar(f"{name}: not verified: {error}", False)]
    origin = {field: where[field] for field in ("date", "command", "machine", "load_average")}
    record(path, runs={name: {**found, **origin}})
    return []


# ---------------------------------------------------------------------------------------------------- bars


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
    table = functools.partial(over_seeds, results, selection="first")
    for (width, case), (floor, goal) in MOST_LOST.items():
        what = f"{case} {width}: advanced against float"
        found = table(case, width, "advanced")
        yield what, None if found is None else _lost(what, found, floor, goal)
    for width, case, rival in itertools.product(RIVAL_WIDTHS, cases.SHARED, RIVALS):
        yield _compared(f"{case} {width}: best less {rival}", table(case, width, "best"), table(case, width, rival))
    for width, case in itertools.product(FEW_BITS, cases.SHARED):
        what = f"{case} {width}: adaquant less nearest"
        yield _compared(what, table(case, width, "adaquant"), table(case, width, "nearest"), strictly=True)
    curve = functools.partial(over_seeds, results, selection="random", samples=FEW_SAMPLES)
    for case in cases.SHARED:
        what = f"{case} W4A8, {FEW_SAMPLES} samples: best less nearest"
        yield _compared(what, curve(case, "W4A8", "best"), curve(case, "W4A8", "nearest"), strictly=True)
    yield from _product_demands(results)
    yield from _cost_demands(results)


def _lost(what: str, found: OverSeeds, floor: float, goal: float) -> Bar:
    bar = Bar.at_least(what, found.difference, -floor, "{:+.2f} points")
    if goal == floor:
        return bar
    reached = "reached" if found.difference >= -goal else "not reached"
    return dataclasses.replace(bar, text=f"{bar.text}; goal {-goal:+.2f} {reached}; {found.seeds} seeds")


def _compared(
    what: str, one: OverSeeds | None, other: OverSeeds | None, *, strictly: bool = False
) -> tuple[str, Bar | None]:
    """Mean difference of two methods; `strictly`: it must be a gain."""
    if one is None or other is None:
        return what, None
    gain = one.difference - other.difference
    if strictly:
        return what, Bar(f"{what}: {gain:+.2f} points, bar above +0.00 points", gain > 0)
    return what, Bar.at_least(what, gain, 0.0, "{:+.2f} points")


def _product_demands(results: Results) -> Iterator[tuple[str, Bar | None]]:
    for case, limits in PRODUCTS.items():
        found = results.runs.get(f"products {case}")
        if found is None:
            yield f"products {case}", None
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
    nets = [results.runs.get(f"net of {layers} layers") for layers in (NETS[0], NETS[-1])]
    what = f"seconds a layer, {NETS[-1]} layers against {NETS[0]}"
    if nets[0] is None or nets[1] is None:
        yield what, None
    else:
        small, large = (net["seconds"] / net["layers"] for net in nets if net is not None)
        yield what, Bar.at_most(what, large / small, MOST_NONLINEAR, "{:.2f} x")
    for method in PARALLEL_METHODS:
        what = f"{PARALLEL_CASE}: parallel {method}, 1 process against 2"
        one, two = (results.runs.get(_parallel_name(method, n)) for n in (1, 2))
        if one is None or two is None:
            yield what, None
        else:
            yield what, Bar.at_least(what, one["seconds"] / two["seconds"], LEAST_SPEEDUP, "{:.2f} x")


def over_seeds(
    results: Results, case: str, width: str, method: str, *, selection: str, samples: int | None = None
) -> OverSeeds | None:
    """One entry of the tables; without `samples`, of the largest number that the case was measured with."""
    found = results.select(case=case, width=width, method=method, selection=selection)
    if samples is None:
        samples = max((c.key.samples for c in results.select(case=case, selection=selection)), default=0)
    return OverSeeds.of(cell for cell in found if cell.key.samples == samples)


def _parallel_name(method: str, processes: int) -> str:
    return f"parallel {method}, {processes} process{'es' * (processes > 1)}"


# ---------------------------------------------------------------------------------------------------- page


def page(results: Results, judgement: Judgement, notes: Sequence[str], where: Mapping[str, Any]) -> str:
    """All results as Markdown."""
    parts = [
        "Top-1 of the exported .tflite in the interpreter (XNNPACK) less that of float, in points, on the same test"
        " samples; activations have 8 bits. All weighted layers have the same bits, first and last included. W4A4 is"
        " **simulated**, TFLite has no kernels for 4-bit activations, and keeps the first and the last layer at 8"
        " bits. Several seeds: the mean, its brackets the mean 95 % interval of the paired bootstrap, then the"
        " smallest and the largest of the seeds. The methods down to the peers start from the same calibrated"
        " model; the rows called pipeline are `tfq-quantize` with nothing but the bits set. Stages are"
        " those of the pipelines, with their guards. Peers have the same samples; of ai-edge-quantizer's min-max,"
        " OCTAV and MSE the best on the *test* samples is shown. Seconds are a method's own; a pipeline's are all"
        " but its evaluation. The JSON beside this page has the day and the command of every cell.",
    ]
    for case in dict.fromkeys(key.case for key in sorted(results.cells, key=_case_order)):
        if results.select(case=case, selection="first"):
            parts += _case_section(results, case)
    if any(key.selection == "random" for key in results.cells):
        parts += _curve_section(results)
    if any(name.startswith("products") for name in results.runs):
        parts += _products_section(results)
    if any(name.startswith(("net", "parallel")) for name in results.runs):
        parts += _cost_section(results)
    if judgement.unmeasured:
        notes = [*notes, "not measured, so not judged: " + "; ".join(judgement.unmeasured)]
    return common.page_text("Reconstruction", where, parts, judgement.bars, notes)


def _case_order(key: Key) -> int:
    return cases.CASES.index(key.case)


def _case_section(results: Results, case: str) -> list[str]:
    """Three tables, methods down, widths across."""
    cells = results.select(case=case, selection="first")
    samples = max(cell.key.samples for cell in cells)
    cells = [cell for cell in cells if cell.key.samples == samples]
    widths = [width for width in WIDTHS if any(cell.key.width == width for cell in cells)]
    methods = [method for method in METHODS if any(cell.key.method == method for cell in cells)]

    def rows(text: Callable[[OverSeeds], str]) -> list[list[str]]:
        found = [
            [over_seeds(results, case, width, method, selection="first") for width in widths] for method in methods
        ]
        return [
            [METHODS[method], *("" if entry is None else text(entry) for entry in line)]
            for method, line in zip(methods, found, strict=True)
        ]

    first = cells[0].outcome
    parts = [
        f"## {case}",
        f"Float {first.float_score:.2f} %, {first.n:,} test samples, {samples} calibration samples. Points against"
        " float:",
        common.markdown_table(["", *widths], rows(difference_text)),
        "Agreement with float, percent:",
        common.markdown_table(["", *widths], rows(lambda entry: f"{entry.agreement:.2f}")),
        "Seconds:",
        common.markdown_table(["", *widths], rows(lambda entry: f"{entry.seconds:.1f}")),
    ]
    noted = [
        f"- {cell.key.width} {METHODS[cell.key.method]}, seed {cell.key.seed}: {cell.outcome.note}"
        for cell in cells
        if cell.outcome.note and cell.key.method in NOTED
    ]
    return [*parts, "\n".join(noted)] if noted else parts


def difference_text(found: OverSeeds) -> str:
    """Mean, interval, and the spread over seeds where there are several."""
    text = f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text if found.seeds == 1 else f"{text}; {found.least:+.2f} to {found.most:+.2f}"


def curves(results: Results) -> dict[tuple[str, str], dict[str, dict[int, OverSeeds]]]:
    """(case, width) -> method -> number of calibration samples -> scores."""
    found: dict[tuple[str, str], dict[str, dict[int, OverSeeds]]] = {}
    for key in sorted((k for k in results.cells if k.selection == "random"), key=lambda k: (_case_order(k), k)):
        entry = over_seeds(results, key.case, key.width, key.method, selection="random", samples=key.samples)
        assert entry is not None
        found.setdefault((key.case, key.width), {}).setdefault(key.method, {})[key.samples] = entry
    return found


def _curve_section(results: Results) -> list[str]:
    parts = [
        "## Calibration samples",
        "![Top-1 against the number of calibration samples](../images/calibration_samples.png)",
        "Points against float by the number of calibration samples, drawn at random from the case's, other ones for"
        " every seed; brackets and spread as above.",
    ]
    for (case, width), methods in curves(results).items():
        counts = sorted({count for line in methods.values() for count in line})
        rows = [
            [METHODS[method], *(difference_text(line[count]) if count in line else "" for count in counts)]
            for method, line in ((m, methods[m]) for m in METHODS if m in methods)
        ]
        parts.append(common.markdown_table([f"{case}, {width}", *map(str, counts)], rows))
    return parts


def _products_section(results: Results) -> list[str]:
    header = ["", "file bytes", "download bytes", "download / int8", "weight bits", "latency / int8", "seconds", "MiB"]
    rows = []
    for name, run in results.runs.items():
        if name.startswith("products "):
            for kind in ("int8", "advanced"):
                found, ratio = run[kind], run[kind]["latency_ratio"]
                rows.append(
                    [
                        f"{name.removeprefix('products ')}, {kind}",
                        f"{found['file_bytes']:,}",
                        f"{found['download_bytes']:,}",
                        f"{found['download_bytes'] / run['int8']['download_bytes']:.3f} x",
                        f"{found['weight_bits']:.2f}",
                        f"{ratio['value']:.3f} x [{ratio['low']:.3f}, {ratio['high']:.3f}]",
                        f"{found['seconds']:.1f}",
                        f"{found['peak_memory_mb']:,.0f}",
                    ]
                )
    return [
        "## Size, latency, time and memory",
        "Plain int8, and 4-bit weights of the advanced pipeline stored as int8. Latency: one thread, XNNPACK, the two"
        " in turns. Seconds and peak memory of the whole run in a process of its own, with the import of TensorFlow.",
        common.markdown_table(header, rows),
    ]


def _cost_section(results: Results) -> list[str]:
    rows = [
        [
            name,
            f"{run['layers']}",
            f"{run['samples']}",
            f"{run['seconds']:.1f}",
            f"{run['seconds'] / run['layers']:.2f}",
        ]
        for name, run in results.runs.items()
        if name.startswith(("net", "parallel"))
    ]
    return [
        "## Cost of reconstruction",
        "Residual nets of equal blocks with random weights, 32 x 32 inputs, by `best` in sequence; parallel mode on"
        f" {PARALLEL_CASE} with the start of its processes. Seconds of the reconstruction alone, W4A8.",
        common.markdown_table(["", "layers", "samples", "seconds", "seconds a layer"], rows),
    ]


def draw_curves(results: Results, path: Path) -> None:
    """Score against the number of calibration samples, one panel a case; bands reach over all seeds."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    found = curves(results)
    figure, panels = plt.subplots(
        1, len(found), figsize=(3.6 * len(found) + 0.6, 3.8), dpi=120, layout="constrained", squeeze=False
    )
    for axes, ((case, width), methods) in zip(panels[0], found.items(), strict=True):
        for method, line in methods.items():
            counts, entries = list(line), list(line.values())
            reference = [entry.score - entry.difference for entry in entries]
            (drawn,) = axes.plot(counts, [e.score for e in entries], marker="o", markersize=3, label=METHODS[method])
            low, high = (
                [r + getattr(e, end) for r, e in zip(reference, entries, strict=True)] for end in ("least", "most")
            )
            axes.fill_between(counts, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(reference[0], color="black", linestyle=":", linewidth=1, label="float")
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("calibration samples")
        axes.set_title(f"{case}, {width}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("top-1, %")
    panels[0][0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


# ---------------------------------------------------------------------------------------------------- command


def main(values: flags.FlagValues) -> None:
    _check(values)
    output = common.output_directory(values.output)
    path, where, progress = (
        output / "reconstruction.json",
        common.environment("benchmarks.reconstruction"),
        Lines(sys.stderr),
    )
    Results.read(path)  # a file of another kind is refused before anything is measured
    store = functools.partial(run_once, path=path, where=where, again=values.again, progress=progress)
    present, notes = cases.present(values.cases)
    missed: list[Bar] = []

    for case in present if {"ablation", "samples"} & set(values.parts) else ():
        missed += run_cells(case, _keys_of(values, case), path, where, again=values.again, progress=progress)
    if "products" in values.parts:
        for case in [c for c in PRODUCTS if c in present]:
            missed += store(f"products {case}", functools.partial(cost.run_product, case, values.num_samples, 0))
    if "cost" in values.parts:
        for layers in NETS:
            store(f"net of {layers} layers", functools.partial(cost.time_net, layers, values.num_samples, 0))
        for method, processes in itertools.product(PARALLEL_METHODS, (1, 2)) if PARALLEL_CASE in present else ():
            measure = functools.partial(cost.time_workers, PARALLEL_CASE, method, processes, values.num_samples, 0)
            store(_parallel_name(method, processes), measure)

    results = Results.read(path)
    if any(key.selection == "random" for key in results.cells):
        draw_curves(results, output.parent / "images" / "calibration_samples.png")
    judgement = judge(results)
    judgement = dataclasses.replace(judgement, bars=[*missed, *judgement.bars])
    written = page(results, judgement, notes, where)
    common.finish(output / "reconstruction.md", written, {**where, **results.figures()}, judgement.bars, notes)


def _check(values: flags.FlagValues) -> None:
    """Raises UserError for wrong flags, before anything is measured."""
    common.check_choices("parts", values.parts, PARTS)
    common.check_choices("cases", values.cases, cases.CASES)
    common.check_choices("widths", values.widths, tuple(WIDTHS))
    common.check_choices("methods", values.methods, tuple(METHODS))
    common.check_choices("curve_methods", values.curve_methods, [m for m in METHODS if m not in PEERS])
    common.check_choices("curve_width", [values.curve_width], tuple(WIDTHS))
    common.check_num_samples(values.num_samples)
    common.check_positive("seeds", [values.seeds])
    common.check_positive("curve_samples", values.curve_samples)
    if "ablation" in values.parts and "aeq" in values.methods and PEERS["aeq"] in values.widths:
        aeq.check_installed()


def _keys_of(values: flags.FlagValues, case: str) -> Callable[[int], list[Key]]:
    """The cells that the flags ask for, by the number of calibration samples of the case."""

    def keys(available: int) -> list[Key]:
        found: list[Key] = []
        if "ablation" in values.parts:
            found += ablation_keys(
                case,
                available,
                widths=values.widths,
                methods=values.methods,
                seeds=values.seeds,
                num_samples=values.num_samples,
            )
        if "samples" in values.parts:
            found += curve_keys(
                case,
                available,
                width=values.curve_width,
                methods=values.curve_methods,
                seeds=values.seeds,
                counts=[int(count) for count in values.curve_samples],
            )
        return found

    return keys


def run() -> None:
    run_command(
        "benchmarks.reconstruction",
        main,
        FLAGS,
        summary="Measure the methods of reconstruction at 8 bits and fewer, the pipelines and their peers on the same"
        " samples, the size of the calibration set, and what it all costs; the exit code is 1 where a bar is missed.",
        groups=GROUPS,
    )


if __name__ == "__main__":
    run()
