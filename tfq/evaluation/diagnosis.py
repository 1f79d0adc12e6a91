"""Where a quantised model loses: the end with one part quantised at a time, and how the error grows layer by layer.

    part          the float network with nothing quantised but these weights, or these activations
    SQNR at a layer     sum |y|^2 / sum |y - q|^2 of its output in the float and in the quantised network, dB

Errors of parts do not add up: they meet in the same layers, and a fit of weights makes good what activations lose.
What is compared at the end is what a softmax reads, where one ends the graph (`tfq.simulate.divergence`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tfq.evaluation.layers import decibels_of
from tfq.evaluation.signals import finite_decibels
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import Arrays
from tfq.models.graph import Graph, Node
from tfq.models.widths import first_and_last, is_weighted
from tfq.operations.table import matrix_of
from tfq.quantized_model import QuantizedModel
from tfq.simulate.divergence import End, Yardstick, ends
from tfq.simulate.eager import BATCH, tensor_parts


@dataclasses.dataclass(frozen=True)
class PartLoss:
    """What is lost at the end of the network.

    Attributes:
      part: that is quantised.
      samples: "fitted" or "unseen": those that ranges and weights were fitted to, or others.
      layers: number of layers whose weights are quantised.
      divergence: mean over samples (`tfq.simulate.divergence`).
      agreement: share of samples in % whose largest number stays the largest; None where an output has one number.
      sqnr_db: of the end; None without an error.
    """

    part: str
    samples: str
    layers: int
    divergence: float
    agreement: float | None
    sqnr_db: float | None


@dataclasses.dataclass(frozen=True)
class LayerLoss:
    """SQNR in dB of a layer's output on unseen samples, with weights and activations quantised, and one of them."""

    name: str
    kind: str
    both: float | None
    weights: float | None
    activations: float | None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Where a model loses: by part, at the end, and layer by layer."""

    parts: tuple[PartLoss, ...]
    layers: tuple[LayerLoss, ...]


def diagnose(
    reference: Graph, model: QuantizedModel, fitted: Arrays, unseen: Arrays, *, resources: Resources = DEFAULT
) -> Diagnosis:
    """Where `model` loses against `reference`, the prepared float graph that it was made from.

    Args:
      fitted: samples that the model was fitted to, arrays [n, ...] by input name.
      unseen: samples that had no part in it.
      resources: shows how far it is.
    """
    parts, compared, quiet = list(_parts(reference, model)), ends(reference), resources.silent()
    samples = {"unseen": unseen, "fitted": fitted}
    looks = [*((part, "unseen") for part in parts), (parts[0], "fitted")]
    names = [node.name for node in model.layers if is_weighted(node) or node.kind == "Add"]
    found = []
    with resources.progress.task("diagnose", len(looks) + 1) as advance:
        floats = {which: _at_the_end(reference, compared, arrays, quiet) for which, arrays in samples.items()}
        for (name, layers, quantized), which in looks:
            values = _at_the_end(quantized, compared, samples[which], quiet)
            found.append(PartLoss(name, which, layers, *_lost(compared, floats[which], values)))
            advance(1)
        columns = _layers(reference, [quantized for _, _, quantized in parts[:3]], names, unseen, quiet)
        advance(1)
    rows = zip(names, *columns, strict=True)
    return Diagnosis(tuple(found), tuple(LayerLoss(name, model[name].kind, *cells) for name, *cells in rows))


_Part = tuple[str, int, QuantizedModel]


def _parts(reference: Graph, model: QuantizedModel) -> Iterator[_Part]:
    """(what is quantised, layers whose weights are, model): everything, weights, activations, and kinds of layers."""
    weighted = [node for node in model.layers if is_weighted(node) and node.weight_grids]
    ends_of_graph = first_and_last(model)
    groups: dict[str, Callable[[Node], bool]] = {
        "weights of the first and last layers": lambda node: node.name in ends_of_graph,
        "depthwise weights": _is_depthwise,
        "pointwise weights": _is_pointwise,
        "other weights": lambda node: not _is_depthwise(node) and not _is_pointwise(node),
    }
    yield "all", len(weighted), model
    yield "weights", len(weighted), _without_grids(model)
    yield "activations", 0, model.with_nodes(*(_with_float_weights(node, reference) for node in weighted))
    for name, belongs in groups.items():
        chosen = [node for node in weighted if belongs(node)]
        if 0 < len(chosen) < len(weighted):
            others = [_with_float_weights(node, reference) for node in weighted if not belongs(node)]
            yield name, len(chosen), _without_grids(model.with_nodes(*others))


def _is_depthwise(node: Node) -> bool:
    matrix = matrix_of(node.kind)
    return matrix is not None and matrix.is_depthwise


def _is_pointwise(node: Node) -> bool:
    return node.kind == "Conv2D" and node.config["kernel_size"] in (1, (1, 1), [1, 1])


def _with_float_weights(node: Node, reference: Graph) -> Node:
    return node.replace(weights=reference[node.name].weights, weight_grids={})


def _without_grids(model: QuantizedModel) -> QuantizedModel:
    return model.with_nodes(*(node.replace(grid=None) for node in model.nodes if node.grid is not None))


def _at_the_end(graph: Graph, compared: Sequence[End], samples: Arrays, resources: Resources) -> list[np.ndarray]:
    """What is compared, [n, ...] of each output."""
    parts = tensor_parts(graph, samples, [end.tensor for end in compared], size=BATCH, resources=resources)
    return [np.concatenate(values) for values in zip(*(found for _, found in parts), strict=True)]


def _lost(
    compared: Sequence[End], floats: Sequence[np.ndarray], values: Sequence[np.ndarray]
) -> tuple[float, float | None, float | None]:
    """(mean divergence, agreement of the first output in %, SQNR in dB)."""
    divergence, signal, noise = 0.0, 0.0, 0.0
    for end, y, q in zip(compared, floats, values, strict=True):
        divergence += float(Yardstick.of(y, logits=end.logits)(y, q).mean())
        signal += float(np.square(y, dtype=np.float64).sum())
        noise += float(np.square(y - q, dtype=np.float64).sum())
    y, q = floats[0], values[0]
    same = None
    if y.ndim > 1 and y.shape[-1] > 1:
        same = 100.0 * float((y.argmax(-1) == q.argmax(-1)).mean())
    return divergence, same, finite_decibels(signal, noise)


def _layers(
    reference: Graph, models: Sequence[QuantizedModel], names: Sequence[str], samples: Arrays, resources: Resources
) -> list[list[float | None]]:
    """SQNR in dB of every tensor in every model; the float network runs once."""
    runs = zip(
        *(tensor_parts(graph, samples, names, resources=resources) for graph in (reference, *models)), strict=True
    )
    tensors = ([values for _, values in found] for found in runs)
    found = decibels_of(
        [*names] * len(models), ((floats * len(models), list(itertools.chain(*others))) for floats, *others in tensors)
    )
    return [found[start : start + len(names)] for start in range(0, len(found), len(names))]
