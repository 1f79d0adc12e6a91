"""The quantised model wrapped with tfmot: a Keras model that computes what the integer model will.

Weights and biases are put on their grids first (`snap`), then every int8 layer is wrapped in a tfmot
`QuantizeWrapperV2` with a `SpecQuantizeConfig`. A fused activation runs between the layer and the
output's fake-quant. Float layers stay unwrapped, those of float16 with their weights rounded to it; a float layer
that an int8 layer reads ends in a fake-quant, because TFLiteConverter leaves an operation in float when its input has
no grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from tfq.models.graph import Node, build_model, make_layers
from tfq.precision import INT8
from tfq.quantized_model import QuantizedModel
from tfq.simulate.quantizers import SpecQuantizeConfig
from tfq.simulate.weights import snap


def with_input_grids(model: QuantizedModel) -> tuple[QuantizedModel, Mapping[str, str]]:
    """(the model with an `Identity` node behind every quantised input, which has its grid, names of those nodes).

    A tfmot wrapper needs a layer to wrap, which an input is not.
    """
    renamed = {name: f"{name}.grid" for name in model.inputs if model[name].grid is not None}
    nodes: list[Node] = []
    for node in model.nodes:
        nodes.append(node.replace(inputs=tuple(renamed.get(i, i) for i in node.inputs)))
        if node.name in renamed:
            nodes[-1] = nodes[-1].replace(grid=None)
            behind = Node(renamed[node.name], "Identity", inputs=(node.name,), origin=node.origin, precision=INT8)
            nodes.append(behind.replace(grid=node.grid))
    outputs = tuple(renamed.get(output, output) for output in model.outputs)
    return dataclasses.replace(model, nodes=tuple(nodes), outputs=outputs), renamed


def wrapped_layers(node: Node) -> list[tf_keras.layers.Layer]:
    """The layers of one node; the first has its weights quantised, the last its output."""
    stack = make_layers(node)
    last = len(stack) - 1
    # a bias lies on its grid already and TFLiteConverter gives it the scale s_input * s_kernel by itself
    weights = {name: grid for name, grid in node.weight_grids.items() if name != "bias"}
    made = []
    for index, layer in enumerate(stack):
        config = SpecQuantizeConfig(weights if index == 0 else {}, node.grid if index == last else None)
        quantizes = bool(config.weights) or config.output is not None
        made.append(QuantizeWrapperV2(layer, config, name=f"quant_{layer.name}") if quantizes else layer)
    return made


def build_simulation(
    model: QuantizedModel, *, batch_size: int | None = None, outputs: Sequence[str] | None = None
) -> tf_keras.Model:
    """The simulation of the integer model, in float32.

    Args:
      model: its weights need not lie on their grids yet.
      batch_size, outputs: as in `tfq.models.graph.build_model`.
    """
    wrapped, renamed = with_input_grids(snap(model))
    if outputs is not None:
        outputs = [renamed.get(name, name) for name in outputs]
    return build_model(wrapped, batch_size=batch_size, outputs=outputs, make=wrapped_layers)
