"""The page and the figure of the reconstruction benchmark, from its results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, common
from benchmarks.cells import METHODS, WIDTHS, Key, OverSeeds, Results
from benchmarks.reconstruction_bars import PARALLEL_CASE, Judgement

# What their cells note is of the whole model, and goes onto the page: steps rolled back, the algorithm that was best.
NOTED = ("best_bn", "best_bn_bias", "light", "advanced", "aeq")


def page(results: Results, judgement: Judgement, notes: Sequence[str], where: Mapping[str, Any]) -> str:
    """All results as Markdown."""
    parts = [
        "Points: top-1 of the exported .tflite in the interpreter (XNNPACK) less that of float, on the same test"
        " samples. Activations have 8 bits. All layers with weights have the same bits, the first and the last too."
        " W4A4 is **simulated**, because TFLite has no kernels for 4-bit activations; it keeps the first and the last"
        " layer at 8 bits. With several seeds a cell shows the mean, the mean 95 % interval of the paired bootstrap"
        " in brackets, then the smallest and the largest of the seeds. Bars compare two methods by the seeds that"
        " both have. All methods above the peers start from the same calibrated model. The rows called pipeline are"
        " `tfq-quantize` with only the bits set. Stages are those of the pipelines, with their guards. Peers have the"
        " same samples. ai-edge-quantizer has three algorithms, min-max, OCTAV and MSE; the one that is best on the"
        " *test* samples is shown. Seconds are those of the method alone; those of a pipeline are the whole run"
        " without its evaluation. The JSON beside this page has the day and the command of every cell.",
    ]
    for case in dict.fromkeys(key.case for key in sorted(results.cells, key=_page_order)):
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
    named = {_name_of(key): common.Origin(c.command, c.date, c.commit) for key, c in sorted(results.cells.items())}
    origins = named | {name: common.Origin.of(run) for name, run in results.runs.items()}
    return common.page_text("Reconstruction", where, parts, judgement.bars, notes, origins=origins)


def _name_of(key: Key) -> str:
    """Of a cell, among the origins."""
    chosen = "" if key.selection == "first" else f", {key.samples} {key.selection} samples"
    return f"{key.case} {key.width} {key.method}{chosen}, seed {key.seed}"


def _page_order(key: Key) -> tuple[int, ...]:
    """Cases, widths and methods as they are listed here, not by the alphabet."""
    lists = (*cases.CASES, *cases.LARGER), tuple(WIDTHS), tuple(METHODS)
    places = (every.index(name) for every, name in zip(lists, (key.case, key.width, key.method), strict=True))
    return (*places, key.samples, key.seed)


def _case_section(results: Results, case: str) -> list[str]:
    """Three tables, methods down, widths across."""
    cells = results.select(case=case, selection="first")
    samples = max(cell.key.samples for cell in cells)
    cells = sorted((c for c in cells if c.key.samples == samples), key=lambda cell: _page_order(cell.key))
    widths = [width for width in WIDTHS if any(cell.key.width == width for cell in cells)]
    methods = [method for method in METHODS if any(cell.key.method == method for cell in cells)]

    def rows(text: Callable[[OverSeeds], str]) -> list[list[str]]:
        found = [[results.over_seeds(case, width, method, selection="first") for width in widths] for method in methods]
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
        "Divergence from float, in thousandths:",
        common.markdown_table(["", *widths], rows(divergence_text)),
        "Seconds:",
        common.markdown_table(["", *widths], rows(lambda entry: f"{entry.seconds:.1f}")),
    ]
    noted = [
        f"- {cell.key.width} {METHODS[cell.key.method]}, seed {cell.key.seed}: {cell.outcome.note}"
        for cell in cells
        if cell.outcome.note and cell.key.method in NOTED
    ]
    return [*parts, "\n".join(noted)] if noted else parts


def divergence_text(found: OverSeeds) -> str:
    return "" if found.divergence is None else f"{1e3 * found.divergence:.1f}"


def difference_text(found: OverSeeds) -> str:
    """Mean, interval, and the spread over seeds where there are several."""
    text = f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text if found.seeds == 1 else f"{text}; {found.least:+.2f} to {found.most:+.2f}"


def curves(results: Results) -> dict[tuple[str, str], dict[str, dict[int, OverSeeds]]]:
    """(case, width) -> method -> number of calibration samples -> scores."""
    found: dict[tuple[str, str], dict[str, dict[int, OverSeeds]]] = {}
    for key in sorted((k for k in results.cells if k.selection == "random"), key=_page_order):
        entry = results.over_seeds(key.case, key.width, key.method, selection="random", samples=key.samples)
        assert entry is not None
        found.setdefault((key.case, key.width), {}).setdefault(key.method, {})[key.samples] = entry
    return found


def _curve_section(results: Results) -> list[str]:
    parts = [
        "## Calibration samples",
        "![Top-1 against the number of calibration samples](../images/calibration_samples.png)",
        "Points against float by the number of calibration samples. They are drawn at random from those of the case,"
        " other ones for every seed. Brackets and spread as above.",
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
        "Plain int8, and 4-bit weights of the advanced pipeline, stored as int8. Latency: one thread, XNNPACK, the"
        " two models in turns. Seconds and peak memory are those of the whole run in a process of its own, with the"
        " import of TensorFlow.",
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
        f" {PARALLEL_CASE} by one thread and by two. Seconds of the reconstruction alone, W4A8.",
        common.markdown_table(["", "layers", "samples", "seconds", "seconds a layer"], rows),
    ]


def draw_curves(results: Results, path: Path) -> None:
    """Score against the number of calibration samples, one panel a case with several; bands reach over all seeds."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    found = {key: lines for key, lines in curves(results).items() if max(map(len, lines.values())) > 1}
    if not found:
        return
    drawn_methods = [method for method in METHODS if any(method in lines for lines in found.values())]
    colours = {method: f"C{place}" for place, method in enumerate(drawn_methods)}
    figure, panels = plt.subplots(
        1, len(found), figsize=(3.6 * len(found) + 0.6, 3.8), dpi=120, layout="constrained", squeeze=False
    )
    for axes, ((case, width), methods) in zip(panels[0], found.items(), strict=True):
        for method, line in methods.items():
            counts, entries = list(line), list(line.values())
            mean, low, high = (
                [entry.float_score + getattr(entry, name) for entry in entries]
                for name in ("difference", "least", "most")
            )
            colour = colours[method]
            axes.plot(counts, mean, marker="o", markersize=3, label=METHODS[method], color=colour)
            axes.fill_between(counts, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.axhline(entries[0].float_score, color="black", linestyle=":", linewidth=1, label="float")
        axes.set_xscale("log", base=2)
        ticks = sorted({count for line in methods.values() for count in line})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("calibration samples")
        axes.set_title(f"{case}, {width}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("top-1, %")
    panels[0][0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
