"""Any .tflite layer by layer: operation, element types, grids, and its error against a float .tflite.

Tensors of the two files are matched by name; files that tfq wrote carry Keras layer names. Only
operations with the same output name and shape in both are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfq.evaluation.signals import finite_decibels
from tfq.evaluation.size import constant_bytes, grid_bits
from tfq.execution.interpreter import TfliteModel
from tfq.execution.tflite import integers, parse_tflite
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
    model = parse_tflite(content)
    return tuple(_operation(model, operator, content) for operator in model.subgraphs[0].operators)


def _operation(model: Any, operator: Any, content: bytes) -> Operation:
    tensors = model.subgraphs[0].tensors
    output = tensors[operator.outputs[0]]
    weight_dtype = weight_bits = channels = None
    for tensor in (tensors[index] for index in reversed(integers(operator.inputs)) if index >= 0):  # the first counts
        data, scales = constant_bytes(model.buffers[tensor.buffer], content), flatbuffer.scales(tensor)
        if len(data) and len(integers(tensor.shape)) > 1 and scales.size:
            weight_dtype, weight_bits = flatbuffer.type_name(tensor), grid_bits(data, tensor.type)
            channels = int(scales.size)
    kind, scales = flatbuffer.type_name(output), flatbuffer.scales(output)
    span = None
    if kind in ("int8", "uint8", "int16") and scales.size == 1:
        limits, zero_point = np.iinfo(kind), flatbuffer.zero_points(output)[0]
        span = (float(scales[0] * (limits.min - zero_point)), float(scales[0] * (limits.max - zero_point)))
    name, operation = flatbuffer.text(output.name), flatbuffer.operator_name(model, operator)
    return Operation(name, operation, kind, tuple(integers(output.shape)), weight_dtype, weight_bits, channels, span)


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
                found[name].append(value)
    errors = {}
    for name in shared:
        quantized, floats = (np.concatenate([np.atleast_1d(v) for v in found[name]]) for found in collected)
        if quantized.shape == floats.shape:
            signal = float(np.square(floats, dtype=np.float64).sum())
            errors[name] = finite_decibels(signal, float(np.square(floats.astype(np.float64) - quantized).sum()))
    return tuple(dataclasses.replace(o, sqnr_db=errors.get(o.name)) for o in listed)
