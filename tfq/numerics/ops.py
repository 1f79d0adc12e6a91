"""The quantisers of `reference.py` as TensorFlow ops with straight-through gradients.

Equation: the value is that of `reference.fake_quantize`, to the bit. The gradient to x is 1 where x
lies within the grid's real range and 0 outside; scale and zero-point get none.
Source: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfq.numerics.reference import along_axis


def fake_quantize(
    x: tf.Tensor,
    scale: np.ndarray | float,
    zero_point: np.ndarray | int,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> tf.Tensor:
    """The nearest float32 values on the grid; `scale` and `zero_point` hold one value per channel of `axis`."""
    rank = len(x.shape)
    step = along_axis(np.asarray(scale, np.float32), rank, axis)
    zero = np.asarray(zero_point, np.float32)
    zero = along_axis(zero, rank, axis if zero.size > 1 else None)
    low, high = step * (np.float32(qmin) - zero), step * (np.float32(qmax) - zero)

    @tf.custom_gradient
    def straight_through(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        shifted = tf.clip_by_value(value, low, high) - low
        steps = shifted / step if axis is None else shifted * (np.float32(1) / step)
        codes = tf.floor(steps - (zero - np.float32(qmin)) + np.float32(0.5)) + zero
        inside = tf.logical_and(value >= low, value <= high)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where(inside, upstream, tf.zeros_like(upstream))

        return (tf.clip_by_value(codes, float(qmin), float(qmax)) - zero) * step, gradient

    return straight_through(tf.convert_to_tensor(x, tf.float32))
