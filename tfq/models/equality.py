"""Do two graphs compute the same function? And what shape does every tensor have?

Graphs are run eagerly, node by node, which costs a fraction of building a Keras model. The error of a
rewritten graph is max |y - y'| / max |y| over each output, in float32 on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfq.models.graph import INPUT, Graph, Node, assign_weights, call_layer, make_layers, once_per_structure
from tfq.operations.table import matrix_of

_SHAPE_WITHOUT_WEIGHTS = ("SeparableConv2D", "BatchNormalization")


def node_function(node: Node) -> Callable[[Sequence[tf.Tensor]], tf.Tensor]:
    """What `node` computes, to be called eagerly any number of times; its layers are built at the first call."""
    first, *rest = make_layers(node)
    ready = not node.weights

    def run(arguments: Sequence[tf.Tensor]) -> tf.Tensor:
        nonlocal ready
        if not ready:
            if len(arguments) == 1:
                first.build(arguments[0].shape)
            else:
                call_layer(first, [a[:1] for a in arguments])  # one sample, to build the variables
            assign_weights(first, node.weights)
            ready = True
        value = call_layer(first, arguments)
        for layer in rest:
            value = layer(value)
        return value

    return run


def schedule(graph: Graph, names: Sequence[str] | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """The nodes that `names` need, in order, each with the tensors that are not read again after it.

    Args:
      names: of tensors that are wanted, and not let go; None: every node is computed, and none kept.
    """
    needed = set(graph.by_name if names is None else names)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    left = {name: sum(reader in needed for reader in graph.readers[name]) for name in needed}
    found = []
    for node in graph.nodes:
        if node.name not in needed:
            continue
        for source in node.inputs:
            left[source] -= 1
        done = (source for source in dict.fromkeys(node.inputs) if not left[source] and source not in (names or ()))
        found.append((node.name, tuple(done)))
    return found


def run_graph(graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs, in its own order, for a batch of every input by node name (cast to the input's dtype)."""
    tensors: dict[str, tf.Tensor] = {}
    for name, done in schedule(graph, graph.outputs):
        node = graph[name]
        if node.kind == INPUT:
            tensors[name] = tf.constant(np.asarray(inputs[name], node.config["dtype"]))
        else:
            tensors[name] = node_function(node)([tensors[i] for i in node.inputs])
        for source in done:
            del tensors[source]
    return [tensors[name].numpy() for name in graph.outputs]


def _zeros(node: Node, arguments: list[tf.Tensor]) -> tf.Tensor:
    """Some tensor of the shape that the node gives; the usual layers with weights are not built for it."""
    if node.kind == "Carried":
        shape, dtype = node.config["work"].form
        return tf.zeros((1, *shape[1:]), dtype)
    layer = make_layers(node)[0]
    if node.kind in _SHAPE_WITHOUT_WEIGHTS or matrix_of(node.kind) is not None:
        return tf.zeros(layer.compute_output_shape(arguments[0].shape))
    return call_layer(layer, arguments)


@once_per_structure
def tensor_shapes(graph: Graph) -> Mapping[str, tuple[int, ...]]:
    """Node name -> shape of its output without the batch axis. The inputs' shapes must be fully known."""
    tensors: dict[str, tf.Tensor] = {}
    shapes = {}
    for node in graph.nodes:
        if node.kind == INPUT:
            tensors[node.name] = tf.zeros((1, *node.config["shape"]), node.config["dtype"])
        else:
            tensors[node.name] = _zeros(node, [tensors[i] for i in node.inputs])
        shapes[node.name] = tuple(tensors[node.name].shape[1:])
    return shapes


def random_inputs(inputs: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As many random samples as `inputs` has, uniform over the range of each input."""

    def draw(values: np.ndarray) -> np.ndarray:
        low, high = values.min(), values.max()
        if np.issubdtype(values.dtype, np.integer):
            return rng.integers(low, high, values.shape, values.dtype, endpoint=True)
        return rng.uniform(low, high, values.shape).astype(values.dtype)

    return {name: draw(values) for name, values in inputs.items()}


def relative_error(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """max |y - y'| / max |y| over every output, the worst of them; infinite where only one of the two is finite."""
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        finite = np.isfinite(a)
        peak = np.abs(a[finite]).max(initial=0.0)
        difference = np.abs(a[finite].astype(np.float64) - b[finite]).max(initial=0.0)
        worst = max(worst, float(difference / peak) if peak > 0 else float(difference))
    return worst
