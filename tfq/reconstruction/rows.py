"""The rows of every layer that the float network gives: targets, and in parallel mode the inputs too.

The float model runs once over all samples, with the inputs of all wanted layers exposed; of each only the
sampled positions are kept, in memory up to a limit and on disk beyond it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfq.execution.progress import Progress, Silent
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, build_model
from tfq.reconstruction.linear import LinearForm
from tfq.reconstruction.problem import product
from tfq.reconstruction.tensor_store import TensorStore

# Rows a layer: enough to determine 4,000 taps, and no more than the largest number of inputs that they may hold.
_ROWS, _FEWEST_ROWS, _INPUT_NUMBERS = 16_384, 2_048, 2**26
_BATCH_BYTES, _LARGEST_BATCH = 2**26, 64


@dataclasses.dataclass(frozen=True)
class SampledLayer:
    """A layer and the output positions [samples, p] at which it is looked at."""

    form: LinearForm
    positions: np.ndarray

    @property
    def rows(self) -> int:
        return self.positions.size

    @property
    def rows_per_sample(self) -> int:
        return self.positions.shape[1]


def sampled_layers(graph: Graph, names: Sequence[str], samples: int, seed: int) -> dict[str, SampledLayer]:
    """The layers of these names with their positions, the same for the same seed."""
    shapes = tensor_shapes(graph)
    found = {}
    for index, name in enumerate(names):
        node = graph[name]
        form = LinearForm(node, shapes[node.inputs[0]], shapes[name])
        rows = min(_ROWS, max(_FEWEST_ROWS, _INPUT_NUMBERS // form.row_size))
        rng = np.random.default_rng([seed, index])
        found[name] = SampledLayer(form, form.sample_positions(samples, max(1, -(-rows // samples)), rng))
    return found


def batch_size(*shapes: tuple[int, ...]) -> int:
    """Samples to run at a time where tensors of these shapes are held."""
    size = 4 * sum(math.prod(shape) for shape in shapes)
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(size, 1)))


def targets_name(name: str) -> str:
    return f"{name}/targets"


def inputs_name(name: str) -> str:
    return f"{name}/inputs"


def collect_float_rows(
    graph: Graph,
    layers: Mapping[str, SampledLayer],
    samples: Mapping[str, np.ndarray],
    store: TensorStore,
    *,
    with_inputs: bool,
    progress: Progress | None = None,
) -> None:
    """Put `targets_name(layer)` [rows, groups, outputs] into the store, and with_inputs `inputs_name(layer)`.

    Args:
      graph: the prepared float graph.
      layers: by node name.
      samples: arrays [n, ...] by input name.
    """
    sources = list(dict.fromkeys(graph[name].inputs[0] for name in layers))
    model = build_model(graph, outputs=sources)
    count = len(next(iter(samples.values())))
    for name, layer in layers.items():
        groups, taps, outputs = layer.form.matrix_shape
        store.create(targets_name(name), (layer.rows, groups, outputs))
        if with_inputs:
            store.create(inputs_name(name), (layer.rows, groups, taps))
    batch = batch_size(*(tuple(t.shape[1:]) for t in model.outputs))
    with (progress or Silent()).task("run the float model", count) as advance:
        for start in range(0, count, batch):
            part = slice(start, min(start + batch, count))
            found = model.predict_on_batch([samples[name][part] for name in graph.inputs])
            tensors = dict(zip(sources, found if isinstance(found, list) else [found], strict=True))
            for name, layer in layers.items():
                node = graph[name]
                rows = layer.form.rows(tensors[node.inputs[0]], layer.positions[part])
                values = product(rows, layer.form.matrix(node.weights[layer.form.kernel_name]))
                if "bias" in node.weights:
                    values = values + node.weights["bias"].reshape(values.shape[1:])
                first = start * layer.rows_per_sample
                store.write(targets_name(name), first, values)
                if with_inputs:
                    store.write(inputs_name(name), first, rows)
            advance(part.stop - start)
