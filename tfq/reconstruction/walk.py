"""The quantised network, computed layer by layer as its layers are reconstructed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfq.grid import Grid
from tfq.models.equality import node_function, tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.problem import on_grid
from tfq.reconstruction.rows import (
    SampledLayer,
    SeenSamples,
    batch_size,
)
from tfq.reconstruction.tensor_store import TensorStore
from tfq.simulate.weights import snap_node


class Walk:
    """The quantised network's tensors, computed node by node for all samples.

    Stored are the values before they are put on their grids: a layer may still move the grid it reads.
    """

    def __init__(self, graph: Graph, samples: SeenSamples, store: TensorStore):
        self._store, self._samples = store, samples
        self._shapes = tensor_shapes(graph)
        self._readers = {name: len(found) for name, found in graph.readers.items()}
        self._count = len(samples)
        self._next = 0
        self._grids: Mapping[str, Grid] = {}

    def advance_to(self, model: QuantizedModel, name: str) -> None:
        """Compute every node before `name`; what they compute with are the model's weights and grids."""
        self._grids = model.grids
        while model.nodes[self._next].name != name:
            self._run(model.nodes[self._next])
            self._next += 1

    def rows(self, layer: SampledLayer) -> np.ndarray:
        """[rows, groups, taps] of a layer's input, before it is put on its grid."""
        groups, taps, _ = layer.form.matrix_shape
        return self._gathered(layer, layer.form.node.inputs[0], layer.form.rows, (groups, taps))

    def outputs(self, layer: SampledLayer, name: str) -> np.ndarray:
        """[rows, groups, outputs] of a tensor shaped as the layer's output, on its grid."""
        groups, _, outputs = layer.form.matrix_shape
        return self._on_grid(name, self._gathered(layer, name, layer.outputs, (groups, outputs)))

    def _gathered(
        self,
        layer: SampledLayer,
        name: str,
        gather: Callable[[np.ndarray, np.ndarray], np.ndarray],
        shape: tuple[int, int],
    ) -> np.ndarray:
        """What `gather` takes from the stored tensor at the layer's positions: [rows, *shape]."""
        found = np.empty((layer.rows, *shape), np.float32)
        per_sample, step = layer.rows_per_sample, batch_size(self._shapes[name])
        for start in range(0, self._count, step):
            stop = min(start + step, self._count)
            values = self._store.read(name, start, stop)
            found[start * per_sample : stop * per_sample] = gather(values, layer.positions[start:stop])
        return found

    def _run(self, node: Node) -> None:
        step = batch_size(*(self._shapes[n] for n in (*node.inputs, node.name)))
        compute = None if node.kind == INPUT else node_function(snap_node(node))
        for start in range(0, self._count, step):
            stop = min(start + step, self._count)
            if compute is None:
                values = self._samples.part(node.name, start, stop).astype(node.config["dtype"])
            else:
                arguments = [tf.constant(self._on_grid(i, self._store.read(i, start, stop))) for i in node.inputs]
                values = compute(arguments).numpy()
            if not start:  # indices stay integers
                self._store.create(node.name, (self._count, *self._shapes[node.name]), str(values.dtype))
            self._store.write(node.name, start, values)
        for source in node.inputs:
            self._readers[source] -= 1
            if not self._readers[source]:
                self._store.release(source)

    def _on_grid(self, name: str, values: np.ndarray) -> np.ndarray:
        return on_grid(values, self._grids.get(name))
