"""What a layer's precision costs the model: dL(unit, candidate), the increase of the loss when that unit alone changes.

    measured       dL = max(loss(base with the unit in that state) - loss(base), 1e-6)
    gradient       its second-order estimate from the float model                       `tfq.allocation.fisher`
    output_error   the relative error of the layer's own output on rows to choose by    `tfq.reconstruction.problem`

The base is the 8-bit model, everything else of it stays as it is. The loss is the mean divergence from the float
model's outputs (`tfq.simulate.judge`), for which no label is needed.
Measured is the file that would be shipped, in the interpreter: it is converted once, and for every state the integers,
scales and biases of the unit are written into it (`tfq.export.variants`).

Source: Hubara et al. 2020 (arXiv:2006.10518), equations 5a to 5d: the loss is measured layer by layer and taken
as additive, and a negative increase counts as 1e-6.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfq.allocation.states import Key, State, apply
from tfq.execution.ledger import Ledger
from tfq.execution.predict import available_cores, predict
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import Arrays, View
from tfq.execution.workers import Shared, share, spread
from tfq.export.variants import Exporter
from tfq.models.graph import Graph
from tfq.precision import precision_of
from tfq.quantized_model import QuantizedModel
from tfq.simulate.divergence import divergence
from tfq.simulate.eager import tensors
from tfq.spec import Specification

Sensitivities = Mapping[Key, float]
Evaluate = Callable[[QuantizedModel], float]
"""The loss of a model."""

FLOOR = 1e-6
_FILE, _SIMULATION = "file", "simulation"  # ways to measure


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """The loss of a model's outputs on given samples: their mean divergence from the float model's.

    Attributes:
      samples: arrays [n, ...] by input name.
      reference: the float model's outputs [n, ...], in the order of the graph's outputs.
    """

    samples: Arrays
    reference: Sequence[np.ndarray]

    @classmethod
    def of(cls, reference: Graph, samples: Arrays) -> Loss:
        """With the outputs of the prepared float graph."""
        return cls(samples, tensors(reference, samples))

    def __call__(self, outputs: Sequence[np.ndarray]) -> float:
        """Mean loss of outputs [n, ...]."""
        return float(divergence(self.reference, outputs).mean())

    def at(self, positions: np.ndarray) -> Loss:
        """The same on the samples at these positions."""
        samples = {name: View.of(values, positions) for name, values in self.samples.items()}
        return Loss(samples, [values[positions] for values in self.reference])


def exported(loss: Loss) -> Evaluate:
    """The loss of a model's .tflite in the interpreter: activations of 8 bits. May be called from several threads."""
    exporter = Exporter.of(loss.samples)
    return lambda model: loss(predict(exporter.export(model), loss.samples, threads=1))


def simulated(loss: Loss) -> Evaluate:
    """The loss of a model's simulation: for precisions that TFLite cannot run, or that need a conversion each."""
    return lambda model: loss(tensors(model, loss.samples))


def measured(
    base: QuantizedModel,
    states: Iterable[State],
    loss: Loss,
    *,
    ledger: Path | None = None,
    resources: Resources = DEFAULT,
) -> dict[Key, float]:
    """dL of every state by measurement, states that compute as the base in the file and all others in the simulation.

    A unit with int16 activations may lose less than in the base: what its other states lose is counted from there.

    Args:
      base: the 8-bit model.
      states: of its units.
      loss: on which samples.
      ledger: file in which every loss is noted down as it is measured. What it holds already is not measured again.
      resources: each thread, one per core at least, or call of the executor measures one state at a time.

    Raises:
      UserError: the ledger belongs to another run.
    """
    states = list(states)
    ways = {state.key: _way(state, base) for state in states}
    swaps = {(way, ""): () for way in ways.values()} | {state.key: (state,) for state in states}
    threads = dataclasses.replace(resources, workers=max(resources.workers, available_cores()))
    with _ledger(ledger, base, states, loss) as (known, note):
        waiting = [key for key in swaps if key not in known]
        with (
            resources.progress.task("measure the sensitivities", len(swaps)) as advance,
            spread(threads, _loss_with, threads=True) as apart,
        ):
            advance(len(swaps) - len(waiting))
            told = share(resources, (base, loss))
            for number, value in apart(_loss_with, ((told, key, swaps[key]) for key in waiting)):
                note(waiting[number], value)
                advance(1)
        lost = {state.key: known[state.key] - known[ways[state.key], ""] for state in states}
    least = dict.fromkeys((state.unit for state in states), 0.0)
    for unit, candidate in lost:
        if precision_of(candidate).is_int16:
            least[unit] = min(least[unit], lost[unit, candidate])
    return {key: max(value - least[key[0]], FLOOR) for key, value in lost.items()}


_LOCK = threading.Lock()  # Keras builds models in one thread, and the base is converted once


def _loss_with(told: Shared[tuple[QuantizedModel, Loss]], key: Key, states: Sequence[State]) -> float:
    """The loss of the base with these states."""
    base, loss = told.value
    model = apply(base, *states)
    in_file = (_way(states[0], base) if states else key[0]) == _FILE
    with _LOCK:
        if not in_file:
            return simulated(loss)(model)
        evaluate = _exported(told)
    return evaluate(model)


@functools.lru_cache(maxsize=1)
def _exported(told: Shared[tuple[QuantizedModel, Loss]]) -> Evaluate:
    """Of one process for all states that it measures: the base is converted once."""
    return exported(told.value[1])


def output_errors(states: Iterable[State]) -> dict[Key, float]:
    """dL of every state taken as the relative error of the unit's own output on rows that it was not fitted to."""
    return {state.key: max(state.after, FLOOR) for state in states}


def _way(state: State, base: QuantizedModel) -> str:
    """In the file where its conversion is the base's (`tfq.export.variants`), and TFLite runs it."""
    alike = all(node.precision.arithmetic == base[node.name].precision.arithmetic for node in state.nodes)
    return _FILE if alike and not precision_of(state.candidate).is_simulated else _SIMULATION


@contextlib.contextmanager
def _ledger(
    path: Path | None, base: QuantizedModel, states: Sequence[State], loss: Loss
) -> Iterator[tuple[Mapping[tuple[str, ...], float], Callable[[Key, float], None]]]:
    """(losses known, how to note one down); without a path in memory alone."""
    if path is None:
        values: dict[tuple[str, ...], float] = {}
        yield values, values.__setitem__
        return
    measures = "loss of a model with one unit swapped, by unit and candidate"
    with Ledger(path, measures=measures, depends_on=_digest(base, states, loss)) as noted:
        yield noted.values, noted.add


def _digest(base: QuantizedModel, states: Sequence[State], loss: Loss) -> str:
    """Of everything that a loss depends on but the states' own names."""
    found = hashlib.sha256()
    arrays = [np.asarray(loss.samples[name]) for name in base.inputs] + list(loss.reference)
    for node in base.nodes:
        found.update(f"{node.name} {node.kind} {sorted(node.config.items())} {node.inputs} {node.activation}".encode())
        arrays += [node.weights[name] for name in sorted(node.weights)]
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    found.update(Specification.of(base).to_json().encode())
    found.update(repr(sorted({state.method for state in states if state.method})).encode())
    return found.hexdigest()
