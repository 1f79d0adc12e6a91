"""The page of the allocation benchmark, from its results alone."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import cases, common
from benchmarks.allocation_bars import (
    BUDGET_OF_BITS,
    COST_CASE,
    FRONTIER_POINTS,
    GREEDY,
    MOST_DROP,
    PROGRAM,
    RANDOMS,
    RECONSTRUCTED,
    UNIFORM,
    OverSeeds,
    gap_of,
    over_seeds,
    pipeline_of,
    runs_of,
)
from benchmarks.cells import Results
from benchmarks.reconstruction_bars import Judgement


def page(results: Results, judgement: Judgement, notes: Sequence[str], where: Mapping[str, Any]) -> str:
    """All results as Markdown."""
    parts = [
        "Every layer gets its own precision, chosen by the integer program or in another way. All figures are of"
        " exported .tflite files with 8-bit activations and weights stored as int8. Points: top-1 less that of float,"
        " on test samples that nothing was tuned on. Brackets: 95 % intervals of the paired bootstrap. Downloads are"
        " compressed (deflate). The JSON beside this page has every allocation, with the day and the command of every"
        " measurement.",
    ]
    if runs_of(results, "curve"):
        parts += _curve_sections(results)
    for part, section in (
        ("average", _average_section),
        ("drop", _drop_section),
        ("latency", _latency_section),
        ("speed", _speed_section),
        ("survey", _survey_section),
        ("growth", _growth_section),
        ("solve", _solve_section),
    ):
        if runs_of(results, part):
            parts += section(results)
    if judgement.unmeasured:
        unmeasured = "; ".join(dict.fromkeys(judgement.unmeasured))
        notes = [*notes, f"not measured, so not judged: {unmeasured}"]
    origins = {name: common.Origin.of(run) for name, run in results.runs.items()}
    return common.page_text("Allocation", where, parts, judgement.bars, notes, origins=origins)


def _curve_sections(results: Results) -> list[str]:
    parts = [
        "## Budgets of size",
        "![Test top-1 over download bytes](../images/allocation_accuracy.png)",
        "Test top-1 over download bytes. Points far below the program are cut off.",
        "![Predicted and measured degradation](../images/allocation_degradation.png)",
        "Degradation: the sum that the program minimises, and the measured loss. The loss is that above the 8-bit"
        " model, on calibration samples. Models that lose nothing are left out.",
        "Budgets are shares of the float weights' bytes, counted by grid bits. Each case has one survey. At every"
        " budget these are put together from its states and measured: the choice of the integer program, the greedy"
        " choice, the best single width that fits (uniform), and three random allocations that fill the budget. `*`:"
        " the one of program, greedy and uniform with the smallest loss on calibration samples; `tfq-quantize`"
        " continues with it. Random: the mean of three, then the smallest and the largest. Reconstructed: the"
        " program's allocation, reconstructed in sequence, if that loses less than the assembled model. If two models"
        " are equally good, one comparison in forty shows the rival ahead beyond noise, by chance.",
    ]
    for case in cases.CASES:
        runs = [run for run in runs_of(results, "curve") if run["case"] == case]
        if runs:
            parts += _case_section(results, case, runs)
    return parts


def _case_section(results: Results, case: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    rebuilt = {run["budget"]: run["rows"] for run in runs_of(results, "reconstructed") if run["case"] == case}
    first = runs[0]
    columns = [PROGRAM, GREEDY, UNIFORM, "random", *([RECONSTRUCTED] if rebuilt else [])]

    def table(single: Callable[[dict[str, Any]], str], several: Callable[[list[dict[str, Any]]], str]) -> str:
        rows = []
        for run in runs:
            found = {**run["rows"], RECONSTRUCTED: rebuilt.get(run["budget"], {}).get(RECONSTRUCTED)}
            chosen = min((n for n in (PROGRAM, GREEDY, UNIFORM) if n in found), key=lambda n: found[n]["measured_loss"])
            cells = [f"{run['budget']:g}", f"{found[PROGRAM]['weight_bits']:.2f}"]
            for name in columns:
                if name == "random":
                    drawn = [found[random] for random in RANDOMS if random in found]
                    cells.append(several(drawn) if drawn else "")
                else:
                    cells.append(single(found[name]) + " *" * (name == chosen) if found.get(name) else "")
            rows.append(cells)
        return common.markdown_table(["budget", "bits", *columns], rows)

    programs = [(run["budget"], run["rows"][PROGRAM]) for run in runs]
    solved = [
        [
            f"{budget:g}",
            f"{row['weight_bytes']:,.0f}",
            f"{row['predicted_download_bytes']:,.0f}",
            f"{row['download_bytes']:,}",
            f"{100 * (row['predicted_download_bytes'] / row['download_bytes'] - 1):+.2f} %",
            f"{row['objective']:.4g}",
            row["status"],
            "not kept" if gap_of(row) is None else f"{gap_of(row):g}",
            f"{row['solve_seconds']:.3f}",
        ]
        for budget, row in programs
    ]
    header = [
        "budget",
        "weight bytes",
        "download predicted",
        "download",
        "off",
        "objective",
        "status",
        "gap",
        "seconds",
    ]
    return [
        f"### {case}",
        f"Float {first['rows'][PROGRAM]['float_score']:.2f} %, {first['test_samples']:,} test samples,"
        f" {first['calibration_samples']} calibration samples, {first['units']} layers,"
        f" {first['float_weight_bytes']:,} bytes of float weights. Points against float:",
        table(lambda row: interval(row["difference"]), _random_points),
        "Agreement with float, percent:",
        table(
            lambda row: f"{row['agreement']:.2f}",
            lambda rows: f"{statistics.fmean(row['agreement'] for row in rows):.2f}",
        ),
        "Degradation, predicted and measured: the loss above the 8-bit model's on calibration samples:",
        table(_degradation, lambda rows: "; ".join(map(_degradation, rows))),
        "The download and the solution of the program. Gap: between the objective and the solver's own bound, where"
        " the bound was kept:",
        common.markdown_table(header, solved),
    ]


def interval(found: Mapping[str, Any]) -> str:
    """ "-0.42 [-1.10, +0.25]"."""
    return f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _random_points(rows: Sequence[dict[str, Any]]) -> str:
    values = [row["difference"]["value"] for row in rows]
    return f"{statistics.fmean(values):+.2f}; {min(values):+.2f} to {max(values):+.2f}"


def _degradation(row: dict[str, Any]) -> str:
    return f"{row['objective']:.3g}, {row['measured_loss']:.3g}"


def _average_section(results: Results) -> list[str]:
    header = [
        "",
        "bits asked",
        "points against float",
        "agreement",
        "weight bits",
        "download bytes",
        "seconds",
        "seeds",
    ]
    rows = []
    for case in cases.CASES:
        for bits in BUDGET_OF_BITS:
            found = over_seeds(results, case, bits)
            if found is not None:
                rows.append([case, f"{bits}", *_average_cells(found)])
    return [
        "## Bits on average",
        "Whole runs of `tfq-quantize --pipeline=advanced` with"
        f" {' and '.join(f'`--size_budget={b:g}` ({bits} bits)' for bits, b in BUDGET_OF_BITS.items())}. Means over"
        " seeds with the mean interval, then the smallest and the largest of the seeds; weight bits are those of all"
        " constants in the file.",
        common.markdown_table(header, rows),
    ]


def _average_cells(found: OverSeeds) -> list[str]:
    mean = interval({"value": found.difference, "low": found.low, "high": found.high})
    spread = f"; {found.least:+.2f} to {found.most:+.2f}" if found.seeds > 1 else ""
    return [
        mean + spread,
        f"{found.agreement:.2f} %",
        f"{found.weight_bits:.2f}",
        f"{found.download_bytes:,.0f}",
        f"{found.seconds:.1f}",
        f"{found.seeds}",
    ]


def _drop_section(results: Results) -> list[str]:
    header = ["", "points against float", "kept on calibration", "weight bits", "download bytes", "of int8"]
    header += ["latency of int8", "seconds", "peak MiB"]
    rows = []
    for run in runs_of(results, "drop"):
        for name in ("int8", pipeline_of(run)):
            found, ratio = run[name], run[name]["latency_ratio"]
            rows.append(
                [
                    f"{run['case']}, {name}",
                    interval(found["difference"]),
                    {True: "yes", False: "no", None: ""}[found.get("attained")],
                    f"{found['weight_bits']:.2f}",
                    f"{found['download_bytes']:,}",
                    f"{found['download_bytes'] / run['int8']['download_bytes']:.3f} x",
                    f"{ratio['value']:.3f} x [{ratio['low']:.3f}, {ratio['high']:.3f}]",
                    f"{found['seconds']:.1f}",
                    f"{found['peak_memory_mb']:.0f}",
                ]
            )
    return [
        "## A largest accuracy drop",
        f"Whole runs of `tfq-quantize --max_accuracy_drop={MOST_DROP:g}` in the pipeline named, without labels, beside"
        " plain int8. Weight bits: as many as the largest integer of a layer needs, even where coarse grids compress"
        " to fewer. Latency: one thread, XNNPACK, the two models in turns.",
        common.markdown_table(header, rows),
    ]


def _latency_section(results: Results) -> list[str]:
    rows = [
        [
            f"{run['case']}, {check['model']}",
            f"{run['entries']}",
            f"{run['overhead_ms']:.4f}",
            f"{run['in_place'][check['model']]:.2f} x" if check["model"] in run["in_place"] else "",
            f"{check['predicted_ms']:.3f}",
            f"{check['measured_ms']:.3f}",
            f"{100 * (check['predicted_ms'] / check['measured_ms'] - 1):+.1f} %",
        ]
        for run in runs_of(results, "latency")
        for check in run["checks"]
    ]
    return [
        "## Predicted latency",
        "The latency table of `tfq-profile` on this machine, against whole models that were measured after it with"
        " other inputs. One thread, XNNPACK. In place: by what factor operations take longer in the whole model of"
        " one precision than alone. This factor is part of the table; the table has not seen the mixed models.",
        common.markdown_table(["", "entries", "overhead ms", "in place", "predicted ms", "measured ms", "off"], rows),
    ]


def _speed_section(results: Results) -> list[str]:
    rows = [
        [
            run["case"],
            _counted(row["precisions"]),
            f"{row['predicted_ms']:.3f}",
            f"{row['measured_ms']:.3f}",
            f"{100 * (row['predicted_ms'] / row['measured_ms'] - 1):+.1f} %",
            f"{row['latency_ratio']['value']:.3f} x",
            interval(row["difference"]),
            f"{row['download_bytes']:,}",
        ]
        for run in runs_of(results, "speed")
        for row in run["rows"].values()
    ]
    header = ["", "layers", "predicted ms", "measured ms", "off", "of float", "points against float", "download bytes"]
    return [
        "## Budgets of latency",
        "![Test top-1 over latency](../images/allocation_latency.png)",
        "Test top-1 over latency on this machine, measured and predicted. Bars: 95 % intervals of the difference to"
        " float.",
        "From the fastest model to the one that loses least. Layers have 8 bits, 4 bits in packed tensors, or"
        " float32. One thread, XNNPACK, all models of a case and float in turns. Each case's own table made the"
        " predictions; it has not seen these mixtures.",
        common.markdown_table(header, rows),
    ]


def _counted(precisions: str) -> str:
    """ "7 w8, 3 float32"."""
    return ", ".join(f"{count} {name}" for name, count in collections.Counter(precisions.split()).most_common())


def _survey_section(results: Results) -> list[str]:
    run = runs_of(results, "survey")[0]
    rows = [[name, f"{seconds:.1f}"] for name, seconds in run["tasks"].items()]
    rows += [
        ["all states and sensitivities", f"{run['seconds']:.1f}"],
        [f"frontier of {FRONTIER_POINTS} budgets, {run['frontier_points']} points", f"{run['frontier_seconds']:.1f}"],
    ]
    return [
        "## Cost",
        f"{COST_CASE}, {run['layers']} layers at {run['candidates']} widths, {run['samples']} samples, {run['workers']}"
        f" workers: peak memory {run['peak_memory_mb']:,.0f} MiB, {run['peak_memory_before_mb']:,.0f} of it before"
        " the survey begins.",
        common.markdown_table(["", "seconds"], rows),
    ]


def _growth_section(results: Results) -> list[str]:
    rows = [
        [
            f"{run['layers']}",
            f"{run['samples']}",
            f"{run['seconds']:.1f}",
            f"{run['seconds'] / run['layers']:.2f}",
            f"{run['peak_memory_mb']:,.0f}",
        ]
        for run in runs_of(results, "growth")
    ]
    return [
        "States and sensitivities of residual nets of equal blocks with random weights, 32 x 32 inputs, 6 widths:",
        common.markdown_table(["layers", "samples", "seconds", "seconds a layer", "peak MiB"], rows),
    ]


def _solve_section(results: Results) -> list[str]:
    rows = [
        [
            f"{run['costs']}",
            f"{run['layers']}",
            f"{run['candidates']}",
            f"{len(run['seconds'])}",
            f"{statistics.median(run['seconds']):.2f}",
            f"{max(run['seconds']):.2f}",
        ]
        for run in runs_of(results, "solve")
    ]
    return [
        "The integer program on made-up networks, each of another seed, with borders between neighbours:",
        common.markdown_table(["budgets", "layers", "candidates", "instances", "median seconds", "most"], rows),
    ]
