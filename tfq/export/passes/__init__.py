"""The passes over a freshly converted file, in the order of `finish`.

free_float_runs    tensors between float operations lose the grids that the converter gave them
join_copies        a mean writes on its own grid, without a copy
requantize         the Requantize nodes become QUANTIZE operations
impose             every weight integer, bias integer, scale, zero-point and axis from the quantised model
set_float_weights  the weights of float layers are checked, those of float16 layers stored so
set_dynamic_range  integer weights among float activations, and the kernels that read them
widen              int16 activations, in a file of 8 bits
free_clamps        a clamp at 6 far above everything its output can hold is written as a clamp at 0 alone
clamp_by_grids     a clamp of integers at the ends of a grid is written as a change of grid
set_edges          inputs and outputs of the element types the quantised model names
free_batch         reshapes take any number of samples
name_tensors       Keras layer names on every tensor, and a signature with the user's input/output names
share_buffers      constants of equal bytes are stored once; what nobody reads is dropped
"""

from __future__ import annotations

from tfq.export import flatbuffer
from tfq.export.binding import bind
from tfq.export.narrow import narrowed
from tfq.export.passes.batch import free_batch
from tfq.export.passes.buffers import share_buffers
from tfq.export.passes.dynamic_range import set_dynamic_range
from tfq.export.passes.edges import set_edges
from tfq.export.passes.float_weights import set_float_weights
from tfq.export.passes.impose import impose
from tfq.export.passes.names import name_tensors
from tfq.export.passes.operations import (
    clamp_by_grids,
    free_clamps,
    free_float_runs,
    join_copies,
    requantize,
)
from tfq.export.passes.wide import widen
from tfq.models.graph import Graph
from tfq.quantized_model import QuantizedModel


def finish(content: bytes, graph: Graph) -> bytes:
    """The converted file with all passes applied; those that quantise only for a `QuantizedModel`.

    Raises:
      RuntimeError: the converter's result cannot carry the model (named).
    """
    file = flatbuffer.parse(content)
    if isinstance(graph, QuantizedModel):
        narrow = narrowed(graph)
        free_float_runs(file, narrow)
        join_copies(file)
        binding = requantize(file, narrow, bind(file, narrow))
        impose(file, narrow, binding)
        binding = set_float_weights(file, narrow, binding)
        binding = set_dynamic_range(file, narrow, binding)
        binding = widen(file, graph, narrow, binding)
        free_clamps(file)
        clamp_by_grids(file)
        binding = set_edges(file, graph, binding)
    else:
        binding = bind(file, graph)
    free_batch(file)
    name_tensors(file, graph, binding)
    share_buffers(file)
    return flatbuffer.serialize(file)
