"""How large a model is: on the device, over the air, and per weight.

    file bytes      what the device stores and maps
    download bytes  the file deflated (`tfq.execution.deflate`): what a download costs; its .gz is 12 bytes longer
    activations     bytes that a run needs at once beside the file, at the most, with a batch of 1
    weight bits     mean over all weights of the grid bits: those of the smallest signed integer that holds them all,
                    so 4 for integers in [-8, 7] even where they are stored in 8 bits

Weights are the constants with two axes or more of a float or small integer type: kernels and
embeddings; biases, shapes and paddings are not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq.execution.deflate import deflated
from tfq.execution.tflite import BITS, arena_bytes, parse_tflite, read_content

_FLOAT32, _BOOL = schema.TensorType.FLOAT32, schema.TensorType.BOOL
_STORED_BITS = {kind: bits for kind, bits in BITS.items() if kind == _FLOAT32 or (bits <= 16 and kind != _BOOL)}

_MOST_CLUSTERS, _OFTEN = 32, 8  # integers of a codebook, and how often each is used at least on average


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of one .tflite; `weights` is their number, the bits are means over them (0.0 without weights)."""

    file_bytes: int
    download_bytes: int
    weights: int
    stored_weight_bits: float
    weight_bits: float
    activation_bytes: int


def measure_size(model: bytes | Path) -> Size:
    """Sizes of a .tflite, given as bytes or as a path. Raises UserError for a broken file."""
    content = read_content(model)
    parsed = parse_tflite(content)
    weights, stored, used = 0, 0, 0
    seen: set[int] = set()
    for tensor in (tensor for graph in parsed.subgraphs for tensor in graph.tensors):
        data = constant_bytes(parsed.buffers[tensor.buffer], content)
        axes = 0 if tensor.shape is None else len(tensor.shape)
        if tensor.buffer in seen or not len(data) or tensor.type not in _STORED_BITS or axes < 2:
            continue
        seen.add(tensor.buffer)
        count = int(np.prod(tensor.shape))
        weights += count
        stored += count * _STORED_BITS[tensor.type]
        used += count * grid_bits(data, tensor.type)
    bits = (stored / weights, used / weights) if weights else (0.0, 0.0)
    return Size(len(content), len(deflated(content)), weights, *bits, arena_bytes(parsed))


def constant_bytes(buffer: schema.BufferT, content: bytes) -> np.ndarray:
    """Bytes of a constant; those of a file over 2 GB lie behind the flatbuffer."""
    if buffer.data is not None:
        return np.asarray(buffer.data, np.uint8)
    return np.frombuffer(content, np.uint8, buffer.size if buffer.offset > 1 else 0, buffer.offset)


def grid_bits(data: np.ndarray, tensor_type: int) -> int:
    """Bits of the smallest signed integer that holds every element; the stored bits for other types."""
    if tensor_type == schema.TensorType.INT4:
        nibbles = np.concatenate([data & 15, data >> 4]).astype(np.int64)
        values = np.where(nibbles > 7, nibbles - 16, nibbles)
    elif tensor_type == schema.TensorType.INT8:
        values = data.view(np.int8).astype(np.int64)
    else:
        return _STORED_BITS[tensor_type]
    used = len(np.unique(values))
    if used <= _MOST_CLUSTERS and len(values) >= _OFTEN * used:  # those of a codebook need not lie side by side
        return max(1, (used - 1).bit_length())
    lowest, highest = int(values.min()), int(values.max())
    return 1 + max(highest.bit_length(), (~lowest).bit_length() if lowest < 0 else 0)
