"""Normalisations, and other layers that scale and shift every channel, as Affine and LayerNormalization nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by
from tfq.models.rules.rule import Layer, Shape, affine, refuse

_LEAST_SQUARE = 1e-12  # of a norm, in Keras


def batch_normalization(node: Node, _: Sequence[Shape], __: Shape) -> list[Node]:
    """An Affine node; the frontends take the last axis only."""
    weights = {name: np.asarray(w, np.float64) for name, w in node.weights.items()}
    scale = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + node.config.get("epsilon", 1e-3))
    offset = weights.get("beta", 0.0) - weights["moving_mean"] * scale
    return [affine(node, "", node.inputs[0], len(scale), scale, offset)]


def _per_channel(node: Node, what: str, value: Any, channels: int) -> np.ndarray:
    """`value` as [channels]; it may vary along the last axis only."""
    found = np.asarray(value, np.float64)
    if found.size not in (1, channels) or found.shape[-1:] not in ((), (1,), (channels,)):
        raise refuse(
            node, f"{what} of shape {found.shape} varies along other axes than the last", "use one value per channel"
        )
    return np.broadcast_to(found.reshape(-1), (channels,))


def rescaling(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node]:
    channels = inputs[0][-1]
    scale = _per_channel(node, "scale", node.config["scale"], channels)
    offset = _per_channel(node, "offset", node.config.get("offset", 0.0), channels)
    return [affine(node, "", node.inputs[0], channels, scale, offset)]


def layer_normalization(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | None:
    axis = node.config.get("axis", -1)
    if list(np.atleast_1d(axis)) == [len(inputs[0])]:
        return [node.replace(config={**node.config, "axis": [-1]})]  # whatever the rank becomes
    return None


def group_normalization(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    """Every group of channels as one long axis, which a LayerNormalization works over; then the map of each channel.

    [..., g * n] -> [positions, g, n] -> [g, positions, n] -> [g, positions * n]    and back
    """
    config, axis, rank = node.config, node.config.get("axis", -1), len(inputs[0])
    if axis not in (-1, rank):
        raise refuse(node, f"axis (={axis}) is not the last one", "permute the channels to the last axis before it")
    channels = inputs[0][-1]
    groups = channels if config.get("groups", 32) == -1 else config.get("groups", 32)
    positions, width = int(np.prod(inputs[0][:-1])), channels // groups
    made: list[Node] = []

    def then(role: str, kind: str, **options: Any) -> None:
        made.append(made_by(node, role, kind, (made[-1].name,) if made else node.inputs, options))

    def swapped(role: str, first: int, second: int) -> None:
        """Groups in front of positions, or behind them."""
        then(f"{role}.parts", "Reshape", target_shape=(first, second, width))
        then(f"{role}.swapped", "Permute", dims=(2, 1, 3))

    if groups > 1:
        swapped("apart", positions, groups)
    then("line", "Reshape", target_shape=(groups, positions * width))
    options = {"axis": [-1], "epsilon": config.get("epsilon", 1e-3), "center": False, "scale": False}
    then("normalized", "LayerNormalization", **options)
    if groups > 1:
        swapped("back", groups, positions)
    then("joined", "Reshape", target_shape=output)
    gamma, beta = node.weights.get("gamma", 1.0), node.weights.get("beta", 0.0)
    return [*made, affine(node, "", made[-1].name, channels, gamma, beta)]


def unit_normalization(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node]:
    """x / |x| over the last axis, as the first half of LayerNormalization([x, -x]) / sqrt(n).

    [x, -x] has the mean 0 and the variance |x|^2 / n. The norm so stays inside a float operation; on a grid of its own
    a small one would round to 0.
    """
    rank, axis = len(inputs[0]), node.config.get("axis", -1)
    if list(np.atleast_1d(axis)) not in ([-1], [rank]):
        raise refuse(node, f"axis (={axis}) is not the last one alone", "move what it normalises to the last axis")
    channels = inputs[0][-1]
    negated = affine(node, "negated", node.inputs[0], channels, -1.0)
    both = made_by(node, "both", "Concatenate", (node.inputs[0], negated.name), {"axis": rank})
    gamma = np.full(2 * channels, channels**-0.5, np.float32)
    options = {"axis": [-1], "epsilon": _LEAST_SQUARE / channels, "center": False}
    normalized = made_by(node, "normalized", "LayerNormalization", (both.name,), options, {"gamma": gamma})
    half = {"begin": (None,) * rank, "end": (*(None,) * (rank - 1), channels), "strides": (None,) * rank}
    return [negated, both, normalized, node.replace(kind="Slice", config=half, inputs=(normalized.name,))]


LAYERS = {
    "BatchNormalization": Layer(batch_normalization),
    "GroupNormalization": Layer(group_normalization),
    "LayerNormalization": Layer(layer_normalization),
    "Normalization": Layer(),  # the frontends make an Affine of it
    "Rescaling": Layer(rescaling),
    "UnitNormalization": Layer(unit_normalization),
}
