"""The flat graph: what every model becomes after loading, and what every later stop reads.

A `Graph` is a list of `Node`s in topological order. A node is one call of one layer and has exactly
one output tensor, which carries the node's name. Transformations are pure functions Graph -> Graph;
`build_model` turns a graph into a tf_keras functional model. Only what makes layers imports tf_keras: the tables of
layers and operators are read before anybody does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfq.grid import Grid
from tfq.precision import FLOAT32, Precision

if TYPE_CHECKING:
    import tf_keras

INPUT = "Input"
_STRUCTURE = "_structure"  # where a graph keeps what is known of its structure
_G = TypeVar("_G", bound="Graph")
_T = TypeVar("_T")
_ACTIVATION_LIMIT = {"relu": None, "relu6": 6.0}


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of one layer.

    Attributes:
      name: unique in the graph; also the name of the output tensor. Reports call it so.
      kind: "Input", or the class name of a layer in `tf_keras.layers` or `tfq.models.layers`.
      config: keyword arguments of that class, without name, dtype, initialisers, regularisers and
        constraints. For "Input": {"shape": tuple without the batch axis, "dtype": str}.
      inputs: names of the nodes whose outputs it reads, in call order.
      weights: arrays by their Keras variable name ("kernel", "bias", "depthwise_kernel", ...).
      activation: clamp fused onto the output, "relu" or "relu6"; no tensor is quantised before it.
      origin: names, as the user wrote them, of the Keras layers this node stands for.
      group: nodes that call the same Keras layer share this name; they must keep equal weights.
      precision, reason: what was decided for it, and why it is not int8 where it is not. A node of a graph that is not
        quantised is float32, for no reason.
      grid: of its output; None for a float tensor.
      weight_grids: of every quantised weight and bias, by variable name; empty in float layers.
    """

    name: str
    kind: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    weights: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    activation: str | None = None
    origin: tuple[str, ...] = ()
    group: str = ""
    precision: Precision = FLOAT32
    reason: str = ""
    grid: Grid | None = None
    weight_grids: Mapping[str, Grid] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.origin:
            object.__setattr__(self, "origin", (self.name,))
        if not self.group:
            object.__setattr__(self, "group", self.name)

    def replace(self, **changes: Any) -> Node:
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes in topological order; `inputs` and `outputs` are node names in the model's own order.

    `output_names` are the names the user's model gives its outputs (default: the node names).
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.output_names:
            object.__setattr__(self, "output_names", self.outputs)
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise ValueError(f"two nodes are called {node.name!r}")
            missing = [i for i in node.inputs if i not in seen]
            if missing:
                raise ValueError(f"node {node.name!r} reads {missing}, which no earlier node writes")
            seen.add(node.name)
        unknown = [n for n in (*self.inputs, *self.outputs) if n not in seen]
        if unknown:
            raise ValueError(f"the graph's inputs or outputs name unknown nodes {unknown}")

    def __getstate__(self) -> dict[str, Any]:
        """Without what is remembered of it, which another process finds out anew."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @functools.cached_property
    def readers(self) -> Mapping[str, Sequence[str]]:
        """Node name -> names of the nodes that read it (once per read)."""
        readers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for source in node.inputs:
                readers[source].append(node.name)
        return readers

    def with_nodes(self: _G, *nodes: Node) -> _G:
        """The graph with these nodes in place of those of the same names."""
        new = {node.name: node for node in nodes}
        made = dataclasses.replace(self, nodes=tuple(new.get(node.name, node) for node in self.nodes))
        return share_structure(made, self)

    def replace_nodes(self: _G, nodes: Sequence[Node], renamed: Mapping[str, str] | None = None) -> _G:
        """The graph over `nodes`; `renamed` maps removed node names to those that stand in for them."""
        renamed = renamed or {}

        def follow(name: str) -> str:
            while name in renamed:
                name = renamed[name]
            return name

        nodes = [n.replace(inputs=tuple(follow(i) for i in n.inputs)) for n in nodes]
        return dataclasses.replace(self, nodes=tuple(nodes), outputs=tuple(follow(o) for o in self.outputs))


def once_per_structure(function: Callable[[Graph], _T]) -> Callable[[Graph], _T]:
    """`function` of the structure of a graph, computed once for all graphs that share it.

    The structure is names, kinds, configurations, inputs and groups of the nodes, not their weights, nor what was
    decided for them. Nobody may change what it gives.
    """

    @functools.wraps(function)
    def known(graph: Graph) -> _T:
        cache = vars(graph).setdefault(_STRUCTURE, {})
        if function not in cache:
            cache[function] = function(graph)
        return cache[function]

    return known


def _place(node: Node) -> tuple[Any, ...]:
    return node.name, node.kind, node.inputs, node.group


def share_structure(graph: _G, other: Graph) -> _G:
    """`graph`, which takes over what is known of the structure of `other` where it is the same."""

    def same(a: Node, b: Node) -> bool:
        return a is b or (a.config is b.config and _place(a) == _place(b))

    ends = (graph.inputs, graph.outputs) == (other.inputs, other.outputs) and len(graph.nodes) == len(other.nodes)
    if ends and all(map(same, graph.nodes, other.nodes)):
        vars(graph)[_STRUCTURE] = vars(other).setdefault(_STRUCTURE, {})
    return graph


def layer_class(kind: str) -> type[tf_keras.layers.Layer]:
    """The class a node kind names: tfq's own layers first, then tf_keras'."""
    import tf_keras

    from tfq.models import layers

    return getattr(layers, kind, None) or getattr(tf_keras.layers, kind)


def make_layers(node: Node) -> list[tf_keras.layers.Layer]:
    """The Keras layers that compute `node`, to be called one after the other; without weights yet."""
    made = [layer_class(node.kind)(**node.config, name=node.name)]
    if node.activation is not None:
        made.append(layer_class("ReLU")(_ACTIVATION_LIMIT[node.activation], name=f"{node.name}/{node.activation}"))
    return made


def variable_name(variable: Any) -> str:
    """'scope/kernel:0' -> 'kernel'."""
    return variable.name.split("/")[-1].split(":")[0]


def variable_names(layer: tf_keras.layers.Layer) -> list[str]:
    """Names of the layer's variables, in Keras' order; "query/kernel" where "kernel" alone would name two of them."""
    if layer_class("Carried") is type(layer):
        return list(layer.weight_names)
    short = [variable_name(v) for v in layer.weights]
    if len(set(short)) == len(short):
        return short
    return ["/".join(v.name.split(":")[0].split("/")[-2:]) for v in layer.weights]


def assign_weights(layer: tf_keras.layers.Layer, weights: Mapping[str, np.ndarray]) -> None:
    """Put `weights` (by variable name) into a built layer, or into the one that a tfmot wrapper holds."""
    import tf_keras

    own = dict(zip(variable_names(layer), layer.weights, strict=True))
    wrapped = hasattr(layer, "quantize_config")  # a wrapper adds bookkeeping variables of its own
    if not set(weights) <= set(own) or (len(own) != len(weights) and not wrapped):
        raise ValueError(f"layer {layer.name!r} has the variables {sorted(own)}, got {sorted(weights)}")
    tf_keras.backend.batch_set_value([(own[name], value) for name, value in weights.items()])


def call_layer(layer: tf_keras.layers.Layer, arguments: Sequence[Any]) -> Any:
    """The layer's output for its input tensors, symbolic or eager."""
    if isinstance(layer, layer_class("MultiHeadAttention")):  # takes its tensors as separate arguments
        return layer(*arguments)
    return layer(arguments[0] if len(arguments) == 1 else list(arguments))


def output_shape(
    kind: str, config: Mapping[str, Any], inputs: Sequence[tuple[Sequence[int | None], str]]
) -> tuple[int | None, ...]:
    """Shape, with the batch axis, of what a layer gives for tensors of these shapes and dtypes."""
    import tf_keras

    symbols = [tf_keras.Input(batch_shape=shape, dtype=dtype) for shape, dtype in inputs]
    return tuple(call_layer(layer_class(kind)(**config), symbols).shape)


def build_model(
    graph: Graph,
    *,
    batch_size: int | None = None,
    outputs: Sequence[str] | None = None,
    make: Callable[[Node], Sequence[tf_keras.layers.Layer]] = make_layers,
) -> tf_keras.Model:
    """The graph as a tf_keras functional model.

    Args:
      graph: the graph.
      batch_size: fixed batch size, or None for any.
      outputs: node names to expose (default: the graph's own outputs). With `outputs` given the
        model always returns a list, one array per name.
      make: makes the layers of one node; the simulation passes one that wraps them. The first
        layer returned must hold the node's weights.
    """
    import tensorflow as tf
    import tf_keras

    @tf.autograph.experimental.do_not_convert  # no layer has conditions on values, and to look for them takes seconds
    def output(stack: Sequence[tf_keras.layers.Layer], arguments: Sequence[Any]) -> Any:
        value = call_layer(stack[0], arguments)
        for layer in stack[1:]:
            value = layer(value)
        return value

    tensors: dict[str, Any] = {}
    for node in graph.nodes:
        if node.kind == INPUT:
            tensors[node.name] = tf_keras.Input(
                batch_size=batch_size, name=node.name, shape=tuple(node.config["shape"]), dtype=node.config["dtype"]
            )
        else:
            stack = make(node)
            tensors[node.name] = output(stack, [tensors[i] for i in node.inputs])
            if node.weights:
                assign_weights(stack[0], node.weights)
    exposed = [tensors[name] for name in (graph.outputs if outputs is None else outputs)]
    single = outputs is None and len(exposed) == 1
    return tf_keras.Model([tensors[i] for i in graph.inputs], exposed[0] if single else exposed)
