"""The batch axis stays what it is when a program gives the input another batch size."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfq.export import flatbuffer


def free_batch(model: Any) -> None:
    """A reshape to [1, ...] takes as many samples as it reads: the file is made for one, a program may resize it."""
    for subgraph in model.subgraphs:
        operators = [(flatbuffer.operator_name(model, operator), operator) for operator in subgraph.operators]
        others = {int(i) for kind, operator in operators if kind != "RESHAPE" for i in operator.inputs}
        for kind, operator in operators:
            index = int(operator.inputs[1]) if kind == "RESHAPE" and len(operator.inputs) > 1 else -1
            if index < 0 or index in others or not flatbuffer.is_constant(model, subgraph.tensors[index]):
                continue
            tensor = subgraph.tensors[index]
            sizes = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32).copy()
            if sizes[:1] != [1] or (sizes < 1).any():
                continue
            sizes[0] = -1
            tensor.buffer = flatbuffer.add_buffer(model, sizes.tobytes())
            if getattr(operator.builtinOptions, "newShape", None) is not None:
                operator.builtinOptions.newShape = sizes
