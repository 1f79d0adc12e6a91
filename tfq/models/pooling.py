"""Average pooling as a depthwise convolution.

Inside the image the kernel 1 / (rows columns of the window) is all. Where a window reaches over the edge, Keras divides
by the pixels inside alone: the sum is multiplied with (rows columns) / (rows inside * columns inside), a factor for
each place. The factors stand on an 8-bit grid in the file. This form is used where all of them lie on it exactly, as
1, 3/2 and 9/4 of a window of 3 x 3 do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by

_LEVELS = 255


def as_convolution(node: Node, source: tuple[int, ...], target: tuple[int, ...]) -> list[Node] | None:
    """The nodes in place of an AveragePooling2D; None where its factors have no exact grid, or its strides differ.

    Args:
      source, target: shapes [rows, columns, channels] of what it reads and gives.
    """
    window = pair(node.config.get("pool_size", 2))
    strides = pair(node.config.get("strides") or window)
    padding = str(node.config.get("padding", "valid"))
    if strides[0] != strides[1]:  # which TensorFlow's depthwise convolution does not take
        both = _one_stride(source, target, window, strides, padding)
        if both is None:
            return None
        strides = both, both
    config = {"kernel_size": window, "strides": strides, "padding": padding, "use_bias": False}
    kernel = np.full((*window, source[-1], 1), 1 / math.prod(window), np.float32)
    weights = {"depthwise_kernel": kernel}
    rows, columns = (
        [Fraction(window[axis], n) for n in _inside(source[axis], target[axis], window[axis], strides[axis], padding)]
        for axis in (0, 1)
    )
    if max(*rows, *columns) == 1:
        return [node.replace(kind="DepthwiseConv2D", config=config, weights=weights)]
    unit = math.lcm(*(f.denominator for f in rows)) * math.lcm(*(f.denominator for f in columns))
    largest = int(max(rows) * max(columns) * unit)
    if largest > _LEVELS:
        return None
    convolution = made_by(node, "sum", "DepthwiseConv2D", node.inputs, config, weights)
    factors = {"rows": tuple(map(float, rows)), "columns": tuple(map(float, columns))}
    # the finest grid on which all factors lie
    places = factors | {"step": 1 / (unit * (_LEVELS // largest))}
    return [convolution, node.replace(kind="MultiplyPlaces", config=places, inputs=(convolution.name,))]


def place_factors(config: Mapping[str, Any]) -> np.ndarray:
    """float32 [rows, columns, 1]: what a MultiplyPlaces node multiplies each place with."""
    return np.outer(config["rows"], config["columns"])[..., None].astype(np.float32)


def pair(value: Any) -> tuple[int, int]:
    """An option of a layer as rows and columns: it is one number for both, or two."""
    found = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    return int(found[0]), int(found[1])


def _one_stride(
    source: tuple[int, ...], target: tuple[int, ...], window: tuple[int, int], strides: tuple[int, int], padding: str
) -> int | None:
    """A stride for both axes that gives the same windows, as there is where one of them has a single one; or None."""
    moving = [strides[axis] for axis in (0, 1) if target[axis] > 1] or [max(strides)]

    def places(axis: int) -> int:
        return -(-(source[axis] if padding == "same" else source[axis] - window[axis] + 1) // moving[0])

    fits = len(set(moving)) == 1 and all(places(axis) == target[axis] for axis in (0, 1))
    return moving[0] if fits else None


def _inside(size: int, count: int, window: int, stride: int, padding: str) -> list[int]:
    """How much of each of `count` windows lies inside an axis; TensorFlow pads the smaller half first."""
    before = max((count - 1) * stride + window - size, 0) // 2 if padding == "same" else 0
    starts = [position * stride - before for position in range(count)]
    return [min(start + window, size) - max(start, 0) for start in starts]
