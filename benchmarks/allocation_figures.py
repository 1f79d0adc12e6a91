"""The figures of the allocation benchmark, from its results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.allocation_bars import (
    GREEDY,
    PROGRAM,
    RANDOMS,
    RECONSTRUCTED,
    UNIFORM,
    runs_of,
)
from benchmarks.cells import Results

# Colour and mark of every line of the figures; the random ones share theirs.
_STYLES = {
    RECONSTRUCTED: ("#31a354", "D-"),
    PROGRAM: ("#08519c", "o-"),
    GREEDY: ("#e6550d", "s--"),
    UNIFORM: ("#756bb1", "^--"),
    "random": ("#969696", "x"),
}
_LABELS = {
    RECONSTRUCTED: "program, reconstructed in sequence",
    PROGRAM: "program",
    GREEDY: "greedy",
    UNIFORM: "best uniform width",
    "random": "random",
}


def _panels(results: Results, part: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of every case that the part has been measured of."""
    runs = runs_of(results, part)
    return {case: found for case in cases.CASES if (found := [run for run in runs if run["case"] == case])}


def _lines(results: Results, case: str, runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every line by growing budget."""
    lines = {name: [run["rows"][name] for run in runs if name in run["rows"]] for name in (PROGRAM, GREEDY, UNIFORM)}
    lines["random"] = [run["rows"][name] for run in runs for name in RANDOMS if name in run["rows"]]
    rebuilt = [run["rows"][RECONSTRUCTED] for run in runs_of(results, "reconstructed") if run["case"] == case]
    return {name: rows for name, rows in ({RECONSTRUCTED: rebuilt} | lines).items() if rows}


def draw_accuracy(results: Results, path: Path) -> None:
    """Test top-1 over download bytes, a panel a case."""

    def draw(axes: Any, case: str, runs: Sequence[dict[str, Any]]) -> None:
        lines = _lines(results, case, runs)
        for name, rows in lines.items():
            colour, form = _STYLES[name]
            points = sorted((row["download_bytes"] / 1000, row["score"]) for row in rows)
            axes.plot(*zip(*points, strict=True), form, color=colour, markersize=4, linewidth=1, label=_LABELS[name])
        score = lines[PROGRAM][0]["float_score"]
        axes.axhline(score, color="black", linestyle=":", linewidth=1, label="float")
        # two bits everywhere and chance reach far below
        shown = [row for name in (PROGRAM, GREEDY, RECONSTRUCTED) for row in lines.get(name, ())]
        reach = max(1.0, *(abs(row["score"] - score) for row in shown))
        axes.set_ylim(score - 1.5 * reach, score + 0.5 * reach)
        axes.set_xlim(left=0.95 * min(row["download_bytes"] for row in shown) / 1000)
        axes.set_xlabel("download, kB")

    _draw(_panels(results, "curve"), path, draw, "test top-1, %")


def draw_degradation(results: Results, path: Path) -> None:
    """Measured over predicted degradation, a panel a case."""

    def draw(axes: Any, case: str, runs: Sequence[dict[str, Any]]) -> None:
        for name, rows in _lines(results, case, runs).items():
            colour, form = _STYLES[name]
            points = [(row["objective"], row["measured_loss"]) for row in rows if row["measured_loss"] > 0]
            if points:
                axes.plot(*zip(*points, strict=True), form[0], color=colour, markersize=4, label=_LABELS[name])
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = axes.get_xlim()
        axes.plot(ends, ends, color="black", linestyle=":", linewidth=1, label="as predicted")
        axes.set_xlim(ends)
        axes.set_xlabel("predicted degradation")

    _draw(_panels(results, "curve"), path, draw, "measured")


def draw_speed(results: Results, path: Path) -> None:
    """Test top-1 over latency, a panel a case."""

    def draw(axes: Any, _: str, runs: Sequence[dict[str, Any]]) -> None:
        rows = [row for run in runs for row in run["rows"].values()]
        scores = [row["score"] for row in rows]
        ends = [[abs(row["difference"]["value"] - row["difference"][end]) for row in rows] for end in ("low", "high")]
        times = [row["measured_ms"] for row in rows]
        axes.errorbar(times, scores, ends, fmt="o", color="#08519c", markersize=4, linewidth=1, label="measured")
        axes.plot([row["predicted_ms"] for row in rows], scores, "x", color="#e6550d", markersize=5, label="predicted")
        score = rows[0]["float_score"]
        axes.plot(runs[0]["float_ms"], score, "k*", markersize=8, label="float")
        reach = max(2.0, *(abs(found - score) for found in scores))
        axes.set_ylim(score - 1.5 * reach, score + 1.5 * reach)
        axes.set_xlim(left=0)
        axes.set_xlabel("latency, ms")

    _draw(_panels(results, "speed"), path, draw, "test top-1, %")


def _draw(
    panels: Mapping[str, Sequence[dict[str, Any]]],
    path: Path,
    draw: Callable[[Any, str, Sequence[dict[str, Any]]], None],
    label: str,
) -> None:
    """A figure with a panel a case; none where nothing has been measured."""
    if not panels:
        return
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels) + 0.6, 4.2), dpi=120, layout="constrained", squeeze=False
    )
    entries: dict[str, Any] = {}
    for axes, (case, runs) in zip(grid[0], panels.items(), strict=True):
        draw(axes, case, runs)
        axes.set_title(case, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        entries |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    grid[0][0].set_ylabel(label)
    order = [*_LABELS.values(), *entries]
    texts = sorted(entries, key=order.index)
    handles, columns = [entries[text] for text in texts], min(len(entries), 2 * len(panels))
    figure.legend(handles, texts, frameon=False, fontsize=8, loc="outside lower center", ncols=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
