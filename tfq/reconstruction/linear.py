"""A weighted layer as the matrix product it is, at sampled positions of its output (im2col).

    y[n, g, c] = sum_k x[n, g, k] * w[g, k, c] + b[g, c]

What g, k and c are for a layer, `tfq.operations.matrix` says.

A row n is one output position of one sample. Rows are gathered at the sampled positions alone, so that a
layer costs the same at 112x112 as at 7x7. Positions outside the input, and the zeros between the inputs
of a transposed convolution, are rows of 0.0, as padding is.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfq.models.graph import Node
from tfq.operations.matrix import Matrix
from tfq.operations.table import OPERATORS


@dataclasses.dataclass(frozen=True)
class LinearForm:
    """How the rows of one layer are gathered.

    Attributes:
      node: the layer.
      input_shape, output_shape: of its tensors, without the batch axis.
    """

    node: Node
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def kernel_name(self) -> str:
        return OPERATORS[self.node.kind].kernel

    @property
    def positions(self) -> int:
        """Output positions of one sample."""
        return math.prod(self.output_shape[:-1])

    @property
    def row_size(self) -> int:
        """Numbers in one row: groups x taps."""
        groups, taps, _ = self.matrix_shape
        return groups * taps

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(groups, taps, outputs)."""
        return self._matrix.shape(self._kernel_shape)

    @property
    def is_depthwise(self) -> bool:
        return self._matrix.is_depthwise

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel in the Keras layout as [groups, taps, outputs]."""
        return self._matrix.of(kernel)

    def kernel(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`."""
        return self._matrix.kernel(matrix, self._kernel_shape)

    @property
    def _matrix(self) -> Matrix:
        found = OPERATORS[self.node.kind].matrix
        assert found is not None
        return found

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        return self.node.weights[self.kernel_name].shape

    def sample_positions(self, samples: int, per_sample: int, rng: np.random.Generator) -> np.ndarray:
        """Output positions [samples, min(per_sample, positions)], drawn for each sample without replacement."""
        count = min(per_sample, self.positions)
        if count == self.positions:
            return np.tile(np.arange(count), (samples, 1))
        return np.stack([rng.choice(self.positions, count, replace=False) for _ in range(samples)])

    def rows(self, inputs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """[n * p, groups, taps] at `positions` [n, p] of the samples `inputs` [n, *input_shape]."""
        samples = np.arange(len(inputs))[:, None]
        groups, taps, _ = self.matrix_shape
        if not self._matrix.window_axes:
            flat = inputs.reshape(len(inputs), -1, inputs.shape[-1])
            return flat[samples, positions].reshape(-1, 1, taps)
        vertical, horizontal = (self._taps(axis) for axis in (0, 1))
        row, column = np.divmod(positions, self.output_shape[1])
        padded = np.pad(inputs, ((0, 0), (0, 1), (0, 1), (0, 0)))  # index `size` reads zeros
        y, x = vertical[row][:, :, :, None], horizontal[column][:, :, None, :]
        found = padded[samples[:, :, None, None], y, x]  # [n, p, kernel height, kernel width, channels]
        if self._matrix.is_depthwise:
            return found.reshape(-1, taps, groups).transpose(0, 2, 1)
        return found.reshape(-1, 1, taps)

    def _taps(self, axis: int) -> np.ndarray:
        """[output size, kernel size]: the input index that each tap reads; the input's size where it reads nothing."""
        config = self.node.config
        size, out = self.input_shape[axis], self.output_shape[axis]
        kernel = self._kernel_shape[axis]
        stride, dilation = (_pair(config.get(name, 1))[axis] for name in ("strides", "dilation_rate"))
        position, tap = np.arange(out)[:, None], np.arange(kernel)[None]
        same = config.get("padding", "valid") == "same"
        if self._matrix.transposed:
            before = max((size - 1) * stride + kernel - out, 0) // 2 if same else 0
            index, remainder = np.divmod(position + before - tap, stride)
            outside = remainder != 0
        else:
            before = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2 if same else 0
            index = position * stride + tap * dilation - before
            outside = np.zeros_like(index, bool)
        return np.where(outside | (index < 0) | (index >= size), size, index)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
