"""What a layer can be: how its weights are stored and on how many levels they lie, how it computes.

    w2 ... w8               weights on a grid of that many bits, stored as int8; activations int8
    e1 ... e5               weights on an 8-bit grid so coarse that an ideal code takes that many bits for one of them;
                            one scale for the layer, so that a download holds less than with w2 ... w5
                            of the same error
    c2, c4 ... c32          weights are that many of the integers of an 8-bit grid, the same in all of the layer
    w2-packed ... w4-packed those of w2 ... w4 stored as INT4 tensors
    w4a4                    what the layer reads lies on 4 bits too: simulated only
    w4a16, w8a16            weights on a grid of that many bits, activations int16
    d2 ... d8               weights on a grid of that many bits, stored as INT4 or INT2 tensors where TFLite runs these;
                            activations float32, which the kernel quantises row by row at run time (dynamic range)
    float16, float32        the layer computes in float32; its weights are stored in that type

A `Precision` is the only encoding of these: the recipe names it, allocation chooses among them, every node of a
`tfq.quantized_model.QuantizedModel` carries one, costs and reports read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfq.errors import UserError

ARITHMETICS = ("int8", "float32", "float16", "dynamic_range", "int16x8")
STORED_BITS = 8  # of an int8 tensor
MOST_PACKED_BITS = 4  # of an INT4 tensor
SIMULATED_ACTIVATION_BITS = 4  # of precisions that TFLite cannot run
WIDE_BITS = 16  # of the activations of int16x8
FLOAT_BITS = 32  # of the computation, wherever the weights are stored


@dataclasses.dataclass(frozen=True, order=True)
class Precision:
    """A precision of a layer.

    Attributes:
      arithmetic: how it computes: "int8", "int16x8" (activations int16), "dynamic_range", or in float32 with weights
        stored as "float16" or "float32".
      weight_bits: grid bits of the weights; of float weights without a meaning.
      storage: of weights on a grid: "int8", or "packed" as INT4 tensors.
      activation_bits: of what an int8 layer reads; fewer than 8 are simulated only.
      entropy_bits: of weights on a coarse grid, 0 for all others.
      clusters: how many integers the weights are, where a codebook says which; 0 for all others.
    """

    arithmetic: str = "int8"
    weight_bits: int = STORED_BITS
    storage: str = "int8"
    activation_bits: int = STORED_BITS
    entropy_bits: int = 0
    clusters: int = 0

    def __post_init__(self) -> None:
        if self.arithmetic not in ARITHMETICS:
            raise ValueError(f"arithmetic (={self.arithmetic!r}) must be one of {', '.join(ARITHMETICS)}")

    @property
    def name(self) -> str:
        """As users write it."""
        if self.is_dynamic:
            return f"d{self.weight_bits}"
        if self.is_float:
            return self.arithmetic
        if self.entropy_bits:
            return f"e{self.entropy_bits}"
        if self.clusters:
            return f"c{self.clusters}"
        bits = WIDE_BITS if self.is_int16 else self.activation_bits
        activations = "" if bits == STORED_BITS else f"a{bits}"
        return f"w{self.weight_bits}{activations}{'-packed' if self.storage == 'packed' else ''}"

    @property
    def is_int8(self) -> bool:
        """Activations lie on fixed integer grids of 8 bits or fewer."""
        return self.arithmetic == "int8"

    @property
    def is_int16(self) -> bool:
        """Activations lie on fixed integer grids of 16 bits."""
        return self.arithmetic == "int16x8"

    @property
    def is_dynamic(self) -> bool:
        """Weights lie on a grid, activations are float32."""
        return self.arithmetic == "dynamic_range"

    @property
    def is_float(self) -> bool:
        """Activations are float32."""
        return self.arithmetic in ("float16", "float32", "dynamic_range")

    @property
    def has_grid(self) -> bool:
        """Weights lie on a grid."""
        return self.arithmetic not in ("float16", "float32")

    @property
    def float_type(self) -> str:
        """How numbers without a grid are stored, such as a bias between float tensors."""
        return "float16" if self.arithmetic == "float16" else "float32"

    @property
    def is_simulated(self) -> bool:
        """TFLite has no kernels for it."""
        return self.activation_bits < STORED_BITS

    @property
    def computed_bits(self) -> tuple[int, int]:
        """Of a weight and of an activation, as they are multiplied."""
        if not self.has_grid:
            return FLOAT_BITS, FLOAT_BITS
        return self.weight_bits, WIDE_BITS if self.is_int16 else self.activation_bits

    @property
    def bits_stored(self) -> int:
        """Bits of a weight, on a coarse grid in an ideal code, of clusters those of their number."""
        coded = self.entropy_bits or (self.clusters - 1).bit_length() * (self.clusters > 0)
        return {"float16": 16, "float32": 32}.get(self.arithmetic) or coded or self.weight_bits


INT8, FLOAT16, FLOAT32 = Precision(), Precision("float16"), Precision("float32")
FLOATS = (FLOAT16, FLOAT32)
GRIDS = tuple(Precision(weight_bits=bits) for bits in (2, 3, 4, 5, 6, 8))
CLUSTERS = tuple(Precision(clusters=2**bits) for bits in range(1, 6))
COARSE = tuple(Precision(entropy_bits=bits) for bits in range(1, 6))
FOR_DOWNLOADS = (*(Precision(weight_bits=bits) for bits in (4, 6, 8)), *COARSE)  # grids where one scale does not do


def dynamic_range(bits: int) -> Precision:
    """Dynamic range with weights of so many bits, packed where they can be."""
    return Precision("dynamic_range", bits, "packed" if bits <= MOST_PACKED_BITS else "int8")


W4A16, W8A16 = Precision("int16x8", 4), Precision("int16x8")
SIMULATED = Precision(weight_bits=4, activation_bits=SIMULATED_ACTIVATION_BITS)
CANDIDATES: Mapping[str, Precision] = {
    precision.name: precision
    for precision in (
        *(Precision(weight_bits=bits) for bits in range(2, STORED_BITS + 1)),
        *(Precision(weight_bits=bits, storage="packed") for bits in range(2, MOST_PACKED_BITS + 1)),
        SIMULATED,
        W4A16,
        W8A16,
        *FLOATS,
        *COARSE,
        *CLUSTERS,
        *map(dynamic_range, range(2, STORED_BITS + 1)),
    )
}
"""What allocation can give a layer, by name."""


def precision_of(name: str) -> Precision:
    """The candidate of this name. Raises UserError where there is none."""
    if name not in CANDIDATES:
        raise UserError(f"{name!r} is no precision; it must be one of {', '.join(CANDIDATES)}")
    return CANDIDATES[name]
