"""How far the integer model is from the simulation: layer by layer, and end to end.

Layer by layer, every node of the simulation is given the very tensors that the .tflite computed, so
that an error cannot travel ("teacher forcing"); what remains is the rounding of the integer kernel, at
most one step of the output's grid. End to end the steps add up, and a deep net amplifies them:
there only statistics are meaningful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfq.execution.interpreter import TfliteModel
from tfq.execution.progress import Progress, Silent
from tfq.models.graph import INPUT, Graph, Node, build_model
from tfq.simulate.wrap import build_simulation
from tfq.spec import QuantizationSpec


@dataclasses.dataclass(frozen=True)
class LayerParity:
    """One layer of the .tflite against the simulation of that layer on the same inputs.

    Attributes:
      name: node name.
      max_steps: largest difference, in steps (LSB) of the output's grid.
      differing: share of the elements that differ, 0..1.
      elements: number of elements compared.
    """

    name: str
    max_steps: int
    differing: float
    elements: int


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output of the .tflite against the simulation of the whole model; `kernels`: "xnnpack" or "builtin"."""

    name: str
    kernels: str
    max_steps: float
    mean_steps: float
    differing: float
    samples: int


def layer_parity(
    content: bytes,
    graph: Graph,
    spec: QuantizationSpec,
    samples: Mapping[str, np.ndarray],
    *,
    progress: Progress | None = None,
) -> tuple[LayerParity, ...]:
    """Compare every quantised layer on `samples` (arrays [n, ...] by input name; a few suffice).

    The integers are those of TFLite's builtin kernels: a delegate keeps its intermediate tensors to itself.
    """
    observed = _observe(content, graph, spec, samples, progress or Silent())
    forced, forced_spec, compared = _teacher_forced(graph, spec, set(observed))
    feeds = [observed[name] if name in observed else samples[name] for name in forced.inputs]
    if not compared:
        return ()
    predicted = build_simulation(forced, forced_spec, outputs=[_simulated(n) for n in compared])(
        [np.asarray(f) for f in feeds], training=False
    )
    found = []
    for name, value in zip(compared, predicted, strict=True):
        steps = np.rint(np.abs(np.asarray(value) - observed[name]) / spec.activations[name].scale[0])
        found.append(LayerParity(name, int(steps.max()), float((steps > 0).mean()), steps.size))
    return tuple(found)


def output_parity(
    content: bytes, graph: Graph, spec: QuantizationSpec, samples: Mapping[str, np.ndarray]
) -> tuple[OutputParity, ...]:
    """Compare the outputs of the whole model on `samples`, with XNNPACK and with the builtin kernels."""
    simulation = build_simulation(graph, spec, outputs=graph.outputs)
    simulated = simulation.predict([samples[n] for n in graph.inputs], batch_size=8, verbose=0)
    simulated = simulated if isinstance(simulated, list) else [simulated]
    count = len(next(iter(samples.values())))
    found = []
    for kernels, delegate in (("xnnpack", True), ("builtin", False)):
        model = TfliteModel(content, delegate=delegate)
        runs = [model.run({n: samples[n][i : i + 1] for n in graph.inputs}) for i in range(count)]
        for position, node in enumerate(graph.outputs):
            if node not in spec.activations:
                continue
            values = np.concatenate([run[position] for run in runs])
            steps = np.abs(values - simulated[position]) / spec.activations[node].scale[0]
            found.append(
                OutputParity(
                    graph.output_names[position],
                    kernels,
                    round(float(steps.max()), 3),
                    float(steps.mean()),
                    float((steps > 0.5).mean()),
                    count,
                )
            )
    return tuple(found)


def _observe(
    content: bytes, graph: Graph, spec: QuantizationSpec, samples: Mapping[str, np.ndarray], progress: Progress
) -> dict[str, np.ndarray]:
    """Real values of every quantised activation tensor that the file has, [n, ...] by node name."""
    model = TfliteModel(content, delegate=False, preserve_all=True)
    present = {info.name for info in model.all_tensors}
    label = {n: f"{n}/quantized" if f"{n}/quantized" in present else n for n in spec.activations}
    label = {name: tensor for name, tensor in label.items() if tensor in present}
    values: dict[str, list[np.ndarray]] = {name: [] for name in label}
    count = len(next(iter(samples.values())))
    with progress.task("compare with the simulation", count) as advance:
        for i in range(count):
            model.run({name: samples[name][i : i + 1] for name in graph.inputs})
            tensors = model.tensors(label.values())
            for name, tensor in label.items():
                values[name].append(tensors[tensor].real)
            advance(1)
    return {name: np.concatenate(parts) for name, parts in values.items()}


def _simulated(name: str) -> str:
    return f"{name}.simulated"


def _teacher_forced(
    graph: Graph, spec: QuantizationSpec, observed: set[str]
) -> tuple[Graph, QuantizationSpec, list[str]]:
    """The graph in which every node reads the observed tensors; the names of the nodes to compare.

    Tensors that were not observed (vanished or float ones) are computed from observed ones.
    """
    shapes = _shapes(graph)
    sources = [n for n in graph.nodes if n.name in observed or n.kind == INPUT]
    nodes: list[Node] = []
    for node in sources:
        dtype = node.config["dtype"] if node.kind == INPUT else "float32"
        nodes.append(Node(node.name, INPUT, {"shape": shapes[node.name], "dtype": dtype}))
    compared = [n.name for n in graph.nodes if n.kind != INPUT and n.name in observed]
    for node in graph.nodes:
        if node.kind != INPUT:
            nodes.append(node.replace(name=_simulated(node.name)) if node.name in observed else node)
    renamed = {name: _simulated(name) for name in compared}
    layers = tuple(dataclasses.replace(x, name=renamed.get(x.name, x.name)) for x in spec.layers)
    activations = dict(spec.activations) | {_simulated(name): spec.activations[name] for name in compared}
    outputs = tuple(_simulated(name) for name in compared) or graph.outputs
    forced = Graph(tuple(nodes), tuple(n.name for n in sources), outputs)
    return forced, dataclasses.replace(spec, layers=layers, activations=activations), compared


def _shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor without the batch axis."""
    names = [node.name for node in graph.nodes]
    model = build_model(graph, outputs=names)
    return {n: tuple(int(d) for d in t.shape[1:]) for n, t in zip(names, model.outputs, strict=True)}
