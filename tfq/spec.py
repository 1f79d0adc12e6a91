"""What was decided: for every tensor of the model the grid on which its values lie.

The `QuantizationSpec` is the single source of truth. Simulation, export, verification and report
read it; none of them decides for itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from tfq.execution.json_files import built, parse_json

STORAGE_RANGE = {"int4": (-8, 7), "int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1)}
_MOST_BITS = 32  # of a bias
PRECISIONS = ("int8", "float32", "float16", "dynamic_range", "int16x8")


@dataclasses.dataclass(frozen=True)
class TensorQuantization:
    """The grid of one tensor: real = scale * (integer - zero_point).

    Attributes:
      scale: one value, or one per channel of `axis`; float32 values.
      zero_point: the integer that stands for 0.0; 0 for weights and biases.
      bits: grid bits: the integers lie on at most 2**bits levels.
      storage: integer type that holds them in the file: "int4", "int8", "int16" or "int32".
      symmetric: True for weights: the narrow range [-(2**(bits-1)-1), 2**(bits-1)-1].
      axis: channel axis of `scale` in the *Keras* layout, None for per-tensor.
      entropy_bits: of a coarse 8-bit grid: its scale, one for all channels, was chosen for codes of about this
        entropy (`tfq.numerics.entropy`), and stays. 0: of any other grid.
    """

    scale: tuple[float, ...]
    zero_point: int
    bits: int
    storage: str
    symmetric: bool
    axis: int | None = None
    entropy_bits: int = 0

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

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest integer of the grid, both included."""
        half = 2 ** (self.bits - 1)
        return (-(half - 1), half - 1) if self.symmetric else (-half, half - 1)

    @property
    def real_range(self) -> tuple[float, float]:
        """Smallest and largest real value of a per-tensor grid."""
        low, high = self.integer_range
        return self.scale[0] * (low - self.zero_point), self.scale[0] * (high - self.zero_point)


def activation_grid(scale: float, zero_point: int, bits: int = 8) -> TensorQuantization:
    """An asymmetric per-tensor grid."""
    return TensorQuantization((float(np.float32(scale)),), int(zero_point), bits, "int8", symmetric=False)


@dataclasses.dataclass(frozen=True)
class LayerQuantization:
    """What was decided for one node of the prepared graph.

    Attributes:
      name: node name.
      kind: node kind ("Conv2D", ...).
      precision: one of PRECISIONS.
      inputs, output: names of the activation tensors read and written.
      weights: grid of every quantised weight and bias, by variable name; empty in float layers.
      origin: names of the user's Keras layers this stands for.
      reason: why the layer is not int8; empty for int8.
    """

    name: str
    kind: str
    precision: str
    inputs: tuple[str, ...]
    output: str
    weights: Mapping[str, TensorQuantization] = dataclasses.field(default_factory=dict)
    origin: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision (={self.precision!r}) must be one of {', '.join(PRECISIONS)}")
        if self.precision != "int8" and not self.reason:
            raise ValueError(f"layer {self.name!r} is {self.precision} without a reason")


@dataclasses.dataclass(frozen=True)
class QuantizationSpec:
    """Every layer's precision and every tensor's grid.

    Attributes:
      layers: in topological order, one for every node but the inputs.
      activations: grid of every quantised activation tensor, by node name. A float tensor is absent.
      input_type, output_type: what the .tflite takes and gives: "int8", "uint8" or "float32".
    """

    layers: tuple[LayerQuantization, ...]
    activations: Mapping[str, TensorQuantization]
    input_type: str = "int8"
    output_type: str = "int8"

    def __getitem__(self, name: str) -> LayerQuantization:
        return {layer.name: layer for layer in self.layers}[name]

    def replace_layers(self, *layers: LayerQuantization) -> QuantizationSpec:
        """The specification with these layers in place of those of the same names."""
        new = {layer.name: layer for layer in layers}
        return dataclasses.replace(self, layers=tuple(new.get(layer.name, layer) for layer in self.layers))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, what: str = "the specification") -> QuantizationSpec:
        """The specification of a JSON text. Raises UserError, which calls it `what`, where it holds none."""
        return built(cls, parse_json(text, what), what=what)
