"""How far the integer model is from the simulation: layer by layer, and end to end.

Layer by layer, every node of the simulation is given the very tensors that the .tflite computed, so
that an error cannot travel ("teacher forcing"); what remains is the rounding of the integer kernel, at
most one step of the output's grid. Of an int16 grid 16 count as one: kernels approximate functions there.
End to end the steps add up, and a deep net amplifies them: there only statistics are meaningful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.errors import VerificationError
from tfq.execution.interpreter import TfliteModel
from tfq.quantized_model import QuantizedModel
from tfq.simulate.eager import tensor_parts, tensors
from tfq.verify.forced import Forced

MOST_STEPS = 8  # beyond what the rounding of any kernel explains
_STEPS_IN_ONE = 16  # of an int16 grid


@dataclasses.dataclass(frozen=True)
class LayerParity:
    """One layer of the .tflite against the simulation of that layer on the same inputs.

    Attributes:
      name: node name.
      max_steps: largest difference, in steps (LSB) of the output's grid.
      differing: share of the elements that differ, 0..1.
      elements: number of elements compared.
    """

    name: str
    max_steps: int
    differing: float
    elements: int


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output of the .tflite against the simulation of the whole model; `kernels`: "xnnpack" or "builtin"."""

    name: str
    kernels: str
    max_steps: float
    mean_steps: float
    differing: float
    samples: int


def layer_parity(forced: Forced[QuantizedModel], observed: Mapping[str, np.ndarray]) -> tuple[LayerParity, ...]:
    """Compare every quantised layer of the simulation with the `observed` tensors of the .tflite."""
    outputs = {name: again for name, again in forced.outputs.items() if again in forced.graph.grids}
    if not outputs:
        return ()
    grids = {name: forced.graph.grids[again] for name, again in outputs.items()}
    largest, differing = dict.fromkeys(outputs, 0), dict.fromkeys(outputs, 0)
    for part, values in tensor_parts(forced.graph, forced.feeds, list(outputs.values())):
        for name, value in zip(outputs, values, strict=True):
            step = grids[name].scale[0] * (_STEPS_IN_ONE if grids[name].is_wide else 1)
            steps = np.rint(np.abs(value - observed[name][part]) / step)
            largest[name] = max(largest[name], int(steps.max()))
            differing[name] += int((steps > 0).sum())
    sizes = {name: observed[name].size for name in outputs}
    return tuple(LayerParity(n, largest[n], differing[n] / sizes[n], sizes[n]) for n in outputs)


def parity_note(found: Sequence[LayerParity]) -> str:
    """One line for the user where a layer is more than one step off, else nothing.

    Raises:
      VerificationError: a layer is so far off that it cannot be rounding: the file computes something else.
    """
    off = sorted((p for p in found if p.max_steps > 1), key=lambda p: -p.max_steps)
    if not off:
        return ""
    named = ", ".join(f"{p.name} ({p.max_steps})" for p in off[:3]) + (", ..." if len(off) > 3 else "")
    note = f"{len(off)} layers differ from the simulation by more than one step on their own inputs: {named}"
    if off[0].max_steps > MOST_STEPS:
        raise VerificationError(f"{note}; this is a defect of tfq: please report it with the model")
    return note


def output_parity(
    content: bytes, quantized: QuantizedModel, samples: Mapping[str, np.ndarray]
) -> tuple[OutputParity, ...]:
    """Compare the outputs of the whole model on `samples`, with XNNPACK and with the builtin kernels."""
    simulated = tensors(quantized, samples)
    count = len(next(iter(samples.values())))
    found = []
    for kernels, delegate in (("xnnpack", True), ("builtin", False)):
        model = TfliteModel(content, delegate=delegate)
        runs = [model.run({n: samples[n][i : i + 1] for n in quantized.inputs}) for i in range(count)]
        for position, node in enumerate(quantized.outputs):
            if node not in quantized.grids:
                continue
            values = np.concatenate([run[position] for run in runs])
            steps = np.abs(values - simulated[position]) / quantized.grids[node].scale[0]
            found.append(
                OutputParity(
                    quantized.output_names[position],
                    kernels,
                    round(float(steps.max()), 3),
                    float(steps.mean()),
                    float((steps > 0.5).mean()),
                    count,
                )
            )
    return tuple(found)
