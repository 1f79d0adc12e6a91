"""A diagnosis as text: what every part loses, how the error grows, and which steps were rolled back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfq.report.table import decibel, format_table

if TYPE_CHECKING:  # it would load TensorFlow
    from tfq.evaluation.diagnosis import Diagnosis
    from tfq.reconstruction.steps import StepOutcome

_PARTS = (
    "One part is quantised at a time, the rest of the network is float. Divergence, agreement and SQNR are those of the"
    " network's end, before a softmax."
)
_LAYERS = (
    "SQNR of every layer's output on unseen samples: everything quantised, weights alone, activations alone. The change"
    " from one layer to the next shows where the error is made."
)


def diagnosis_text(found: Diagnosis, steps: Sequence[StepOutcome], wanted: re.Pattern[str]) -> str:
    """Three tables: parts, the layers whose names match, and what the judge threw away (where it did)."""
    parts = [
        [
            part.part,
            part.samples,
            str(part.layers),
            f"{part.divergence:.4g}",
            "" if part.agreement is None else f"{part.agreement:.2f} %",
            decibel(part.sqnr_db),
        ]
        for part in found.parts
    ]
    layers = [
        [layer.name, layer.kind, *map(decibel, (layer.both, layer.weights, layer.activations))]
        for layer in found.layers
        if wanted.search(layer.name)
    ]
    header = ["quantised", "samples", "layers with quantised weights", "divergence", "agreement", "SQNR"]
    blocks = [
        format_table(header, parts, left=2) + f"\n{_PARTS}",
        format_table(["layer", "kind", "SQNR", "weights alone", "activations alone"], layers, left=2) + f"\n{_LAYERS}",
    ]
    return "\n\n".join(blocks + _rolled_back(steps))


def _rolled_back(steps: Sequence[StepOutcome]) -> list[str]:
    lines = []
    for step in steps:
        lines += [
            f"{step.name}, {next(iter(guard.divergences))}: rolled back, divergence"
            f" {' against '.join(f'{value:.3g}' for value in guard.divergences.values())} of {guard.samples} samples"
            for guard in step.guards
            if guard.rolled_back
        ]
        lines += [f"{step.name}, {layer.name}: rolled back, {layer.reason}" for layer in step.layers if not layer.kept]
    return ["\n".join(lines)] if lines else []
