"""What a whole-model export by TFLiteConverter turned out to be: read back from the file, layer by layer."""

from __future__ import annotations

from typing import Any

from tfq.export import flatbuffer
from tfq.models.graph import INPUT, Graph
from tfq.models.operators import OPERATORS
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization

_WHY = {
    "float16": "`precision='float16'`: weights are stored in float16, the computation is float32",
    "dynamic_range": "`precision='dynamic_range'`: weights are int8, activations are quantised at run time",
    "int16x8": "`precision='int16x8'`: weights are int8, activations int16",
    "float32": "`precision='float32'`",
}


def plain_spec(content: bytes, graph: Graph, precision: str) -> QuantizationSpec:
    """The specification of a file that the converter quantised by itself.

    A layer whose weights the converter left in float32 although `precision` asks for fewer bits (it
    leaves small ones) is recorded as float32 with that reason.
    """
    model = flatbuffer.parse(content)
    tensors = {flatbuffer.text(t.name): t for t in model.subgraphs[0].tensors}
    activations = {}
    for node in graph.nodes:
        tensor = tensors.get(f"{node.name}/quantized") or tensors.get(node.name)
        if tensor is not None and flatbuffer.type_name(tensor) == "int16" and flatbuffer.scales(tensor).size == 1:
            scale, zero_point = float(flatbuffer.scales(tensor)[0]), int(flatbuffer.zero_points(tensor)[0])
            activations[node.name] = TensorQuantization((scale,), zero_point, 16, "int16", symmetric=False)

    def layer(name: str) -> LayerQuantization:
        node = graph[name]
        kernel = OPERATORS[node.kind].kernel
        stored = {flatbuffer.type_name(t) for label, t in tensors.items() if kernel and label == f"{name}/{kernel}"}
        found, reason = precision, _WHY[precision]
        if precision != "float32" and stored == {"float32"}:
            found, reason = "float32", f"TFLiteConverter left the weights of this layer in float32 ({_WHY[precision]})"
        grid = _kernel_grid(tensors.get(f"{name}/{kernel}"), OPERATORS[node.kind].channel_axis) if kernel else None
        weights = {kernel: grid} if grid is not None else {}
        return LayerQuantization(name, node.kind, found, node.inputs, name, weights, node.origin, reason)

    layers = tuple(layer(n.name) for n in graph.nodes if n.kind != INPUT)
    return QuantizationSpec(layers, activations, "float32", "float32")


def _kernel_grid(tensor: Any, channel_axis: int | None) -> TensorQuantization | None:
    """The grid of an int8 kernel, its channel axis in the Keras layout; None for a float one."""
    if tensor is None or flatbuffer.type_name(tensor) != "int8":
        return None
    scales = tuple(float(s) for s in flatbuffer.scales(tensor))
    return TensorQuantization(scales, 0, 8, "int8", symmetric=True, axis=channel_axis if len(scales) > 1 else None)
