"""A network computed node by node for all samples: a float graph, or a quantised model as its layers are reconstructed.

Nothing is built: a Keras model of the same nodes takes seconds to build and trace, a few samples a fraction of one.
What is computed is what `tfq.simulate.wrap` wraps: weights on their grids, every output put on its own by TensorFlow's
fake-quant. A tensor is kept until its last reader has run, in memory up to a limit and on disk beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfq.execution.views import Arrays
from tfq.grid import Grid
from tfq.models.equality import node_function, schedule, tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.operations.table import matrix_of
from tfq.simulate.quantizers import fake_quant, rounded_rows
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.weights import snap_node

_BATCH_BYTES, _LARGEST_BATCH = 2**26, 64

Compute = Callable[[Sequence[tf.Tensor]], tf.Tensor]


def batch_size(*shapes: tuple[int, ...]) -> int:
    """Samples to run at a time where tensors of these shapes are held.

    The same whatever the memory limit, so that it changes no bit of a result: they take no more than the least limit
    that a recipe may have.
    """
    size = 4 * sum(math.prod(shape) for shape in shapes)
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(size, 1)))


def deployed(node: Node) -> Compute:
    """What a node computes with its weights on their grids, and its float inputs rounded where its kernel does that."""
    compute = node_function(snap_node(node))
    matrix = matrix_of(node.kind)
    if matrix is None or not node.precision.is_dynamic:
        return compute
    whole = bool(matrix.window_axes)
    return lambda inputs: compute([rounded_rows(values, whole=whole) for values in inputs])


class Walk:
    """One pass through the nodes.

    Stored are the values before they are put on their grids: a layer may still move the grid it reads.
    """

    def __init__(
        self,
        graph: Graph,
        samples: Arrays,
        store: TensorStore,
        *,
        names: Sequence[str] | None = None,
        function_of: Callable[[Node], Compute] = deployed,
    ):
        """
        Args:
          graph: float or quantised; what is computed may be another with the same nodes.
          samples: arrays [n, ...] by input name.
          store: where the tensors go.
          names: as in `schedule`.
          function_of: gives what a node computes.
        """
        self._samples, self._store, self._function_of = samples, store, function_of
        self._shapes = tensor_shapes(graph)
        self._left = iter(schedule(graph, names))
        self._coming = next(self._left, None)
        self._grids: Mapping[str, Grid] = {}
        self.count = len(samples[graph.inputs[0]])

    def advance(self, graph: Graph, until: str | None = None) -> None:
        """Compute every node before `until`, or to the end, with the weights and grids that `graph` has."""
        self._grids = {node.name: node.grid for node in graph.nodes if node.grid is not None}
        while self._coming is not None and self._coming[0] != until:
            name, done = self._coming
            self._run(graph[name])
            for source in done:
                self._store.release(source)
            self._coming = next(self._left, None)

    def parts(self, *names: str) -> list[slice]:
        """All samples, as many at a time as may be held of these tensors."""
        step = batch_size(*(self._shapes[name] for name in names))
        return [slice(start, min(start + step, self.count)) for start in range(0, self.count, step)]

    def read(self, name: str, part: slice = slice(None), *, on_grid: bool = True) -> np.ndarray:
        """A tensor of some samples, before or after it is put on its grid."""
        values = self._store.read(name, part.start or 0, part.stop)
        return self._on_grid(name, values).numpy() if on_grid and name in self._grids else values

    def _run(self, node: Node) -> None:
        compute = None if node.kind == INPUT else self._function_of(node)
        for part in self.parts(*node.inputs, node.name):
            if compute is None:
                values = self._samples[node.name][part].astype(node.config["dtype"])
            else:
                arguments = [self._on_grid(i, self._store.read(i, part.start, part.stop)) for i in node.inputs]
                values = compute(arguments).numpy()
            if not part.start:  # indices stay integers
                self._store.create(node.name, (self.count, *self._shapes[node.name]), str(values.dtype))
            self._store.write(node.name, part.start, values)

    def _on_grid(self, name: str, values: np.ndarray) -> tf.Tensor:
        found, grid = tf.constant(values), self._grids.get(name)
        return found if grid is None else fake_quant(found, grid)
