"""What a whole-model export by TFLiteConverter turned out to be: read back from the file, layer by layer."""

from __future__ import annotations

from typing import Any

from tfq.export import flatbuffer
from tfq.grid import Grid
from tfq.models.graph import INPUT, Graph, Node
from tfq.operations.table import OPERATORS
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel

_WHY = {
    "float16": "`precision='float16'`: weights are stored in float16, the computation is float32",
    "dynamic_range": "`precision='dynamic_range'`: weights are int8, activations are quantised at run time",
    "int16x8": "`precision='int16x8'`: weights are int8, activations int16",
    "float32": "`precision='float32'`",
}


def plain_model(content: bytes, graph: Graph, arithmetic: str) -> QuantizedModel:
    """What a file that the converter quantised by itself says of its layers.

    A layer whose weights the converter left in float32 although `arithmetic` asks for fewer bits (it
    leaves small ones) is recorded as float32 with that reason.
    """
    file = flatbuffer.parse(content)
    tensors = {flatbuffer.text(t.name): t for t in file.subgraphs[0].tensors}

    def grid_of(name: str) -> Grid | None:
        tensor = tensors.get(f"{name}/quantized") or tensors.get(name)
        if tensor is None or flatbuffer.type_name(tensor) != "int16" or flatbuffer.scales(tensor).size != 1:
            return None
        scale, zero_point = float(flatbuffer.scales(tensor)[0]), int(flatbuffer.zero_points(tensor)[0])
        return Grid((scale,), zero_point, 16, "int16", symmetric=False)

    def decided(node: Node) -> Node:
        node = node.replace(grid=grid_of(node.name))
        if node.kind == INPUT:
            return node
        kernel = OPERATORS[node.kind].kernel
        held = tensors.get(f"{node.name}/{kernel}") if kernel else None
        found, reason = arithmetic, _WHY[arithmetic]
        if arithmetic != "float32" and held is not None and flatbuffer.type_name(held) == "float32":
            found, reason = "float32", f"TFLiteConverter left the weights of this layer in float32 ({_WHY[arithmetic]})"
        axis = OPERATORS[node.kind].channel_axis
        grid = _kernel_grid(held, axis)
        grids = {kernel: grid} if grid is not None else {}
        return node.replace(precision=Precision(found), reason=reason, weight_grids=grids)

    nodes = tuple(map(decided, graph.nodes))
    return QuantizedModel(nodes, graph.inputs, graph.outputs, graph.output_names, "float32", "float32")


def _kernel_grid(tensor: Any, channel_axis: int | None) -> Grid | None:
    """The grid of an int8 kernel, its channel axis in the Keras layout; None for a float one."""
    if tensor is None or flatbuffer.type_name(tensor) != "int8":
        return None
    scales = tuple(float(s) for s in flatbuffer.scales(tensor))
    return Grid(scales, 0, 8, "int8", symmetric=True, axis=channel_axis if len(scales) > 1 else None)
