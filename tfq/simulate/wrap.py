"""The prepared graph wrapped with tfmot: a Keras model that computes what the integer model will.

Weights and biases are put on their grids first (`snap`), then every int8 layer is wrapped in a tfmot
`QuantizeWrapperV2` with a `SpecQuantizeConfig`. A fused activation runs between the layer and the
output's fake-quant. Float layers stay unwrapped, those of float16 with their weights rounded to it; a float layer
that an int8 layer reads ends in a fake-quant, because TFLiteConverter leaves an operation in float when its input has
no grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from tfq.execution.progress import Progress, Silent
from tfq.models.graph import Graph, Node, build_model, make_layers
from tfq.simulate.quantizers import SpecQuantizeConfig
from tfq.simulate.weights import snap
from tfq.spec import QuantizationSpec, TensorQuantization


def with_input_grids(graph: Graph, spec: QuantizationSpec) -> tuple[Graph, dict[str, TensorQuantization]]:
    """The graph with an `Identity` node behind every quantised input, and the grids of all its tensors.

    A tfmot wrapper needs a layer to wrap, which an input is not.
    """
    renamed = {name: f"{name}.grid" for name in graph.inputs if name in spec.activations}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node.replace(inputs=tuple(renamed.get(i, i) for i in node.inputs)))
        if node.name in renamed:
            nodes.append(Node(renamed[node.name], "Identity", inputs=(node.name,), origin=node.origin))
    outputs = tuple(renamed.get(o, o) for o in graph.outputs)
    grids = {renamed.get(name, name): grid for name, grid in spec.activations.items()}
    return Graph(tuple(nodes), graph.inputs, outputs, graph.output_names), grids


def wrapped_layers(
    node: Node, weights: Mapping[str, TensorQuantization], output: TensorQuantization | None
) -> list[tf_keras.layers.Layer]:
    """The layers of one node; the first has its weights quantised, the last its output."""
    stack = make_layers(node)
    last = len(stack) - 1
    made = []
    for index, layer in enumerate(stack):
        config = SpecQuantizeConfig(weights if index == 0 else {}, output if index == last else None)
        quantizes = bool(config.weights) or config.output is not None
        made.append(QuantizeWrapperV2(layer, config, name=f"quant_{layer.name}") if quantizes else layer)
    return made


def build_simulation(
    graph: Graph, spec: QuantizationSpec, *, batch_size: int | None = None, outputs: Sequence[str] | None = None
) -> tf_keras.Model:
    """The simulation of the integer model, in float32.

    Args:
      graph: the prepared graph; weights need not lie on their grids yet.
      spec: its specification.
      batch_size, outputs: as in `tfq.models.graph.build_model`.
    """
    wrapped, grids = with_input_grids(snap(graph, spec), spec)
    # a bias lies on its grid already and TFLiteConverter gives it the scale s_input * s_kernel by itself
    weights = {x.name: {n: g for n, g in x.weights.items() if g.storage != "int32"} for x in spec.layers}
    if outputs is not None:
        outputs = [name if name in grids or name not in spec.activations else f"{name}.grid" for name in outputs]

    def make(node: Node) -> list[tf_keras.layers.Layer]:
        return wrapped_layers(node, weights.get(node.name, {}), grids.get(node.name))

    return build_model(wrapped, batch_size=batch_size, outputs=outputs, make=make)


def simulate(
    graph: Graph,
    spec: QuantizationSpec,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    total: int,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """The simulation's outputs [total, ...] by the model's output names.

    Args:
      graph, spec: as in `build_simulation`.
      batches: arrays [k, ...] by input name; `total` samples in all.
    """
    model = build_simulation(graph, spec, outputs=graph.outputs)
    parts: list[list[np.ndarray]] = []
    with (progress or Silent()).task("simulate", total) as advance:
        for batch in batches:
            found = model.predict_on_batch([batch[name] for name in graph.inputs])
            parts.append(found if isinstance(found, list) else [found])
            advance(len(parts[-1][0]))
    return {
        name: np.concatenate(arrays) for name, arrays in zip(graph.output_names, zip(*parts, strict=True), strict=True)
    }
