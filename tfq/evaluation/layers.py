"""Where the error comes from: every layer of the .tflite against the float model, by Keras names.

    SQNR = 10 log10( sum y^2 / sum (y - q)^2 )        in dB; y float, q dequantised

`sqnr_db` takes y from the float model on the same samples: the error that has arrived at the layer.
`own_sqnr_db` takes y from the float layer on the layer's own quantised inputs: the error that its
weights and its output's grid add by themselves. The layers with the lowest one have most error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfq.evaluation.metrics import finite_decibels
from tfq.models.graph import Graph
from tfq.simulate.eager import tensor_parts
from tfq.verify.forced import Forced


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Error of one layer's output; dB, None where the float output is zero or the error is."""

    name: str
    sqnr_db: float | None
    own_sqnr_db: float | None


def layer_errors(
    graph: Graph, forced: Forced[Graph], observed: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]
) -> tuple[LayerError, ...]:
    """SQNR of every quantised layer.

    Args:
      graph: the prepared graph with its float weights.
      forced: `teacher_forced` of that graph.
      observed: the .tflite's tensors on `samples`.
    """
    if not forced.outputs:
        return ()
    names = list(forced.outputs)
    floats = tensor_parts(graph, samples, names)
    again = tensor_parts(forced.graph, forced.feeds, list(forced.outputs.values()))
    arrived, own = _decibels(names, floats, observed), _decibels(names, again, observed)
    return tuple(LayerError(name, arrived[name], own[name]) for name in names)


def _decibels(
    names: Sequence[str], parts: Iterable[tuple[slice, list[np.ndarray]]], observed: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    """SQNR of every layer from its float outputs, some samples at a time."""
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for part, values in parts:
        for name, value in zip(names, values, strict=True):
            signal[name] += float(np.square(value, dtype=np.float64).sum())
            noise[name] += float(np.square(value.astype(np.float64) - observed[name][part]).sum())
    return {name: finite_decibels(signal[name], noise[name]) for name in names}
