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

from tfq.evaluation.signals import finite_decibels
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
    arrived, own = (
        decibels_of(names, ((values, [observed[name][part] for name in names]) for part, values in parts))
        for parts in (floats, again)
    )
    return tuple(LayerError(*found) for found in zip(names, arrived, own, strict=True))


def decibels_of(
    names: Sequence[str], parts: Iterable[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
) -> list[float | None]:
    """SQNR in dB of the tensors of these names, from some samples after others: (float values, others) of each."""
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    for floats, values in parts:
        for number, (y, q) in enumerate(zip(floats, values, strict=True)):
            signal[number] += float(np.square(y, dtype=np.float64).sum())
            noise[number] += float(np.square(y.astype(np.float64) - q).sum())
    return [finite_decibels(*found) for found in zip(signal.tolist(), noise.tolist(), strict=True)]
