"""Kernels in TFLite's layout, and integers as the file holds them."""

from __future__ import annotations

import numpy as np

from tfq.grid import Grid

# node kind -> (permutation Keras -> TFLite layout, channel axis there)
_LAYOUT = {
    "Conv2D": ((3, 0, 1, 2), 0),
    "Conv2DTranspose": ((2, 0, 1, 3), 0),
    "Dense": ((1, 0), 0),
    "Embedding": ((0, 1), None),
    "PReLU": ((0, 1, 2), None),
}


def tflite_layout(kind: str, values: np.ndarray) -> np.ndarray:
    """A kernel from the Keras layout to TFLite's."""
    if kind == "DepthwiseConv2D":  # [h, w, channels, multiplier] -> [1, h, w, channels * multiplier]
        return values.reshape(1, *values.shape[:2], -1)
    return np.transpose(values, _LAYOUT[kind][0])


def tflite_scales(kind: str, grid: Grid, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """(scales float32, channel axis) of a kernel in TFLite's layout; `shape` is the Keras one."""
    scales = np.asarray(grid.scale, np.float32)
    if kind == "DepthwiseConv2D":
        return (scales if grid.axis is None else np.repeat(scales, shape[-1])), 3
    axis = _LAYOUT[kind][1]
    return scales, 0 if axis is None else axis


def pack(codes: np.ndarray, storage: str) -> bytes:
    """Integers as the file holds them: little-endian; int4 two a byte, the first in the low nibble."""
    if storage != "int4":
        return codes.astype({"int8": "<i1", "int32": "<i4"}[storage]).tobytes()
    nibbles = codes.reshape(-1).astype(np.uint8) & 0x0F
    nibbles = np.pad(nibbles, (0, nibbles.size % 2))
    return (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
