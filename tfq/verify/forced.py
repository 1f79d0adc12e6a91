"""Teacher forcing: every layer on its own, on the very tensors that the .tflite computed.

An error cannot travel from layer to layer then; what a layer shows is its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from tfq.execution.interpreter import TfliteModel
from tfq.execution.progress import SILENT, Progress
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.quantized_model import QuantizedModel

_G = TypeVar("_G", bound=Graph)


@dataclasses.dataclass(frozen=True)
class Forced(Generic[_G]):
    """A graph whose every node reads observed tensors.

    Attributes:
      graph: its inputs are the observed tensors; tensors that were not observed (vanished or float
        ones) are computed from observed ones. A `QuantizedModel` if what was forced is one.
      outputs: observed node -> the node of `graph` that computes it anew.
      feeds: values of `graph.inputs`, by name.
    """

    graph: _G
    outputs: Mapping[str, str]
    feeds: Mapping[str, np.ndarray]


def observe(
    content: bytes,
    quantized: QuantizedModel,
    samples: Mapping[str, np.ndarray],
    *,
    progress: Progress = SILENT,
) -> dict[str, np.ndarray]:
    """Real values of every quantised activation tensor that the file has, [n, *shape in the graph] by node name.

    And of what layers with integer weights among float activations read and give.

    The integers are those of TFLite's builtin kernels: a delegate keeps its intermediate tensors to itself.
    """
    model = TfliteModel(content, delegate=False, preserve_all=True)
    present = {info.name for info in model.all_tensors}
    dynamic = (node for node in quantized.layers if node.precision.is_dynamic)
    among_floats = [n for node in dynamic for n in (*node.inputs, node.name) if quantized[n].kind != INPUT]
    wanted = dict.fromkeys((*quantized.grids, *among_floats))
    label = {n: f"{n}/quantized" if f"{n}/quantized" in present else n for n in wanted}
    label = {name: tensor for name, tensor in label.items() if tensor in present}
    count, shapes = len(next(iter(samples.values()))), tensor_shapes(quantized)
    # filled in place: all tensors of a large model, twice, would not be little
    values = {name: np.empty((count, *shapes[name]), np.float32) for name in label}
    with progress.task("compare with the simulation", count) as advance:
        for i in range(count):
            model.run({name: samples[name][i : i + 1] for name in quantized.inputs})
            tensors = model.tensors(label.values())
            for name, tensor in label.items():
                # the converter may have left axes of size 1 to it that a reshape beside it adds or drops
                values[name][i] = tensors[tensor].reshape(shapes[name])
            advance(1)
    return values


def teacher_forced(graph: _G, observed: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]) -> Forced[_G]:
    """The forced graph, or quantised model, over `observed` tensors.

    Args:
      samples: serve the inputs that were not observed (integers).
    """
    shapes = tensor_shapes(graph)
    sources = [n for n in graph.nodes if n.name in observed or n.kind == INPUT]
    renamed = {n.name: f"{n.name}.again" for n in graph.nodes if n.kind != INPUT and n.name in observed}
    nodes: list[Node] = []
    for node in sources:
        dtype = node.config["dtype"] if node.kind == INPUT else "float32"
        nodes.append(Node(node.name, INPUT, {"shape": shapes[node.name], "dtype": dtype}, grid=node.grid))
    nodes += [n.replace(name=renamed.get(n.name, n.name)) for n in graph.nodes if n.kind != INPUT]
    outputs = tuple(renamed.values()) or graph.outputs
    forced = dataclasses.replace(
        graph, nodes=tuple(nodes), inputs=tuple(n.name for n in sources), outputs=outputs, output_names=outputs
    )
    feeds = {n.name: observed[n.name] if n.name in observed else samples[n.name] for n in sources}
    return Forced(forced, renamed, feeds)
