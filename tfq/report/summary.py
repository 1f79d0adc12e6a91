"""What was measured as a person reads it on a terminal: the report of a run, and models side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.size import Size
from tfq.execution.files import EXPLORER_NAMES
from tfq.report import words
from tfq.report.causes import worst_layers
from tfq.report.table import against_float, decibel, format_table, without_empty

if TYPE_CHECKING:  # it would load TensorFlow, which writing text does not need
    from tfq.reconstruction.steps import StepOutcome
    from tfq.report.report import Report
    from tfq.simulate.judge import Verdict


_ASKED_FOR = {
    "model_nms.tflite": "nms:    {} (gives boxes)",
    "MODEL_CARD.md": "card:   {} (README.md of a repository on the Hugging Face Hub)",
    **dict.fromkeys(EXPLORER_NAMES.values(), "layers: {} (for Google's Model Explorer)"),
}
"""File that an option asks for -> the line about it."""


def summary(report: Report, output: Path | None = None, files: Collection[str] = ()) -> str:
    """The verdict, float against exported model, the layers with most error, warnings, and where files are, if any.

    Args:
      output: the folder of the files; None: there are none.
      files: names of those in it.
    """
    header, rows, notes = comparison(report)
    measured = "\n".join([format_table(header, rows), *notes])
    parts = [report.verdict, measured, _allocation(report), _steps(report), _worst_layers(report), _checks(report)]
    if report.warnings:
        parts.append("\n".join(f"warning: {w}" for w in report.warnings))
    if output is not None:
        parts.append(f"report: {output / 'report.html'} (report.json holds the same)\n{_model_lines(report, output)}")
        parts[-1] += "".join(f"\n{line.format(output / name)}" for name, line in _ASKED_FOR.items() if name in files)
    return "\n\n".join(part for part in parts if part)


def _model_lines(report: Report, output: Path) -> str:
    """Where the model is, or why there is none."""
    if report.recipe.simulated:
        return f"model:  none, simulated only: {report.recipe.simulated}"
    line = f"model:  {output / 'model.tflite'} (HOWTO.md says how to feed it)"
    if report.package_bytes is not None:
        line += f"\npacked: {output / 'model.tflite.gz'}, {report.package_bytes:,} bytes"
    return line


def comparison(report: Report) -> tuple[list[str], list[list[str]], list[str]]:
    """Float against exported model: header, one row a measure with one column a model, and notes."""
    evaluation = report.evaluation
    models = evaluation.models
    last, others = models[-1], [""] * (len(models) - 1)
    rows = []
    if models[0].score is not None:
        rows.append([evaluation.metric, *(number(m.score) for m in models), interval(last.difference, sign="+")])
    rows += [
        ["agreement with float", *others, number(last.agreement), interval(last.agreement)],
        ["output SQNR", *others, number(last.sqnr, 1), ""],
        *(
            [f"SQNR of {name}", *others, number(found, 1), ""]
            for name, found in zip(evaluation.outputs[1:], last.other_sqnr, strict=False)
        ),
        *(
            [
                f"SQNR of {evaluation.outputs[part.output]}, {words.channels(part.channels)}",
                *others,
                number(part.sqnr, 1),
                "",
            ]
            for part in last.parts
        ),
        _ratio_row("file bytes", models, lambda size: size.file_bytes),
        _ratio_row("download bytes (compressed)", models, lambda size: size.download_bytes),
        ["bits per weight", *(f"{m.size.weight_bits:.2f}" if m.size else "" for m in models), ""],
        ["clusters of weights", *others, words.clusters([layer.clusters for layer in report.layers]), ""],
    ]
    timed = models[0].latency
    rows.append(["XNNPACK partitions", *map(_delegated, models), ""])
    if timed is not None:
        for name in ("p50", "p90"):
            values = [float(getattr(m.latency, f"{name}_ms")) if m.latency else None for m in models]
            ratio = interval(last.latency.ratio) if name == "p50" and last.latency else ""
            row = [f"latency {name}, ms", *("" if v is None else f"{v:.3f}" for v in values)]
            rows.append([*row, ratio or _ratio(values, 2)])
    rows = [row for row in rows if any(row[1:])]
    header = [f"n = {evaluation.samples}", *(m.name for m in models), "against float [95 % interval]"]
    if len(models) == 1:
        rows = [[row[0], row[1], ""] for row in rows if row[1]]
    notes = [f"Fitted to {words.fitted_to(report.calibration_samples, report.distillation_samples)}."]
    if timed is not None:
        notes.append(
            f"Latency: on this machine, {timed.threads} thread, XNNPACK {'on' if timed.delegate else 'off'}; the"
            f" models take turns, {timed.runs} runs each."
        )
    if evaluation.omitted:
        notes.append(f"No score: {evaluation.omitted}.")
    notes += [f"{m.name}: no file, so no size and no latency; {m.simulated}." for m in models if m.simulated]
    return header, rows, notes


def evaluation_table(found: Evaluation) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes; without the columns of what was measured of no model."""
    header = ["model", found.metric, "difference [95 %]", "agreement", "SQNR", "file", "download", "bits", "p50 ms"]
    header += ["p90 ms", "time ratio [95 %]", "XNNPACK partitions"]
    rows = [_model_row(model, baseline=not index) for index, model in enumerate(found.models)]
    notes = [
        f"{found.samples} samples; the others are compared with the first model."
        " Brackets: 95 % intervals (paired bootstrap)."
    ]
    if len(found.outputs) > 1:
        notes.append(
            f"Only the first output, {found.outputs[0]!r}, is measured, of {', '.join(map(repr, found.outputs))}."
        )
    if found.omitted:
        notes.append(f"No score: {found.omitted}.")
    timed = found.models[0].latency
    if timed:
        notes.append(
            f"Latency on this machine: {timed.runs} runs each after {timed.warm_up} untimed, in turns, batch"
            f" {timed.batch}, {words.counted(timed.threads, 'thread')}, XNNPACK {'on' if timed.delegate else 'off'}."
        )
    notes.append("File and download (compressed) in bytes; bits: mean bits of a weight.")
    return *without_empty(header, rows), notes


def _model_row(model: ModelEvaluation, *, baseline: bool) -> list[str]:
    size, latency = model.size, model.latency
    same = model.sqnr is not None and model.sqnr.value is None
    return [
        model.name,
        number(model.score, 2),
        interval(model.difference, sign="+", unit=False),
        number(model.agreement, 2),
        "equal" if same else number(model.sqnr, 1),
        f"{size.file_bytes:,}" if size else "",
        f"{size.download_bytes:,}" if size else "",
        f"{size.weight_bits:.2f}" if size else "",
        f"{latency.p50_ms:.3f}" if latency else "",
        f"{latency.p90_ms:.3f}" if latency else "",
        "" if baseline or latency is None else interval(latency.ratio, unit=False),
        _delegated(model),
    ]


def _delegated(model: ModelEvaluation) -> str:
    return words.delegated(model.delegation.partitions, model.delegation.outside) if model.delegation else ""


def _ratio_row(name: str, models: tuple[ModelEvaluation, ...], value: Callable[[Size], int]) -> list[str]:
    values = [value(m.size) if m.size else None for m in models]
    return [name, *("" if v is None else f"{v:,}" for v in values), _ratio(values, 3)]


def _ratio(values: Sequence[float | None], digits: int) -> str:
    """The last value as a multiple of the first; empty where one was not measured."""
    first, last = values[0], values[-1]
    return "" if first is None or last is None else f"{last / first:.{digits}f} x"


def _worst_layers(report: Report) -> str:
    worst = worst_layers(report.layers)
    if not worst:
        return ""
    rows = [
        [
            layer.name,
            " + ".join(layer.keras_layers[:3]) + (" ..." if len(layer.keras_layers) > 3 else ""),
            layer.kind,
            decibel(layer.own_sqnr_db),
            decibel(layer.sqnr_db),
        ]
        for layer in worst
    ]
    table = format_table(["layers with most error", "your layers", "kind", "own SQNR", "SQNR"], rows, left=3)
    return "\n".join(
        [table, words.ERRORS, *(words.cause(found.layer, found.cause, found.remedy) for found in report.causes)]
    )


def _allocation(report: Report) -> str:
    """Which precisions a budget led to, and the models that were measured on the way."""
    if report.allocation is None:
        return ""
    found, rows = report.allocation, []
    for entry in found.rounds:
        drop = entry.measured.drop
        rows.append(
            [
                words.fits(entry.kind),
                words.proposer(entry.name),
                f"{entry.predicted:.3g}",
                f"{entry.measured.loss:.3g}",
                "" if drop is None else f"{against_float(drop.points)} +- {drop.standard_error:.2f}",
                "" if drop is None else "yes" if entry.holds else "no",
                f"{entry.costs['download_bytes']:,.0f}",
                "" if entry.measured.download_bytes is None else f"{entry.measured.download_bytes:,}",
            ]
        )
    header = ["model", "chosen by", "loss, predicted", "measured", "points against float", "drop kept"]
    header += ["download, predicted", "measured"]
    own = found.allocation
    groups = {
        c: [unit for unit, given in own.candidates.items() if given == c] for c in sorted(set(own.candidates.values()))
    }
    table = format_table(*without_empty(header, rows), left=2)
    lines = [table, words.ROUNDS, f"precision of every layer. {words.proof(own.status, own.gap, own.solver)}"]
    lines += [f"{name}: {words.counted(len(units), 'layer')} ({', '.join(units)})" for name, units in groups.items()]
    return "\n".join(lines)


def _steps(report: Report) -> str:
    """One row for every version that a step proposed: what it does to the divergence from the float model."""
    rows = [] if report.guard is None else [_judged("calibration", report.guard, "")]
    for step in report.steps:
        rows += [_judged(step.name, guard, _layers(step)) for guard in step.guards]
        if not step.guards:
            rows.append([step.name, "nothing", "", "", "", "", ""])
    if report.guard is None and not any(step.guards for step in report.steps):
        return ""
    header = ["step", "tried", "before", "after", "samples", "result", "layers improved"]
    chance = any(guard.reason.startswith("chance") for step in report.steps for guard in step.guards)
    notes = f"{words.STEPS}\n{words.CHANCE}" if chance else words.STEPS
    return f"{format_table(*without_empty(header, rows), left=2)}\n{notes}"


def _judged(step: str, guard: Verdict, layers: str) -> list[str]:
    candidate, before = guard.divergences
    values = [f"{guard.divergences[name]:.3g}" for name in (before, candidate)]
    return [step, candidate, *values, str(guard.samples), words.verdict(guard.reason), layers]


def _layers(step: StepOutcome) -> str:
    return f"{sum(layer.kept for layer in step.layers)} of {len(step.layers)}" if step.layers else ""


def _checks(report: Report) -> str:
    lines = []
    if report.verification is not None:
        checked = report.verification
        lines.append(
            f"verified: the file is as specified: {checked.integers:,} integers, and the scales of"
            f" {checked.activations} activations, {checked.weights} weights and {checked.biases} biases."
            f" {checked.layers_alone} layers were run alone on random integers, and each computes its definition."
            f" {checked.float_operators} of {checked.operators} operations run in float."
        )
        if checked.unseen:
            lines.append(f"not verified, because the output hardly changes with the input: {', '.join(checked.unseen)}")
    lines += [f"form: {words.anew(**vars(found))}" for found in report.anew]
    floats = [x for x in report.layers if x.precision in ("float32", "float16") and x.kind not in ("Reshape",)]
    if report.precision == "dynamic_range":  # where all but its layers are: those with weights are told
        floats = [x for x in floats if x.precision == "float16"]
    wide = [x for x in report.layers if x.precision == "int16x8"]
    for what, found in (("layers in float", floats), ("layers with 16-bit activations", wide)):
        if report.recipe.fits and found:
            named = ", ".join(f"{x.name} ({x.kind}, {words.precision(x.precision, x.weight_bits)})" for x in found[:5])
            lines.append(f"{what}: {named}{' ...' if len(found) > 5 else ''}")
    steps = [layer.parity_max_steps for layer in report.layers if layer.parity_max_steps is not None]
    if steps:
        largest = max(steps)
        outputs = "".join(
            f" At the output {p.name}: {p.mean_steps:.2f} steps on average, {p.max_steps:g} at most."
            for p in report.parity
            if p.kernels == "xnnpack"
        )
        lines.append(
            f"parity: on the same inputs, a layer of the file differs from the simulation by at most {largest}"
            f" {'step' if largest == 1 else 'steps'} of its grid ({len(steps)} layers).{outputs}"
        )
    return "\n".join(lines)


def number(found: Estimate | None, digits: int = 2) -> str:
    """The value with its unit; empty where there is none."""
    if found is None or found.value is None:
        return ""
    text = f"{found.value:.{digits}f}" if found.unit else f"{found.value:.4g}"
    return f"{text} {found.unit}".rstrip()


def interval(found: Estimate | None, *, sign: str = "", digits: int = 2, unit: bool = True) -> str:
    """The value, with its unit if that is wanted, and its interval: "+0.12 points [-0.38, +0.50]"."""
    if found is None or found.value is None:
        return ""
    told = f" {found.unit}" if found.unit and unit else ""
    form = f"{sign}.{digits}f" if found.unit else f"{sign}.{digits + 1}g"
    if found.low is None or found.high is None:
        return f"{found.value:{form}}{told}"
    return f"{found.value:{form}}{told} [{found.low:{form}}, {found.high:{form}}]"
