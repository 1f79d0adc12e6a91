"""Activations, and normalisations over the last axis, as operations of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by
from tfq.models.rules.rule import Shape, affine, refuse

_SIMPLE_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "relu6": ("ReLU", {"max_value": 6.0}),
    "leaky_relu": ("LeakyReLU", {"alpha": 0.2}),
    "elu": ("ELU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {}),
    "hard_swish": ("HardSwish", {}),
    "hard_silu": ("HardSwish", {}),
    "gelu": ("Gelu", {"approximate": False}),
    "exponential": ("Unary", {"function": "exp"}),
    **{name: ("Unary", {"function": name}) for name in ("selu", "softplus", "softsign", "log_softmax")},
}


def activation(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | str:
    function, source = node.config["activation"], node.inputs[0]
    if function == "linear":
        return source
    if function in ("swish", "silu"):
        gate = made_by(node, "sigmoid", "Sigmoid", (source,))
        return [gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
    if function == "mish":
        softplus = made_by(node, "softplus", "Unary", (source,), {"function": "softplus"})
        gate = made_by(node, "tanh", "Tanh", (softplus.name,))
        return [softplus, gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
    if function == "hard_sigmoid":  # tf_keras: clip(0.2 x + 0.5, 0, 1) = relu6(1.2 x + 3) / 6
        shifted = affine(node, "shift", source, inputs[0][-1], 1.2, 3.0)
        clipped = made_by(node, "relu6", "ReLU", (shifted.name,), {"max_value": 6.0})
        return [shifted, clipped, affine(node, "", clipped.name, inputs[0][-1], 1 / 6)]
    if function not in _SIMPLE_ACTIVATIONS:
        raise refuse(
            node,
            f"the activation {function!r} is not known (known: linear, swish, mish, hard_sigmoid,"
            f" {', '.join(_SIMPLE_ACTIVATIONS)})",
            "use one of these, or build it from layers",
        )
    kind, config = _SIMPLE_ACTIVATIONS[function]
    return [node.replace(kind=kind, config=config)]


def relu(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | None:
    limit, slope = node.config.get("max_value"), node.config.get("negative_slope") or 0.0
    if node.config.get("threshold"):
        raise refuse(node, f"threshold (={node.config['threshold']}) has no int8 operation", "use threshold=0")
    plain = {} if limit is None else {"max_value": 6.0}
    if slope:
        if limit is not None:
            raise refuse(node, "max_value together with negative_slope has no int8 operation", "use only one of them")
        return [node.replace(kind="LeakyReLU", config={"alpha": float(slope)})]
    if limit is None or limit == 6.0:
        return None if dict(node.config) == plain else [node.replace(config=plain)]
    # clip(x, 0, m) = relu6(x * 6 / m) * m / 6
    scaled = affine(node, "scale", node.inputs[0], inputs[0][-1], 6.0 / limit)
    clipped = made_by(node, "relu6", "ReLU", (scaled.name,), plain)
    return [scaled, clipped, affine(node, "", clipped.name, inputs[0][-1], limit / 6.0)]


def elu(node: Node, _: Sequence[Shape], __: Shape) -> None:
    if node.config.get("alpha", 1.0) != 1.0:
        raise refuse(node, f"alpha (={node.config['alpha']}) is not 1, the only one that TFLite has", "use alpha=1")


def prelu(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node] | None:
    """On an image [h, w, channels], the rank that the kernels take; of one slope a channel where that is enough."""
    shape, alpha = inputs[0], node.weights["alpha"]
    if len(shape) == 3:
        return None
    if alpha.size == alpha.shape[-1]:
        slopes = np.broadcast_to(alpha.reshape(1, 1, -1), (1, 1, shape[-1]))
    else:
        slopes = np.broadcast_to(alpha, shape).reshape(1, -1, shape[-1])
    image = (1, int(np.prod(shape[:-1])), shape[-1])
    before = made_by(node, "image", "Reshape", node.inputs, {"target_shape": image})
    after = made_by(node, "shape", "Reshape", (node.name,), {"target_shape": output})
    shared = [axis for axis in (1, 2, 3) if slopes.shape[axis - 1] == 1]
    weights = {"alpha": np.ascontiguousarray(slopes)}
    return [before, node.replace(config={"shared_axes": shared}, weights=weights, inputs=(before.name,)), after]


def softmax(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | None:
    rank = len(inputs[0])
    axis = node.config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise refuse(node, f"axis (={list(axis)}) names several axes", "flatten them with a Reshape layer")
        axis = axis[0]
    if axis in (-1, rank):
        return None if not node.config else [node.replace(config={})]
    return on_last_axis(node, axis, rank, lambda source: made_by(node, "moved", "Softmax", (source,)))


def on_last_axis(node: Node, axis: int, rank: int, make: Callable[[str], Node]) -> list[Node]:
    """Swap `axis` (counted with the batch axis) and the last axis, do `make`, and swap them back."""
    axis = axis % (rank + 1)
    dims = list(range(1, rank + 1))
    dims[axis - 1], dims[-1] = dims[-1], dims[axis - 1]
    before = made_by(node, "to_last", "Permute", node.inputs, {"dims": tuple(dims)})
    moved = make(before.name)
    return [before, moved, node.replace(kind="Permute", config={"dims": tuple(dims)}, weights={}, inputs=(moved.name,))]


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
