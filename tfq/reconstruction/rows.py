"""The rows of every layer that the float network gives: targets, and in parallel mode the inputs too.

The float model runs once over the samples that methods may see, with the inputs of all wanted layers exposed; of each
only the sampled positions are kept, in memory up to a limit and on disk beyond it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tfq.data.samples import Samples
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.workers import in_order
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, build_model
from tfq.models.rewrite import sole_readers
from tfq.reconstruction.linear import LinearForm
from tfq.reconstruction.problem import product
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.walk import Walk, batch_size

# Rows a layer: enough to determine 4,000 taps, and no more than the largest number of inputs that they may hold.
_ROWS, _FEWEST_ROWS, _INPUT_NUMBERS = 16_384, 2_048, 2**25


@dataclasses.dataclass(frozen=True)
class SampledLayer:
    """A layer and the output positions [samples, p] at which it is looked at.

    Attributes:
      form: the layer as a matrix product.
      positions: [samples, p].
      addend: the tensor that is added to the layer's output before anything else reads it, and that is computed
        before the layer is; None where there is none.
      output: the tensor that its output becomes: its own, or the sum.
    """

    form: LinearForm
    positions: np.ndarray
    addend: str | None
    output: str

    def outputs(self, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """[n * p, groups, outputs] of a tensor [n, *output_shape] at `positions` [n, p]."""
        groups, _, outputs = self.form.matrix_shape
        flat = values.reshape(len(values), -1, values.shape[-1])
        return flat[np.arange(len(values))[:, None], positions].reshape(-1, groups, outputs)

    def float_rows(self, tensors: Mapping[str, np.ndarray], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs [n * p, groups, taps] and targets [n * p, groups, outputs] from the float network's tensors."""
        node = self.form.node
        rows = self.form.rows(tensors[node.inputs[0]], positions)
        values = product(rows, self.form.matrix(node.weights[self.form.kernel_name]))
        if "bias" in node.weights:
            values = values + node.weights["bias"].reshape(values.shape[1:])
        if self.addend is not None:
            values = values + self.outputs(tensors[self.addend], positions)
        return rows, values

    @property
    def rows(self) -> int:
        return self.positions.size

    @property
    def multiplications(self) -> int:
        """Of all rows with the matrix."""
        return self.rows * self.form.row_size * self.form.matrix_shape[2]

    @property
    def rows_per_sample(self) -> int:
        return self.positions.shape[1]


def sampled_layers(
    graph: Graph, names: Sequence[str], samples: int, seed: int, *, by_block: bool
) -> dict[str, SampledLayer]:
    """The layers of these names with their positions, the same for the same seed; by_block: and with their addends."""
    shapes, readers = tensor_shapes(graph), sole_readers(graph)
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    found = {}
    for index, name in enumerate(names):
        node = graph[name]
        form = LinearForm(node, shapes[node.inputs[0]], shapes[name])
        rows = min(_ROWS, max(_FEWEST_ROWS, _INPUT_NUMBERS // form.row_size))
        rng = np.random.default_rng([seed, index])
        positions = form.sample_positions(samples, max(1, -(-rows // samples)), rng)
        addend, output = None, name
        reader = readers[name]
        if by_block and reader is not None and graph[reader].kind == "Add" and node.activation is None:
            others = [i for i in graph[reader].inputs if i != name]
            if len(others) == 1 and order[others[0]] < order[name] and shapes[others[0]] == shapes[name]:
                addend, output = others[0], reader
        found[name] = SampledLayer(form, positions, addend, output)
    return found


def targets_name(name: str) -> str:
    return f"{name}/targets"


def inputs_name(name: str) -> str:
    return f"{name}/inputs"


def collect_float_rows(
    graph: Graph,
    layers: Mapping[str, SampledLayer],
    samples: Samples,
    store: TensorStore,
    *,
    with_inputs: bool,
    resources: Resources = DEFAULT,
) -> None:
    """Put `targets_name(layer)` [rows, groups, outputs] into the store, and with_inputs `inputs_name(layer)`.

    Args:
      graph: the prepared float graph.
      layers: by node name.
      samples: those that methods see.
    """
    addends = [layer.addend for layer in layers.values() if layer.addend is not None]
    sources = list(dict.fromkeys([*(graph[name].inputs[0] for name in layers), *addends]))
    model = build_model(graph, outputs=sources)
    for name, layer in layers.items():
        groups, taps, outputs = layer.form.matrix_shape
        store.create(targets_name(name), (layer.rows, groups, outputs))
        if with_inputs:
            store.create(inputs_name(name), (layer.rows, groups, taps))
    step = batch_size(*(tuple(t.shape[1:]) for t in model.outputs))

    def batches() -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        for start in range(0, len(samples), step):
            part = slice(start, min(start + step, len(samples)))
            found = model.predict_on_batch([samples.arrays[name][part] for name in graph.inputs])
            yield part, dict(zip(sources, found if isinstance(found, list) else [found], strict=True))

    def gather(batch: tuple[slice, Mapping[str, np.ndarray]]) -> int:
        part, tensors = batch
        for name, layer in layers.items():
            inputs, targets = layer.float_rows(tensors, layer.positions[part])
            first = part.start * layer.rows_per_sample
            store.write(targets_name(name), first, targets)
            if with_inputs:
                store.write(inputs_name(name), first, inputs)
        return part.stop - part.start

    with resources.progress.task("run the float model", len(samples)) as advance:
        for done in in_order(gather, batches(), resources.workers):
            advance(done)


def walked_rows(walk: Walk, layer: SampledLayer) -> np.ndarray:
    """[rows, groups, taps] of a layer's input as the walk has computed it, before it is put on its grid."""
    groups, taps, _ = layer.form.matrix_shape
    return _gathered(walk, layer, layer.form.node.inputs[0], layer.form.rows, (groups, taps))


def walked_outputs(walk: Walk, layer: SampledLayer, name: str) -> np.ndarray:
    """[rows, groups, outputs] of a tensor shaped as the layer's output, likewise."""
    groups, _, outputs = layer.form.matrix_shape
    return _gathered(walk, layer, name, layer.outputs, (groups, outputs))


def _gathered(
    walk: Walk,
    layer: SampledLayer,
    name: str,
    gather: Callable[[np.ndarray, np.ndarray], np.ndarray],
    shape: tuple[int, int],
) -> np.ndarray:
    """What `gather` takes from a tensor at the layer's positions: [rows, *shape]."""
    found, per_sample = np.empty((layer.rows, *shape), np.float32), layer.rows_per_sample
    for part in walk.parts(name):
        values = walk.read(name, part, on_grid=False)
        found[part.start * per_sample : part.stop * per_sample] = gather(values, layer.positions[part])
    return found
