"""The grid of one tensor: the real values that it can hold, and the integers that stand for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.numerics import reference
from tfq.numerics.codebook import Codes

STORAGE_RANGE = {
    "int2": (-2, 1),
    "int4": (-8, 7),
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_MOST_BITS = 40  # of a bias
_BITS, _WIDE_BITS = 8, 16
_FIXED_WIDE = 2.0**-15  # of outputs whose grid TFLite prescribes: from -1 to 1
_HEADROOM = 4  # the range of 8 bits may cut off what is rare; 14 bits are left for it


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of one tensor: real = scale * (integer - zero_point).

    Attributes:
      scale: one value, or one per channel of `axis`; float32 values.
      zero_point: the integer that stands for 0.0; 0 for weights and biases.
      bits: grid bits: the integers lie on at most 2**bits levels.
      storage: integer type that holds them in the file: "int2", "int4", "int8", "int16", "int32" or "int64".
      symmetric: True for weights: zero-point 0, and of 8 bits no -128 (`reference.integer_range`).
      axis: channel axis of `scale` in the *Keras* layout, None for per-tensor.
      narrow: the lowest integer of a symmetric grid stays unused, of fewer bits too.
      entropy_bits: of a coarse 8-bit grid: its scale, one for all channels, was chosen for codes of about this
        entropy (`tfq.numerics.entropy`), and stays. 0: of any other grid.
      codebook: the integers that are used, in rising order, where not all are (`tfq.numerics.codebook`).
    """

    scale: tuple[float, ...]
    zero_point: int
    bits: int
    storage: str
    symmetric: bool
    axis: int | None = None
    entropy_bits: int = 0
    narrow: bool = False
    codebook: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.storage not in STORAGE_RANGE:
            raise ValueError(f"storage (={self.storage!r}) must be one of {', '.join(STORAGE_RANGE)}")
        if not 1 <= self.bits <= _MOST_BITS:
            raise ValueError(f"bits (={self.bits}) must be 1 to {_MOST_BITS}")
        if not self.scale or not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise ValueError(f"scales must be finite and above 0, got {self.scale[:4]}")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError(f"{len(self.scale)} scales without a channel axis")
        low, high = self.integer_range
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero_point (={self.zero_point}) lies outside [{low}, {high}]")
        if self.codebook and not (self.symmetric and low <= self.codebook[0] and self.codebook[-1] <= high):
            raise ValueError(f"codebook {self.codebook} lies outside [{low}, {high}] of a grid of weights")
        if list(self.codebook) != sorted(set(self.codebook)):
            raise ValueError(f"codebook {self.codebook} must be in rising order")

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest integer of the grid, both included."""
        return reference.integer_range(self.bits, symmetric=self.symmetric, narrow=self.narrow)

    @property
    def codes(self) -> Codes:
        """The integers that weights may become."""
        return Codes(*self.integer_range, self.codebook)

    @property
    def real_range(self) -> tuple[float, float]:
        """Smallest and largest real value of a per-tensor grid."""
        low, high = self.integer_range
        return self.scale[0] * (low - self.zero_point), self.scale[0] * (high - self.zero_point)

    @property
    def is_wide(self) -> bool:
        """Of an int16 activation."""
        return self.storage == "int16"


def wide_grid(grid: Grid, *, prescribed: bool = False) -> Grid:
    """The int16 grid of a tensor that has the 8-bit `grid` where 8 bits hold it: symmetric, as its kernels demand.

    prescribed: TFLite prescribes it, in either type.
    """
    if prescribed:
        return _wide(_FIXED_WIDE)
    reach = _HEADROOM * max(-grid.real_range[0], grid.real_range[1])
    return _wide(float(reference.activation_scale(reach / STORAGE_RANGE["int16"][1], _WIDE_BITS)))


def copied_wide(grid: Grid) -> Grid:
    """The int16 grid that holds every value of an activation's grid: 128 steps for one of 8 bits."""
    return grid if grid.is_wide else _wide(grid.scale[0] / 2 ** (_BITS - 1))


def _wide(scale: float) -> Grid:
    return Grid((scale,), 0, _WIDE_BITS, "int16", symmetric=False)


def activation_grid(scale: float, zero_point: int, bits: int = 8) -> Grid:
    """An asymmetric per-tensor grid."""
    return Grid((float(np.float32(scale)),), int(zero_point), bits, "int8", symmetric=False)
