"""Words for what a report holds as values. The terminal and the page share them, so that both say the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Spelling: TypeAlias = Callable[[str], str]
"""How an option is written, `weight_bits` or `pipeline='light'`: as in Python (`str`), or as the flag of a command."""

STEPS = (
    "Before and after: how far the outputs are from those of the float model, on samples that the step has"
    " not seen. Lower is better."
)
CHANCE = (
    "May be chance: the average improved, but not enough of the samples did (Wilcoxon signed-rank test; a tuning is"
    " kept if z is below -2)."
)
ERRORS = (
    "Own SQNR: the error that the layer itself adds. SQNR: all error that has built up at its output. More dB is"
    " better; 6 dB more is half the error."
)
ROUNDS = (
    "Loss: how much further the outputs are from float than those of the 8-bit model, on calibration samples that were"
    " not used for fitting. Points against float: an estimate; below 0 is worse. Download: bytes after compression."
)

_PROPOSERS = {"program": "the solver", "greedy": "a greedy search", "uniform": "one precision for all layers"}
_FITS = {"assembled": "layers fitted one by one", "reconstructed": "layers fitted in sequence"}

_STAGES = {
    "prepare the model": "simplify the model",
    "export the float baseline": "write the float model",
    "calibrate": "measure what values tensors have",
    "specify": "give every tensor a grid",
    "equalise": "see whether channels can be evened out",
    "tune ranges": "tune the ranges",
    "correct all biases": "correct the biases",
    "fit weight scales": "fit the scales of weights",
    "reconstruct layers": "fit the weights, layer by layer",
    "tune batch norms": "tune the batch norms",
    "tune whole network": "tune the whole network",
    "reconstruct in sequence": "fit the weights once more, in sequence",
    "distil": "learn from the float model",
    "allocate": "choose a precision for every layer",
    "survey": "measure what every layer loses",
    "frontier": "put models of every size together",
    "export": "write the .tflite",
    "verify": "verify the .tflite",
    "package": "describe the .tflite",
    "append NMS": "append the suppression of doubles",
    "evaluate": "compare with the float model",
}

_MUCH, _SAME = 2.0, 0.0005  # of how far from float outputs were before


def counted(count: int, thing: str) -> str:
    """ "1 layer", "2 layers" """
    return f"{count} {thing}{'' if count == 1 else 's'}"


def fitted_to(calibration: int, distillation: int) -> str:
    """ "512 calibration samples and 4096 distillation samples", or calibration samples alone."""
    found = counted(calibration, "calibration sample")
    return f"{found} and {counted(distillation, 'distillation sample')}" if distillation else found


def bytes_of(count: float) -> str:
    """ "980 B", "98.0 kB", "3.41 MB" """
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1e3:.3g} kB" if count < 999_500 else f"{count / 1e6:.3g} MB"


def milliseconds(value: float) -> str:
    """ "26.4 us", "12.3 ms" """
    return f"{value:.3g} ms" if value >= 0.1 else f"{1000 * value:.3g} us"


def step(name: str, divergences: Mapping[str, float], samples: int, reason: str) -> str:
    """What a step of the pipeline came to, as a sentence; arguments as in `tfq.simulate.judge.Verdict`."""
    candidate, before = divergences.values()
    ratio = candidate / before if before else 1.0
    if ratio > _MUCH:
        moved = f"{ratio:.1f} times as far from float as before"
    elif abs(ratio - 1) < _SAME:
        moved = "as far from float as before"
    else:
        moved = f"{100 * abs(ratio - 1):.2g} % {'further from' if ratio > 1 else 'nearer to'} float"
    what = f"{name[:1].upper()}{name[1:]}"
    if not reason:
        return f"{what} was kept: the outputs of {counted(samples, 'unseen sample')} are {moved}."
    doubt = ", which may be chance" if reason.startswith("chance") else ""
    return f"{what} was tried and undone: the outputs of {counted(samples, 'unseen sample')} were {moved}{doubt}."


def operators(counts: Mapping[str, int], most: int = 3) -> str:
    """ "19 HARD_SWISH, 1 SOFTMAX", those after the first `most` together. counts: the most frequent first."""
    shown = [f"{count} {name}" for name, count in counts.items()][:most]
    rest = sum(list(counts.values())[most:])
    return ", ".join([*shown, *([f"{rest} more"] if rest else [])])


def delegated(partitions: int, outside: Mapping[str, int]) -> str:
    """ "2 (outside: 1 SOFTMAX)"; arguments as in `tfq.execution.delegation.Delegation`."""
    return f"{partitions} (outside: {operators(outside)})" if outside else str(partitions)


def precision(arithmetic: str, weight_bits: int | None) -> str:
    """ "int8", "dynamic range", "w8a16", of a layer; arguments as in `tfq.report.report.LayerReport`."""
    return f"w{weight_bits or 8}a16" if arithmetic == "int16x8" else arithmetic.replace("_", " ")


def clusters(numbers: Sequence[int]) -> str:
    """ "2 (1 bit), 16 (4 bits)", of the layers' numbers of clusters; 0 has none."""
    return ", ".join(f"{number} ({counted((number - 1).bit_length(), 'bit')})" for number in sorted({*numbers} - {0}))


def channels(numbers: Sequence[int], most: int = 3) -> str:
    """ "channel 4", "channels 0-3, 7": runs of them, those after the first `most` runs as "..."."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:most]]
    return f"channel{'s' * (len(numbers) > 1)} {', '.join(shown + ['...'] * (len(runs) > most))}"


def with_options(text: str, spelled: Spelling) -> str:
    """The text with its options, which stand in backquotes, written so."""
    return re.sub("`([a-z][a-z_]*(?:=[^`]*)?)`", lambda option: f"`{spelled(option[1])}`", text)


def setting(value: object) -> str:
    """A value of the recipe: "yes", "w4, w8", "not set"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "not set"
    return "not set" if value is None or value == "" else str(value)


def verdict(reason: str) -> str:
    """What became of a proposal of a step. reason: of `tfq.simulate.judge.Verdict`; empty where it was kept."""
    if not reason:
        return "kept"
    return f"rolled back: {reason.replace('chance,', 'may be chance,')}"


def anew(
    operator: str, operators: Sequence[str], layers: Sequence[str], reason: str, error: str, dtype: str = "int8"
) -> str:
    """Layers in another form; arguments as in `tfq.models.forms.WrittenAnew`."""
    named = " and ".join(filter(None, (", ".join(operators[:-1]), operators[-1])))
    forms = f"written as {named}" if dtype == "int8" else f"computed in {dtype} between integers"
    return f"{operator} of {counted(len(layers), 'layer')} is {forms}, because it {reason}. {error}"


def cause(layer: str, cause: str, remedy: str) -> str:
    """Why a layer loses; arguments as in `tfq.report.causes.Cause`."""
    return f"{layer}: {cause}; {remedy}."


def stage(name: str) -> str:
    """What a stage of a run does; `name` is what the journal calls it."""
    return _STAGES.get(name, name)


def proposer(name: str) -> str:
    """Who chose the precisions of a model; arguments as in `tfq.allocation.allocate.Round`."""
    return _PROPOSERS.get(name, name)


def fits(kind: str) -> str:
    """How the layers of a model were fitted; likewise."""
    return _FITS.get(kind, kind)


def proof(status: str, gap: float | None, solver: str) -> str:
    """What is proved of the chosen precisions, as a sentence; arguments as in `tfq.allocation.problem.Allocation`."""
    if status == "feasible":
        better = proposer(solver)
        return f"{better[:1].upper()}{better[1:]} measured better than the solver's choice. Nothing is proved about it."
    known = gap is not None and math.isfinite(gap)
    best = f"no other choice is predicted to be more than {100 * (gap or 0.0):.2g} % better"
    if status == "stopped":
        return f"The solver ({solver}) was stopped before the end; {best if known else 'nothing is proved'}."
    if not known:
        return f"The solver ({solver}) came to its end; nothing is proved."
    return f"The solver ({solver}) proved that {best if gap else 'no other choice is predicted to be better'}."
