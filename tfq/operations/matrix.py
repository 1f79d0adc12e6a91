"""The kernel of a weighted layer as the matrix product it is, told by the letters of its axes.

    y[n, g, o] = sum_k x[n, g, k] * w[g, k, o]           n: output positions

    letter   axis                                         in the product
    h, w     rows and columns of the window               part of k
    i        input channels                               part of k
    o        output channels                              o
    c        channels that are input and output at once   g
    m        outputs of every such channel                o

So a Conv2D has the axes "hwio", a transposed one "hwoi", a Dense layer "io", a depthwise convolution "hwcm". Everything
that depends on the layout of a kernel follows from these letters.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_GROUPS, _TAPS, _OUTPUTS = "c", "hwi", "om"


@dataclasses.dataclass(frozen=True)
class Matrix:
    """How a kernel multiplies.

    Attributes:
      axes: a letter for every axis of the kernel in the Keras layout, as above.
      transposed: every input position, not every output position, meets all of the window.
      packs: TFLite runs it with INT4 weights.
      carried_per_tensor: TensorFlow has no per-channel fake-quant for it: TFLiteConverter turns the matrix round.
      stored_in_int8: TFLiteConverter stores the kernel in int8 even where the layer is float.
    """

    axes: str
    transposed: bool = False
    packs: bool = False
    carried_per_tensor: bool = False
    stored_in_int8: bool = False

    @property
    def channel_axis(self) -> int:
        """Of the output channels: the axis of the scales."""
        return next(self.axes.index(letter) for letter in "oc" if letter in self.axes)

    @property
    def input_axis(self) -> int:
        """Of the input channels."""
        return next(self.axes.index(letter) for letter in "ic" if letter in self.axes)

    @property
    def window_axes(self) -> tuple[int, ...]:
        """Of the rows and columns."""
        return self._places("hw")

    @property
    def is_depthwise(self) -> bool:
        """Every channel is convolved by itself."""
        return "c" in self.axes

    def shape(self, kernel: tuple[int, ...]) -> tuple[int, int, int]:
        """(groups, taps, outputs) of a kernel of this shape."""
        groups, taps, outputs = (math.prod(kernel[axis] for axis in part) for part in self._parts)
        return groups, taps, outputs

    def of(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel as [groups, taps, outputs]."""
        return kernel.transpose(self._order).reshape(self.shape(kernel.shape))

    def kernel(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of `of`: a kernel of this shape."""
        return matrix.reshape([shape[axis] for axis in self._order]).transpose(np.argsort(self._order))

    def along_outputs(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """One value for each output channel of a layer, to be broadcast against its kernel of this shape."""
        places = self._places("ocm")
        return values.reshape([shape[axis] if axis in places else 1 for axis in range(len(shape))])

    def along_inputs(self, values: np.ndarray) -> np.ndarray:
        """One value for each input channel, likewise."""
        return values.reshape([-1 if axis == self.input_axis else 1 for axis in range(len(self.axes))])

    def of_outputs(self, kernel: np.ndarray) -> np.ndarray:
        """[channels, weights]: the weights of every output channel of a layer."""
        places = self._places("ocm")
        count = math.prod(kernel.shape[axis] for axis in places)
        return np.moveaxis(kernel, places, range(len(places))).reshape(count, -1)

    def of_inputs(self, kernel: np.ndarray) -> np.ndarray:
        """[channels, weights]: those that meet every input channel."""
        return np.moveaxis(kernel, self.input_axis, 0).reshape(kernel.shape[self.input_axis], -1)

    def through(self, kernel: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What an input that has one value for each of its channels everywhere gives, by output channel."""
        taps = kernel.sum(axis=self.window_axes)
        if self.is_depthwise:
            return (taps * values[:, None]).ravel()
        return values @ taps if self.input_axis < self.channel_axis else taps @ values

    def tflite(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel in the layout of a .tflite: [o, h, w, i], of a depthwise convolution [1, h, w, c * m]."""
        if self.is_depthwise:
            return kernel.reshape(1, *kernel.shape[:2], -1)
        return kernel.transpose([self.axes.index(letter) for letter in "ohwi" if letter in self.axes])

    @property
    def tflite_axis(self) -> int:
        """Of the output channels there."""
        return 3 if self.is_depthwise else 0

    def _places(self, letters: str) -> tuple[int, ...]:
        return tuple(axis for axis, letter in enumerate(self.axes) if letter in letters)

    @property
    def _parts(self) -> tuple[tuple[int, ...], ...]:
        return self._places(_GROUPS), self._places(_TAPS), self._places(_OUTPUTS)

    @property
    def _order(self) -> tuple[int, ...]:
        return sum(self._parts, ())
