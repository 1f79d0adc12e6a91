"""Layers that tf_keras lacks and that a flat graph needs: one small class per operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.models.carried import Work
from tfq.models.functions import FUNCTIONS
from tfq.models.pooling import place_factors


class Affine(tf_keras.layers.Layer):
    """y = x * scale + offset, with weights "scale" and "offset" of shape [channels] on the last axis."""

    def build(self, input_shape: Any) -> None:
        channels = int(input_shape[-1])
        self.scale = self.add_weight("scale", shape=(channels,), initializer="ones")
        self.offset = self.add_weight("offset", shape=(channels,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale + self.offset


class FloatAffine(Affine):
    """An Affine that is computed in float32 and folded into no other layer."""


class AddConstant(tf_keras.layers.Layer):
    """x + constant, one number.

    It is a tensor of one axis here and in MultiplyConstant: TFLiteConverter knows hard-swish by its numbers without.
    """

    def __init__(self, constant: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.constant = constant

    def call(self, inputs: Any) -> Any:
        return inputs + tf.constant([self.constant], inputs.dtype)


class MultiplyConstant(tf_keras.layers.Layer):
    """x * constant, one number."""

    def __init__(self, constant: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.constant = constant

    def call(self, inputs: Any) -> Any:
        return inputs * tf.constant([self.constant], inputs.dtype)


class MultiplyPlaces(tf_keras.layers.Layer):
    """x * rows[i] * columns[j] at row i and column j; the file has these on a grid of this step."""

    def __init__(self, rows: Sequence[float], columns: Sequence[float], step: float, **kwargs: Any):  # noqa: ARG002
        super().__init__(**kwargs)
        self.factors = place_factors({"rows": rows, "columns": columns})

    def call(self, inputs: Any) -> Any:
        return inputs * self.factors


class FloatConcatenate(tf_keras.layers.Concatenate):
    """A Concatenate that is computed in float32."""


class Sigmoid(tf_keras.layers.Layer):
    """1 / (1 + exp(-x))."""

    def call(self, inputs: Any) -> Any:
        return tf.math.sigmoid(inputs)


class FloatSigmoid(Sigmoid):
    """A Sigmoid that is computed in float32."""


class Tanh(tf_keras.layers.Layer):
    """tanh(x)."""

    def call(self, inputs: Any) -> Any:
        return tf.math.tanh(inputs)


class HardSwish(tf_keras.layers.Layer):
    """x * relu6(x + 3) / 6, in the form that TFLiteConverter turns into one HARD_SWISH."""

    def call(self, inputs: Any) -> Any:
        return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


class Gelu(tf_keras.layers.Layer):
    """x * Phi(x), or its tanh approximation; TFLite's GELU."""

    def __init__(self, approximate: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.approximate = approximate

    def call(self, inputs: Any) -> Any:
        return tf.nn.gelu(inputs, approximate=self.approximate)


class FloatGelu(Gelu):
    """A Gelu that is computed in float32."""


class FloatSoftmax(tf_keras.layers.Softmax):
    """A Softmax that is computed in float32."""


class Unary(tf_keras.layers.Layer):
    """Any other element-wise function, or log-softmax, by its name in `tf.math` or `tf.nn` ("exp", "rsqrt", ...)."""

    def __init__(self, function: str, **kwargs: Any):
        super().__init__(**kwargs)
        named = getattr(tf.math, function, None) or getattr(tf.nn, function)
        self.function = FUNCTIONS.get(function, named)

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


class Divide(tf_keras.layers.Layer):
    """a / b, element by element."""

    def call(self, inputs: Any) -> Any:
        return tf.math.divide(inputs[0], inputs[1])


class Carried(tf_keras.layers.Layer):
    """What tfq has no rule for, as its library has it (`tfq.models.carried`)."""

    def __init__(self, work: Work, **kwargs: Any):
        super().__init__(**kwargs, autocast=False)
        self.work = work
        self.weight_names = list(work.variables)
        self._non_trainable_weights.extend(work.variables.values())

    def call(self, inputs: Any) -> Any:
        # a new tensor, without the mask that Keras sets beside some: what reads a mask is given one
        return tf.identity(self.work(inputs if isinstance(inputs, (list, tuple)) else [inputs]))


class Cast(tf_keras.layers.Layer):
    """x as int32, what lies behind the point cut off: what an Embedding does to numbers of another type."""

    def call(self, inputs: Any) -> Any:
        return tf.cast(inputs, tf.int32)


class MatMul(tf_keras.layers.Layer):
    """a @ b over the last two axes, either of them transposed on request."""

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.transpose_a, self.transpose_b = transpose_a, transpose_b

    def call(self, inputs: Any) -> Any:
        return tf.linalg.matmul(inputs[0], inputs[1], transpose_a=self.transpose_a, transpose_b=self.transpose_b)


class Mean(tf_keras.layers.Layer):
    """Mean over `axes` (counted with the batch axis 0, which must not be among them)."""

    def __init__(self, axes: Sequence[int], keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.axes, self.keepdims = tuple(axes), keepdims

    def call(self, inputs: Any) -> Any:
        return tf.reduce_mean(inputs, self.axes, keepdims=self.keepdims)


class Slice(tf_keras.layers.Layer):
    """x[:, begin[0]:end[0]:strides[0], ...]: one triple for every axis but the batch; None as in Python."""

    def __init__(
        self, begin: Sequence[int | None], end: Sequence[int | None], strides: Sequence[int | None], **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.slices = tuple(slice(*triple) for triple in zip(begin, end, strides, strict=True))

    def call(self, inputs: Any) -> Any:
        return inputs[(slice(None), *self.slices)]


class Resizing(tf_keras.layers.Resizing):
    """tf_keras' layer, which takes pixels as squares with their values in the middle, and two older ways.

    Place y of the output (of n, from m pixels) is read at:
      centres   (y + 1/2) m / n - 1/2
      corners   y (m - 1) / (n - 1)
      edges     y m / n
    """

    def __init__(
        self, height: int, width: int, interpolation: str = "bilinear", aligned: str = "centres", **kwargs: Any
    ):
        super().__init__(height, width, interpolation, **kwargs)
        self.aligned = aligned

    def call(self, inputs: Any) -> Any:
        if self.aligned == "centres":
            return super().call(inputs)
        resize = tf.raw_ops.ResizeBilinear if self.interpolation == "bilinear" else tf.raw_ops.ResizeNearestNeighbor
        corners = self.aligned == "corners"
        return resize(images=inputs, size=[self.height, self.width], align_corners=corners, half_pixel_centers=False)


class Identity(tf_keras.layers.Layer):
    """The identity; TFLiteConverter removes it."""

    def call(self, inputs: Any) -> Any:
        return tf.identity(inputs)


class Requantize(tf_keras.layers.Layer):
    """The identity; its output has a grid of its own.

    TFLiteConverter drops an identity together with its grid, but keeps a LeakyReLU whose slope is the
    float next to 1, which `tfq.export.passes` turns into a QUANTIZE. Behind a float operation it also
    keeps the converter from computing that operation in int8, or from quantising in front of a reshape.
    """

    def call(self, inputs: Any) -> Any:
        return tf.nn.leaky_relu(inputs, alpha=float(np.nextafter(np.float32(1), np.float32(0))))


class LayerNormalization(tf_keras.layers.LayerNormalization):
    """tf_keras' layer, computed from mean and variance: its own fused form transposes twice when converted."""

    def call(self, inputs: Any) -> Any:
        # a sum, because the converter would compute a MEAN of quantised inputs in int8, on their grid
        size = float(np.prod([inputs.shape[axis] for axis in self.axis]))
        mean = tf.reduce_sum(inputs, self.axis, keepdims=True) * (1.0 / size)
        variance = tf.reduce_mean(tf.math.squared_difference(inputs, mean), self.axis, keepdims=True)
        normalized = (inputs - mean) * tf.math.rsqrt(variance + self.epsilon)
        shape = [size if axis in self.axis else 1 for axis, size in enumerate(inputs.shape)]
        if self.scale:
            normalized *= tf.reshape(self.gamma, shape)
        return normalized + tf.reshape(self.beta, shape) if self.center else normalized
