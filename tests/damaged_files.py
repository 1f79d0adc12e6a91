"""Exported files of varied models, and how a test damages one: what the tests of verification share."""

import functools

import flatbuffers
import numpy as np
import operator_graphs
from ai_edge_litert import schema_py_generated as schema

from tfq.precision import FLOAT16, FLOAT32, Precision

CASES = ("square", "packed", "per_tensor", "clusters", "mixed", "floats", "uint8", *operator_graphs.ALL)


@functools.cache
def case(name):
    graphs = operator_graphs
    if name == "square":
        return graphs.exported(graphs.square())
    if name == "packed":
        return graphs.exported(graphs.square(), Precision(weight_bits=4, storage="packed"))
    if name == "clusters":
        return graphs.exported(graphs.square(), Precision(clusters=4))
    if name == "per_tensor":
        return graphs.exported(graphs.shared(), per_channel=False)
    if name == "mixed":
        precisions = {"conv": FLOAT16, "transposed": FLOAT16, "right": FLOAT32, "third": FLOAT32}
        return graphs.exported(graphs.square(), precisions)
    if name == "floats":
        return graphs.exported(graphs.square(), {"left": FLOAT32}, input_type="float32", output_type="float32")
    if name == "uint8":
        return graphs.case("shared", "uint8", "uint8")
    return graphs.case(name)


class File:
    """A parsed file, to be damaged."""

    def __init__(self, content):
        self.model = schema.ModelT.InitFromPackedBuf(content, 0)
        self.graph = self.model.subgraphs[0]
        for holder in (*self.graph.operators, self.graph):  # parsed arrays are views of the bytes
            holder.inputs, holder.outputs = np.array(holder.inputs), np.array(holder.outputs)
        for grid in (t.quantization for t in self.graph.tensors if t.quantization is not None):
            if grid.scale is not None:
                grid.scale, grid.zeroPoint = np.array(grid.scale), np.array(grid.zeroPoint)

    @property
    def content(self):
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def index(self, name):
        return [t.name.decode() for t in self.graph.tensors].index(name)

    def tensor(self, name):
        return self.graph.tensors[self.index(name)]

    def operator(self, output):
        return next(o for o in self.graph.operators if o.outputs[0] == self.index(output))

    def options(self, output):
        return self.operator(output).builtinOptions

    def array(self, name, dtype=None):
        """The elements of a constant, in a buffer of its own, to be changed in place."""
        tensor = self.tensor(name)
        types = {schema.TensorType.INT8: "<i1", schema.TensorType.INT32: "<i4", schema.TensorType.FLOAT32: "<f4"}
        types |= {schema.TensorType.FLOAT16: "<f2", schema.TensorType.INT4: "u1"}
        buffer = schema.BufferT()
        buffer.data = np.array(self.model.buffers[tensor.buffer].data, np.uint8)
        tensor.buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)
        values = buffer.data.view(dtype or types[tensor.type])
        return values if tensor.type == schema.TensorType.INT4 else values.reshape(tensor.shape)
