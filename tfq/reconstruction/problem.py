"""What is given of one layer, and what a reconstruction method gives back.

    given     x_q  inputs as the quantised network computes them        [n, groups, taps]
              z    the float layer's output before its activation        [n, groups, outputs]
    wanted    q, s, b    with   f(Q(x_q) @ (s * q) + b)  ~  f(z)          q integers of b bits

f clamps: it is the fused activation, and the range of the grid that the output is put on. Range tuning cuts off what
the network does not go by; a fit to it would spoil the rest.

The error that decides, on rows that nothing is fitted to, those of the samples to choose by (`tfq.data.roles`), is

    e = sqrt(e_rows e_means),     e_rows  = sum |f(y) - f(z)|^2 / sum |f(z) - mean f(z)|^2     over rows
                                  e_means = the same of the means over the rows of every sample

Row by row, noise that later layers average away weighs as much as an error that all rows of a sample share. A fit that
trades the one for the other lowers e_rows and harms the network (docs/reconstruction.md). Where a sample has one row,
or rows are not told apart by samples, e is e_rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from tfq.grid import Grid
from tfq.numerics import reference
from tfq.numerics.codebook import Codes

_CHUNK = 4096
_AT_ONCE = 2**18  # numbers: those stay in the processor's cache, with all that is computed on the way

Limits = tuple[float, float]
"""The lowest and the highest value that a clamp lets through."""
UNLIMITED: Limits = (-math.inf, math.inf)
_ACTIVATIONS: Mapping[str | None, Limits] = {None: UNLIMITED, "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One layer to be reconstructed.

    Attributes:
      name: node name.
      inputs, targets: x before it is put on its grid, and z; float32 [n, groups, taps] and [n, groups, outputs].
      held_inputs, held_targets: the same of the rows to choose by.
      matrix, bias: float32 [groups, taps, outputs] and [groups, outputs]: where the search starts.
      limits: of f.
      bits: grid bits of the weights.
      narrow, codebook: of their grid (`tfq.grid.Grid`).
      samples: from which the rows come; those of one sample resemble each other.
      held_samples: from which the rows to choose by come, as many of each after another; 0: they are not told apart.
      scales: float64 [groups, outputs]: their present scales.
      tied: int [groups, outputs]: outputs with equal numbers share one scale.
      has_bias: False: the layer has none, and it stays zero.
      input_grid: grid of the inputs; None where they are float.
      offset, held_offset: what is added to the layer's output before the activation, as the quantised network
        computes it; shaped as the targets, which hold the float sum. None: nothing is.
      input_is_free: the method may move the input's range, which no other layer depends on.
      scales_are_given: the method may not choose others than the present ones.
      seed: of the run, the same for all layers; a method is given one more, which is the layer's own.
    """

    name: str
    inputs: np.ndarray
    targets: np.ndarray
    held_inputs: np.ndarray
    held_targets: np.ndarray
    matrix: np.ndarray
    bias: np.ndarray
    limits: Limits
    bits: int
    samples: int
    held_samples: int
    scales: np.ndarray
    tied: np.ndarray
    has_bias: bool
    input_grid: Grid | None
    input_is_free: bool = False
    scales_are_given: bool = False
    narrow: bool = False
    codebook: tuple[int, ...] = ()
    offset: np.ndarray | None = None
    held_offset: np.ndarray | None = None
    seed: int = 0

    @property
    def codes(self) -> Codes:
        """The integers that weights may become."""
        return Codes(*reference.integer_range(self.bits, symmetric=True, narrow=self.narrow), self.codebook)

    def quantized_inputs(self) -> np.ndarray:
        """Q(x): the inputs on their grid."""
        return on_grid(self.inputs, self.input_grid)

    def nearest(self, scales: np.ndarray | None = None) -> Solution:
        """The present weights rounded to the nearest codes."""
        used = self.scales if scales is None else scales
        codes = self.codes.nearest(self.matrix / used[:, None, :])
        return Solution(codes.astype(np.int8), used, self.bias, codebook=self.codebook)

    def error(self, solution: Solution) -> float:
        """Relative error of a solution on the rows to choose by."""
        return self.error_of(solution.matrix, solution.bias, solution.input_grid)

    def error_of(self, matrix: np.ndarray, bias: np.ndarray, input_grid: Grid | None = None) -> float:
        """The same of any weights float32 [groups, taps, outputs] and bias."""
        grid, errors = input_grid or self.input_grid, np.empty(self.held_targets.shape, np.float32)
        z = clamp(self.held_targets, self.limits)
        for start in range(0, len(errors), _CHUNK):
            part = slice(start, start + _CHUNK)
            y = product(on_grid(self.held_inputs[part], grid), matrix) + bias
            if self.held_offset is not None:
                y = y + self.held_offset[part]
            errors[part] = clamp(y, self.limits) - z[part]
        by_row = float(np.square(errors, dtype=np.float64).sum()) / signal(z)
        if not 1 < self.held_samples < len(errors):
            return by_row
        means, levels = (values.reshape(self.held_samples, -1, *z.shape[1:]).mean(1) for values in (errors, z))
        return math.sqrt(by_row * float(np.square(means, dtype=np.float64).sum()) / signal(levels))


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What a method found.

    Attributes:
      codes: int8 [groups, taps, outputs].
      scales, bias: float [groups, outputs].
      input_grid: new grid of the inputs, None where it stays.
      codebook: of which the codes are, where the grid has one.
    """

    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    input_grid: Grid | None = None
    codebook: tuple[int, ...] = ()

    @property
    def matrix(self) -> np.ndarray:
        """float32: the weights that the codes stand for."""
        return (self.codes * self.scales[:, None, :]).astype(np.float32)


def on_grid(values: np.ndarray, grid: Grid | None) -> np.ndarray:
    """`values` on a per-tensor grid, float32."""
    if grid is None:
        return values
    low, high = grid.integer_range
    found = np.empty_like(values, np.float32)
    step = max(1, _AT_ONCE // math.prod(values.shape[1:]))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        found[part] = reference.fake_quantize(values[part], grid.scale[0], grid.zero_point, low, high)
    return found


def product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[n, groups, taps] @ [groups, taps, outputs] -> [n, groups, outputs]."""
    if len(matrix) == 1:
        return (rows[:, 0] @ matrix[0])[:, None]
    return np.einsum("ngk,gkc->ngc", rows, matrix, optimize=True)


def limits_of(activation: str | None, grid: Grid | None = None) -> Limits:
    """Of a fused activation, and of the grid that its output is put on."""
    low, high = _ACTIVATIONS[activation]
    if grid is None:
        return low, high
    least, most = grid.real_range
    return max(low, least), min(high, most)


def clamp(values: np.ndarray, limits: Limits) -> np.ndarray:
    """`values` within limits."""
    return values if limits == UNLIMITED else np.clip(values, *limits)


def signal(values: np.ndarray) -> float:
    """Sum of squares about each channel's mean; that of a constant is taken as its size, so that it can divide."""
    spread = float(np.square(values - values.mean(0), dtype=np.float64).sum())
    return spread or float(np.square(values, dtype=np.float64).sum()) or 1.0


Method = Callable[[Problem, int], Solution]
"""Finds a solution for one problem and a seed; can be pickled."""
