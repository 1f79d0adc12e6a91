"""Why the layers with most error lose, and what to do about it: what the report itself shows.

    prescribed   TFLite fixes the grid of a softmax, sigmoid or tanh
    shared       a concatenation, pooling or reshape has one grid for all that it joins; this tensor takes under a
                 quarter of it
    outliers     999 of 1000 values lie in a quarter of the grid or less
    few bits     of the weights, or of the activations
    one scale    for the weights of all channels

The first that applies is told. Of a layer that loses little, or for none of these reasons, nothing is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfq.recipe import Recipe
from tfq.report.report import LayerReport, TensorReport

WORST = 5
_ENOUGH = 40.0  # dB of own SQNR
_PART, _MASS = 1 / 4, 0.999


@dataclasses.dataclass(frozen=True)
class Cause:
    """Of one layer: why it loses, and what would mend it, as halves of a sentence; options that do, where any does."""

    layer: str
    cause: str
    remedy: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def worst_layers(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """Those that add most error by themselves, the worst first."""
    measured = [layer for layer in layers if layer.own_sqnr_db is not None]
    return sorted(measured, key=lambda layer: layer.own_sqnr_db or 0.0)[:WORST]


def causes(layers: Sequence[LayerReport], tensors: Sequence[TensorReport], recipe: Recipe) -> tuple[Cause, ...]:
    """Of the worst layers, where one is known."""
    by_name = {tensor.name: tensor for tensor in tensors}
    found = []
    for layer in worst_layers(layers):
        if (layer.own_sqnr_db or 0.0) < _ENOUGH:
            told = _of_tensor(by_name.get(layer.name), tensors) or _of_bits(layer, by_name.get(layer.name), recipe)
            found += [Cause(layer.name, *told)] if told else []
    return tuple(found)


_Found = tuple[str, str, Mapping[str, Any]]


def _of_tensor(tensor: TensorReport | None, tensors: Sequence[TensorReport]) -> _Found | None:
    if tensor is None:
        return None
    low, high = tensor.range
    if tensor.method == "prescribed":
        step = (high - low) / (2**tensor.bits - 1)
        return (
            f"TFLite prescribes its grid, in steps of {step:.3g}",
            "end the model before it, if small values matter",
            {},
        )
    span = _PART * (high - low)
    others = [other.name for other in tensors if other.group == tensor.group and other.name != tensor.name]
    if tensor.observed is not None and others and tensor.observed[1] - tensor.observed[0] < span:
        return (
            f"it takes {tensor.observed[0]:.3g}..{tensor.observed[1]:.3g} of the grid over {low:.3g}..{high:.3g} that"
            f" it shares with {others[0]!r}",
            "bring both to one scale in the model, or make them outputs of their own",
            {},
        )
    if tensor.histogram is not None and _bulk(tensor.histogram) < span:
        return (
            f"1 of 1,000 values sets most of its range, {low:.3g}..{high:.3g}",
            f"keep it in float (`pin='{tensor.name}:float32'` with a budget), or all activations"
            " (`precision='dynamic_range'`)",
            {"precision": "dynamic_range"},
        )
    return None


def _bulk(histogram: Mapping[str, Any]) -> float:
    """Width of what holds _MASS of the values, as much left out on either side."""
    edges, counts = np.asarray(histogram["edges"], np.float64), np.asarray(histogram["counts"], np.float64)
    shares = np.concatenate([[0.0], np.cumsum(counts)]) / max(counts.sum(), 1.0)
    low, high = np.interp([(1 - _MASS) / 2, (1 + _MASS) / 2], shares, edges)
    return float(high - low)


def _of_bits(layer: LayerReport, tensor: TensorReport | None, recipe: Recipe) -> _Found | None:
    if layer.weight_bits is not None and layer.weight_bits < 8:
        what = f"its weights have {layer.weight_bits} bits"
        if recipe.pipeline != "advanced":
            return what, "try `pipeline='advanced'`", {"pipeline": "advanced"}
        if layer.precision == "dynamic_range" and recipe.allocates:
            return what, f"try `pin='{layer.name}:d8'`", {}
        if layer.precision == "dynamic_range":
            return what, "try `weight_bits=8`", {"weight_bits": 8}
        return what, f"try `pin='{layer.name}:w8'` with a budget", {"weight_bits": 8}
    if layer.clusters:
        what = f"its weights are {layer.clusters} different integers"
        if recipe.allocates:
            return what, f"try `pin='{layer.name}:w8'`", {}
        return what, "try more `weight_clusters`, or none", {"weight_clusters": 0}
    if tensor is not None and tensor.bits < 8:
        return f"its output has {tensor.bits} bits", "try more `activation_bits`", {"activation_bits": 8}
    if layer.weight_bits is not None and not recipe.per_channel:
        return "its channels have one weight scale", "try `per_channel=True`", {"per_channel": True}
    return None
