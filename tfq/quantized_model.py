"""The quantised model: a graph whose nodes carry what was decided for them.

It is what every stop after calibration takes and gives, and the only truth about it. Simulation, export, verification
and report read it; none of them decides for itself. `tfq.spec` writes it down.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from tfq.grid import Grid
from tfq.models.graph import INPUT, Graph, Node


@dataclasses.dataclass(frozen=True)
class QuantizedModel(Graph):
    """A graph of which every node has its precision, and every quantised tensor its grid.

    Attributes:
      input_type, output_type: what the .tflite takes and gives: "int8", "uint8" or "float32".
    """

    input_type: str = "int8"
    output_type: str = "int8"

    @functools.cached_property
    def layers(self) -> tuple[Node, ...]:
        """All nodes but the inputs."""
        return tuple(node for node in self.nodes if node.kind != INPUT)

    @functools.cached_property
    def grids(self) -> Mapping[str, Grid]:
        """The grid of every quantised activation tensor, by node name."""
        return {node.name: node.grid for node in self.nodes if node.grid is not None}
