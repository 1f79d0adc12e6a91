"""The precisions that a layer can be given, and the layers that share one.

    w2 ... w8               weights on a grid of that many bits, stored as int8; activations int8
    e1 ... e5               weights on an 8-bit grid so coarse that an ideal code takes that many bits for one of them;
                            one scale for the layer, so that a download holds less than with w2 ... w5
                            of the same error
    w2-packed ... w4-packed those of w2 ... w4 stored as INT4 tensors
    w4a4                    what the layer reads lies on 4 bits too: simulated only
    float16, float32        the layer computes in float32; its weights are stored in that type

Calls of one Keras layer share its weights and so its precision: they are one *unit*. Nothing else has to be tied.
The inputs of a sum or a concatenation have grids of their own bits and scales whatever the weights before them lie
on; where a float layer meets an integer one, the converter puts a Quantize or Dequantize between them, whose cost is
counted (`tfq.allocation.program.Border`); and what a w4a4 layer reads is a copy where others read it too
(`tfq.models.widths`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfq.errors import UserError

if TYPE_CHECKING:  # what a recipe may name must not take the time of loading TensorFlow
    from tfq.models.graph import Graph


@dataclasses.dataclass(frozen=True, order=True)
class Candidate:
    """A precision that a layer can be given.

    Attributes:
      precision: "int8", "float16" or "float32".
      weight_bits: grid bits of the weights; of int8 layers alone.
      storage: "int8" or "packed".
      activation_bits: of what the layer reads; fewer than 8 are simulated only.
      entropy_bits: of the weights on a coarse grid, 0 for all others.
    """

    precision: str = "int8"
    weight_bits: int = 8
    storage: str = "int8"
    activation_bits: int = 8
    entropy_bits: int = 0

    @property
    def name(self) -> str:
        """As users write it."""
        if self.is_float:
            return self.precision
        if self.entropy_bits:
            return f"e{self.entropy_bits}"
        activations = "" if self.activation_bits == 8 else f"a{self.activation_bits}"
        return f"w{self.weight_bits}{activations}{'-packed' if self.storage == 'packed' else ''}"

    @property
    def is_float(self) -> bool:
        return self.precision != "int8"


INT8 = Candidate()
FLOATS = (Candidate("float16"), Candidate("float32"))
SIMULATED_ACTIVATION_BITS = 4  # of candidates that TFLite cannot run
GRIDS = tuple(Candidate(weight_bits=bits) for bits in (2, 3, 4, 5, 6, 8))
COARSE = tuple(Candidate(entropy_bits=bits) for bits in range(1, 6))
FOR_DOWNLOADS = (*(Candidate(weight_bits=bits) for bits in (4, 6, 8)), *COARSE)  # grids where one scale does not do
MOST_PACKED_BITS = 4  # of an INT4 tensor
ALL: dict[str, Candidate] = {
    candidate.name: candidate
    for candidate in (
        *(Candidate(weight_bits=bits) for bits in range(2, 9)),
        *(Candidate(weight_bits=bits, storage="packed") for bits in range(2, MOST_PACKED_BITS + 1)),
        Candidate(weight_bits=4, activation_bits=SIMULATED_ACTIVATION_BITS),
        *FLOATS,
        *COARSE,
    )
}
"""Every candidate by its name."""


def is_simulated(name: str) -> bool:
    """Whether TFLite has no kernels for this candidate. Raises UserError where there is none of the name."""
    return candidate_of(name).activation_bits == SIMULATED_ACTIVATION_BITS


def candidate_of(name: str) -> Candidate:
    """The candidate of this name. Raises UserError where there is none."""
    if name not in ALL:
        raise UserError(f"{name!r} is no precision; it must be one of {', '.join(ALL)}")
    return ALL[name]


@dataclasses.dataclass(frozen=True)
class Unit:
    """Nodes that share one precision; called like the first of them."""

    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.nodes[0]


def units(graph: Graph) -> tuple[Unit, ...]:
    """The units of all weighted layers, in topological order of their first nodes."""
    from tfq.models.widths import is_weighted

    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if is_weighted(node):
            found.setdefault(node.group, []).append(node.name)
    return tuple(Unit(tuple(names)) for names in found.values())
