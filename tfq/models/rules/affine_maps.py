"""Layers that scale and shift every channel, as Affine nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rules.activations import on_last_axis
from tfq.models.rules.rule import Shape, affine, refuse


def batch_normalization(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node]:
    """An Affine node that remembers the mean beta and the deviation |gamma| sqrt(variance / (variance + epsilon)).

    The deviation is what the layer really gives where the moving variance is true. |gamma| alone would tell of
    a channel without variance, a dead one, that it varies.
    """
    weights = {name: np.asarray(w, np.float64) for name, w in node.weights.items()}
    scale = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + node.config.get("epsilon", 1e-3))
    offset = weights.get("beta", 0.0) - weights["moving_mean"] * scale
    axis = node.config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise refuse(node, f"axis (={list(axis)}) names several axes", "normalise over one channel axis")
        axis = axis[0]
    rank, channels = len(inputs[0]), len(scale)

    def mapped(role: str, source: str) -> Node:
        return affine(node, role, source, channels, scale, offset)

    if axis in (-1, rank):
        return [mapped("", node.inputs[0])]
    return on_last_axis(node, axis, rank, lambda source: mapped("affine", source))


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


def normalization(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node]:
    channels = inputs[0][-1]
    given = {name: node.weights.get(name, node.config.get(name)) for name in ("mean", "variance")}
    mean, variance = (_per_channel(node, name, value, channels) for name, value in given.items())
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if node.config.get("invert"):
        return [affine(node, "", node.inputs[0], channels, deviation, mean)]
    return [affine(node, "", node.inputs[0], channels, 1 / deviation, -mean / deviation)]
