"""Activations as operations of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by, reshaped
from tfq.models.rules.rule import Layer, Shape, affine, no_int8_operation, refuse

# Of the names that the frontends keep.
_SIMPLE_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "elu": ("ELU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {}),
    "gelu": ("Gelu", {"approximate": False}),
    "exponential": ("Unary", {"function": "exp"}),
    **{name: ("Unary", {"function": name}) for name in ("selu", "softplus", "softsign")},
}


def activation(node: Node, _: Sequence[Shape], __: Shape) -> list[Node] | str:
    function, source = node.config["activation"], node.inputs[0]
    if function == "linear":
        return source
    if function == "swish":
        gate = made_by(node, "sigmoid", "Sigmoid", (source,))
        return [gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
    if function == "mish":
        softplus = made_by(node, "softplus", "Unary", (source,), {"function": "softplus"})
        gate = made_by(node, "tanh", "Tanh", (softplus.name,))
        return [softplus, gate, node.replace(kind="Multiply", config={}, inputs=(source, gate.name))]
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


def leaky_relu(node: Node, _: Sequence[Shape], __: Shape) -> list[Node] | None:
    """Without a slope: ReLU."""
    return None if node.config.get("alpha", 1.0) else [node.replace(kind="ReLU", config={})]


def prelu(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node] | None:
    """On an image [h, w, channels], the rank that the kernels take; of one slope a channel where that is enough.

    As Keras makes it, with slopes of 0: ReLU.
    """
    shape, alpha = inputs[0], node.weights["alpha"]
    if not alpha.any():
        return [node.replace(kind="ReLU", config={}, weights={})]
    if len(shape) == 3:
        return None
    if alpha.size == alpha.shape[-1]:
        slopes = np.broadcast_to(alpha.reshape(1, 1, -1), (1, 1, shape[-1]))
    else:
        slopes = np.broadcast_to(alpha, shape).reshape(1, -1, shape[-1])
    shared = [axis for axis in (1, 2, 3) if slopes.shape[axis - 1] == 1]
    layer = node.replace(config={"shared_axes": shared}, weights={"alpha": np.ascontiguousarray(slopes)})
    return reshaped(node, (1, int(np.prod(shape[:-1])), shape[-1]), [layer], output)


def softmax(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | None:
    rank = len(inputs[0])
    axis = node.config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise refuse(node, f"axis (={list(axis)}) names several axes", "flatten them with a Reshape layer")
        axis = axis[0]
    if axis in (-1, rank):
        return None if not node.config else [node.replace(config={})]
    dims = list(range(1, rank + 1))
    dims[axis % (rank + 1) - 1], dims[-1] = dims[-1], dims[axis % (rank + 1) - 1]
    before = made_by(node, "to_last", "Permute", node.inputs, {"dims": tuple(dims)})
    moved = made_by(node, "moved", "Softmax", (before.name,))
    return [before, moved, node.replace(kind="Permute", config={"dims": tuple(dims)}, weights={}, inputs=(moved.name,))]


LAYERS = {
    "Activation": Layer(activation),
    "ELU": Layer(elu),
    "LeakyReLU": Layer(leaky_relu, renamed={"negative_slope": "alpha"}),
    "PReLU": Layer(prelu),
    "ReLU": Layer(relu),
    "Softmax": Layer(softmax),
    "ThresholdedReLU": Layer(no_int8_operation),
}
