"""TFLiteConverter driven by the wrapped model and the representative dataset.

The converted graph carries opaque identifiers ("tfq0007") in its layer names, so that every operation
of the file can be traced to its node whatever the converter fused; `tfq.export.binding` reads them.

What the converter cannot do by itself is done afterwards by `tfq.export.passes`: TensorFlow refuses
per-channel fake-quant on the weights of dense layers and transposed convolutions (their matrices are transposed
on the way), so these travel on a per-tensor grid and receive their own integers and scales in the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.errors import UserError
from tfq.execution.terminal import silenced
from tfq.export.narrow import narrowed
from tfq.export.scales import require_runnable
from tfq.grid import Grid
from tfq.models.graph import Graph, Node, build_model
from tfq.models.rewrite import unmoved
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import snap_node
from tfq.simulate.wrap import build_simulation

RepresentativeDataset = Callable[[], Iterator[Mapping[str, np.ndarray]]]  # arrays with a batch axis of 1, by input name
_G = TypeVar("_G", bound=Graph)
_UNKNOWN = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")
IDENTIFIER = re.compile(r"tfq\d{4,}")


def identifiers(graph: Graph) -> dict[str, str]:
    """Node name -> the name it has during conversion."""
    return {node.name: f"tfq{index:04d}" for index, node in enumerate(graph.nodes)}


def rename(graph: _G, names: Mapping[str, str]) -> _G:
    """The same graph with its nodes called by `names`."""
    nodes = [n.replace(name=names[n.name], inputs=tuple(names[i] for i in n.inputs)) for n in graph.nodes]
    inputs, outputs = (tuple(names[end] for end in ends) for ends in (graph.inputs, graph.outputs))
    return dataclasses.replace(graph, nodes=tuple(nodes), inputs=inputs, outputs=outputs)


def without_requantize(graph: Graph) -> Graph:
    """The graph without its `Requantize` nodes: in float they only copy."""
    removed = {n.name: n.inputs[0] for n in graph.nodes if n.kind == "Requantize"}
    return graph.replace_nodes([n for n in graph.nodes if n.name not in removed], removed)


def carried(model: QuantizedModel) -> QuantizedModel:
    """The model with per-tensor weights where the converter takes no others, and as floats beside float activations."""

    def grid_of(node: Node, name: str, grid: Grid) -> Grid:
        matrix = OPERATORS[node.kind].matrix
        if name == "bias" or matrix is None:
            return grid
        several_per_channel = matrix.is_depthwise and node.weights[name].shape[-1] > 1
        if not (matrix.carried_per_tensor or several_per_channel):
            return grid
        return dataclasses.replace(grid, scale=(max(grid.scale),), axis=None)

    def as_carried(node: Node) -> Node:
        if node.precision.is_dynamic:  # the integers come in the passes
            return snap_node(node).replace(weight_grids={})
        # a PReLU whose slopes carry a fake-quant stays float; the converter quantises them by itself
        return node.replace(
            weight_grids={n: grid_of(node, n, grid) for n, grid in node.weight_grids.items() if n != "alpha"}
        )

    return model.with_nodes(*map(as_carried, model.layers))


def with_barriers(model: QuantizedModel) -> QuantizedModel:
    """The model with a Requantize node behind every float layer whose output has a grid, and in front of some.

    The converter computes a layer in int8, weights and all, as soon as what it reads and what it writes have grids.
    The barrier takes the layer's name and grid; the layer itself is called `<name>.float`.
    A layer without int8 form may become several operations, some of which the converter would compute in int8 as
    soon as what they read has a grid (comparisons, maxima, log-softmax): there the layer reads a float copy. A carried
    layer has both, with a grid or without: the converter would make one of it and its neighbours. Of two matrices with
    nothing between them it would move the bias of the first into that of the second.
    """
    chained = _chained(model)

    def is_carried(name: str) -> bool:
        return model[name].kind == "Carried" and model[name].config["work"].form[1] == "float32"

    floats = {
        n.name: f"{n.name}.float"
        for n in model.layers
        if not n.precision.is_int8 and (n.grid is not None or is_carried(n.name) or n.name in chained)
    }
    nodes: list[Node] = []
    for node in model.nodes:
        if node.kind in OPERATORS and OPERATORS[node.kind].output == "float":
            reads = node.config["work"].reads if node.kind == "Carried" else ("",) * len(node.inputs)
            front = {
                s: f"{node.name}.front{i}"
                for i, (s, dtype) in enumerate(zip(node.inputs, reads, strict=True))
                if s in model.grids or dtype == "float32"
            }
            nodes += [Node(name, "Requantize", inputs=(s,), origin=node.origin) for s, name in front.items()]
            node = node.replace(inputs=tuple(front.get(s, s) for s in node.inputs))
        if node.name in floats:
            behind = Node(node.name, "Requantize", inputs=(floats[node.name],), origin=node.origin, grid=node.grid)
            nodes += [node.replace(name=floats[node.name], grid=None), behind]
        else:
            nodes.append(node)
    return model.replace_nodes(nodes)


def _chained(model: QuantizedModel) -> set[str]:
    """Float layers with a bias that others multiply without anything but moves in between."""
    found = set()
    for node in model.layers:
        if not is_weighted(node) or node.precision.is_int8:
            continue
        source = model[unmoved(model, node.inputs[0])[-1]]
        if is_weighted(source) and "bias" in source.weights and source.activation is None:
            found.add(source.name)
    return found


def convert_quantized(model: QuantizedModel, representative_dataset: RepresentativeDataset) -> bytes:
    """The converter's .tflite of the wrapped model, batch size 1, inputs and outputs float32, before any pass.

    Args:
      model: the quantised model.
      representative_dataset: yields one batch-1 array per input name. It is passed on only when every
        layer is int8: with it, the converter would silently quantise the layers that must stay float.

    Raises:
      UserError: scales that no runtime takes.
      ValueError: an activation of fewer than 8 bits, which can be simulated only.
    """
    few = [f"{name!r} ({grid.bits} bits)" for name, grid in model.grids.items() if grid.bits < 8]
    if few:
        raise ValueError(f"TFLite has no kernels for activations of fewer than 8 bits: {', '.join(few)}")
    model = narrowed(model)
    require_runnable(model)
    names = identifiers(model)
    renamed = rename(carried(model), names)
    simulation = build_simulation(with_barriers(renamed), batch_size=1)

    def configure(converter: Any) -> None:
        if model.grids:  # without a single fake-quant the converter would store the weights of floats in int8
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if all(node.precision.is_int8 for node in model.layers):
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = _as_taken(representative_dataset, model, names)

    return _convert(simulation, renamed, configure)


def convert_plain(graph: Graph, precision: str, representative_dataset: RepresentativeDataset) -> bytes:
    """A whole-model export by the converter's own means, batch size 1: what TFLite does unaided.

    Args:
      graph: the prepared graph, weights in float32.
      precision: "float32", "float16" (weights in float16), "dynamic_range" (weights int8, activations
        float32) or "int16x8" (weights int8, activations int16).
      representative_dataset: used for "int16x8" alone.
    """
    names = identifiers(graph)
    renamed = rename(without_requantize(graph), names)
    model = build_model(renamed, batch_size=1)

    def configure(converter: Any) -> None:
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int16x8":
            int16x8 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [int16x8, tf.lite.OpsSet.TFLITE_BUILTINS]
            converter.representative_dataset = _as_taken(representative_dataset, graph, names)

    return _convert(model, renamed, configure)


def _as_taken(dataset: RepresentativeDataset, graph: Graph, names: Mapping[str, str]) -> RepresentativeDataset:
    """The dataset in the graph's input types and the converter's names: no order of inputs can be guessed wrong."""

    def taken(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {names[n]: np.asarray(array, graph[n].config["dtype"]) for n, array in sample.items()}

    return lambda: map(taken, dataset())


def _convert(model: tf_keras.Model, graph: Graph, configure: Callable[[Any], None]) -> bytes:
    """Run the converter, silently.

    The model goes through a SavedModel whose signature is stated here: `from_keras_model` writes one or
    not, depending on what the model's layers are, and without one inputs and outputs have no names.
    """
    signature = [tf.TensorSpec((1, *graph[n].config["shape"]), graph[n].config["dtype"], name=n) for n in graph.inputs]

    @tf.function(input_signature=signature, autograph=False)
    def serve(*inputs: Any) -> dict[str, Any]:
        outputs = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {name: tf.identity(output) for name, output in zip(graph.outputs, outputs, strict=True)}

    module = tf.Module()
    module.held = model.variables
    with tempfile.TemporaryDirectory() as directory, silenced(), _own_garbage(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tf.saved_model.save(module, directory, signatures=serve.get_concrete_function())
            converter = tf.lite.TFLiteConverter.from_saved_model(directory)
            configure(converter)
            return converter.convert()
        except Exception as error:
            _refuse_unknown(str(error), graph)
            reason = next((line for line in str(error).splitlines() if "error:" in line), str(error)[:500])
            raise RuntimeError(f"TFLiteConverter failed: {reason.strip()}") from error


@contextlib.contextmanager
def _own_garbage() -> Iterator[None]:
    """Meanwhile only objects that are made meanwhile are searched for garbage.

    The converter searches once in every run. Of all objects of a program that takes half a second and more, as long as
    the conversion of a small model.
    """
    if gc.get_freeze_count():  # what is put aside already is the caller's affair, and stays so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _refuse_unknown(message: str, graph: Graph) -> None:
    """Raise UserError where the converter failed for an operation that TFLite does not have: only carried nodes can."""
    for line in filter(_UNKNOWN.search, message.splitlines()):
        names = {node.name: node for node in graph.nodes if node.kind == "Carried"}
        node = next((names[found] for found in IDENTIFIER.findall(line) if found in names), None)
        if node is not None:
            raise UserError(
                f"layer {node.origin[0]!r} ({node.config['work'].name}) cannot be taken: TFLite has no builtin"
                f" operation for its {_UNKNOWN.findall(line)[0]}; replace it by operations that TFLiteConverter takes"
            ) from None
