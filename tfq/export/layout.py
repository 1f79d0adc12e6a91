"""Kernels in TFLite's layout, and integers as the file holds them."""

from __future__ import annotations

import numpy as np

from tfq.grid import Grid
from tfq.operations.table import OPERATORS


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
    """Integers as the file holds them: little-endian; int4 two a byte, the first in the low nibble."""
    if storage != "int4":
        return codes.astype({"int8": "<i1", "int32": "<i4"}[storage]).tobytes()
    nibbles = codes.reshape(-1).astype(np.uint8) & 0x0F
    nibbles = np.pad(nibbles, (0, nibbles.size % 2))
    return (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
