"""Any .tflite layer by layer: operation, element types, grids, and its error against a float .tflite.

Tensors of the two files are matched by name; files that tfq wrote carry Keras layer names. Only
operations with the same output name and shape in both are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfq.evaluation.layers import sqnr
from tfq.execution.interpreter import TfliteModel
from tfq.execution.tflite import parse_tflite
from tfq.export import flatbuffer


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a .tflite.

    Attributes:
      name: of its first output tensor.
      kind: "CONV_2D" and the like.
      dtype, shape: of that output.
      weight_dtype, weight_bits, channels: element type, grid bits and number of scales of its weights;
        None without.
      range: smallest and largest value the output's grid can hold; None for float.
      sqnr_db: of the output against the float model's; None where not measured.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    weight_dtype: str | None
    weight_bits: int | None
    channels: int | None
    range: tuple[float, float] | None
    sqnr_db: float | None = None


def operations(content: bytes) -> tuple[Operation, ...]:
    """All operations in order of execution. Raises UserError for a broken file."""
    parse_tflite(content)
    model = flatbuffer.parse(content)
    subgraph = model.subgraphs[0]
    for tensor in subgraph.tensors:
        tensor.shape = () if tensor.shape is None else tensor.shape  # the file of a scalar may leave it out
    for operator in subgraph.operators:
        operator.inputs = () if operator.inputs is None else operator.inputs
    return tuple(_operation(model, subgraph, operator) for operator in subgraph.operators)


def _operation(model: Any, subgraph: Any, operator: Any) -> Operation:
    output = subgraph.tensors[operator.outputs[0]]
    inputs = [subgraph.tensors[i] for i in operator.inputs if i >= 0]
    weights = [t for t in inputs if flatbuffer.is_constant(model, t) and len(t.shape) > 1 and flatbuffer.scales(t).size]
    weight_dtype, weight_bits, channels = _weights(model, weights[0]) if weights else (None, None, None)
    scales, zero_points = flatbuffer.scales(output), flatbuffer.zero_points(output)
    limits = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}.get(flatbuffer.type_name(output))
    span = None
    if limits and scales.size == 1:
        low, high = (float(scales[0] * (limit - zero_points[0])) for limit in limits)
        span = (low, high)
    return Operation(
        flatbuffer.text(output.name),
        flatbuffer.operator_name(model, operator),
        flatbuffer.type_name(output),
        tuple(int(n) for n in output.shape),
        weight_dtype,
        weight_bits,
        channels,
        span,
    )


def _weights(model: Any, tensor: Any) -> tuple[str, int, int]:
    """(element type, grid bits, number of scales) of a quantised constant."""
    kind = flatbuffer.type_name(tensor)
    bits = 4
    if kind == "int8":
        largest = int(np.abs(np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8).astype(int)).max())
        bits = 1 + largest.bit_length() if largest else 1
    return kind, min(bits, 8), int(flatbuffer.scales(tensor).size)


def compare_operations(
    content: bytes, float_content: bytes, samples: Mapping[str, np.ndarray]
) -> tuple[Operation, ...]:
    """`operations(content)` with the SQNR of every output that `float_content` has too.

    Args:
      samples: arrays [n, ...] by input name; a few suffice.
    """
    models = [TfliteModel(c, delegate=False, preserve_all=True) for c in (content, float_content)]
    listed = operations(content)
    shared = [o.name for o in listed if o.name in {t.name for t in models[1].all_tensors}]
    count = len(next(iter(samples.values())))
    collected: list[dict[str, list[np.ndarray]]] = [{name: [] for name in shared} for _ in models]
    for i in range(count):
        for model, found in zip(models, collected, strict=True):
            model.run({name: array[i : i + 1] for name, array in samples.items()})
            for name, value in model.tensors(shared).items():
                found[str(name)].append(value.real)
    errors = {}
    for name in shared:
        quantized, floats = (np.concatenate([np.atleast_1d(v) for v in found[name]]) for found in collected)
        if quantized.shape == floats.shape:
            errors[name] = sqnr(floats, quantized)
    return tuple(dataclasses.replace(o, sqnr_db=errors.get(o.name)) for o in listed)
