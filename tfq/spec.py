"""spec.json: what was decided for every layer and tensor of a `QuantizedModel`, for people and programs to read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from tfq.execution.json_files import built, parse_json
from tfq.grid import Grid
from tfq.precision import ARITHMETICS
from tfq.quantized_model import QuantizedModel


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer.

    Attributes:
      name: of its node in the prepared graph.
      kind: node kind ("Conv2D", ...).
      precision: how it computes (`tfq.precision.ARITHMETICS`).
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
    weights: Mapping[str, Grid] = dataclasses.field(default_factory=dict)
    origin: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if self.precision not in ARITHMETICS:
            raise ValueError(f"precision (={self.precision!r}) must be one of {', '.join(ARITHMETICS)}")
        if self.precision != "int8" and not self.reason:
            raise ValueError(f"layer {self.name!r} is {self.precision} without a reason")


@dataclasses.dataclass(frozen=True)
class Specification:
    """Every layer's precision and every tensor's grid.

    Attributes:
      layers: in topological order, one for every node but the inputs.
      activations: grid of every quantised activation tensor, by node name. A float tensor is absent.
      input_type, output_type: what the .tflite takes and gives: "int8", "uint8" or "float32".
    """

    layers: tuple[LayerSpec, ...]
    activations: Mapping[str, Grid]
    input_type: str = "int8"
    output_type: str = "int8"

    @classmethod
    def of(cls, model: QuantizedModel) -> Specification:
        """What the model says of itself."""
        layers = tuple(
            LayerSpec(
                node.name,
                node.kind,
                node.precision.arithmetic,
                node.inputs,
                node.name,
                node.weight_grids,
                node.origin,
                node.reason,
            )
            for node in model.layers
        )
        return cls(layers, model.grids, model.input_type, model.output_type)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, what: str = "the specification") -> Specification:
        """The specification of a JSON text. Raises UserError, which calls it `what`, where it holds none."""
        return built(cls, parse_json(text, what), what=what)
