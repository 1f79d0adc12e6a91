"""Kernels in TFLite's layout, and integers as the file holds them."""

from __future__ import annotations

import numpy as np

from tfq.grid import Grid
from tfq.operations.table import OPERATORS

_PACKED_BITS = {"int4": 4, "int2": 2}


def tflite_layout(kind: str, values: np.ndarray) -> np.ndarray:
    """A kernel from the Keras layout to TFLite's."""
    matrix = OPERATORS[kind].matrix
    return values if matrix is None else matrix.tflite(values)


def tflite_scales(kind: str, grid: Grid, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """(scales float32, channel axis) of a kernel in TFLite's layout; `shape` is the Keras one."""
    matrix, scales = OPERATORS[kind].matrix, np.asarray(grid.scale, np.float32)
    if matrix is None:
        return scales, 0
    if matrix.is_depthwise and grid.axis is not None:
        scales = np.repeat(scales, shape[-1])
    return scales, matrix.tflite_axis


def pack(codes: np.ndarray, storage: str) -> bytes:
    """Integers as the file holds them: little-endian; int4 two a byte, int2 four, the first in the lowest bits."""
    if storage not in _PACKED_BITS:
        return codes.astype({"int8": "<i1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}[storage]).tobytes()
    bits = _PACKED_BITS[storage]
    each = 8 // bits
    parts = codes.reshape(-1).astype(np.uint8) & (2**bits - 1)
    parts = np.pad(parts, (0, -parts.size % each)).reshape(-1, each)
    return np.bitwise_or.reduce(parts << (bits * np.arange(each, dtype=np.uint8)), axis=1).astype(np.uint8).tobytes()
