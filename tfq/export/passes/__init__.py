"""The passes over a freshly converted file, in the order of `finish`; each in a file of its own.

float_runs     tensors between float operations lose the grids that the converter gave them
joined         a mean writes on its own grid, without a copy
requantize     the Requantize nodes become QUANTIZE operations
impose         every weight integer, bias integer, scale, zero-point and axis from the specification
float_weights  the weights of float layers are checked, those of float16 layers stored so
free_clamps    a clamp at 6 far above everything its output can hold is written as a clamp at 0 alone
set_edges      inputs and outputs of the element types the specification names
name_tensors   Keras layer names on every tensor, and a signature with the user's input/output names
share_buffers  constants of equal bytes are stored once; what nobody reads is dropped
"""

from __future__ import annotations

from tfq.export import flatbuffer
from tfq.export.binding import bind
from tfq.export.passes.buffers import share_buffers
from tfq.export.passes.clamps import free_clamps
from tfq.export.passes.edges import set_edges
from tfq.export.passes.float_runs import free_float_runs
from tfq.export.passes.float_weights import set_float_weights
from tfq.export.passes.impose import impose
from tfq.export.passes.joined import join_copies
from tfq.export.passes.names import name_tensors
from tfq.export.passes.requantize import requantize
from tfq.models.graph import Graph
from tfq.spec import QuantizationSpec


def finish(content: bytes, graph: Graph, spec: QuantizationSpec | None) -> bytes:
    """The converted file with all passes applied; `spec` None (a float file) skips `impose`.

    Raises:
      RuntimeError: the converter's result cannot carry the specification (named).
    """
    model = flatbuffer.parse(content)
    if spec is not None:
        free_float_runs(model, graph, spec)
        join_copies(model)
    binding = bind(model, graph)
    if spec is not None:
        binding = requantize(model, graph, binding)
        impose(model, graph, spec, binding)
        binding = set_float_weights(model, graph, spec, binding)
        free_clamps(model)
        binding = set_edges(model, spec, binding)
    name_tensors(model, graph, binding)
    share_buffers(model)
    return flatbuffer.serialize(model)
