"""Dense layers on inputs of any rank, as 1x1 convolutions where the rank is above 2.

`EinsumDense` is taken where it is a dense layer: it contracts the last axes of its input, in any order,
and puts the new axes last, as in "...x,xy->...y" or "abcd,cde->abe".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import reshaped
from tfq.models.rules.rule import Layer, Shape, refuse


def dense_nodes(
    node: Node, source: str, lead: Shape, kernel: np.ndarray, bias: np.ndarray | None, output: Shape
) -> list[Node]:
    """`source`, seen as [batch, *lead, kernel.shape[0]], times `kernel` plus `bias`, shaped to [batch, *output].

    The node that holds the weights is called as `node`.
    """
    weights = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    config = {"use_bias": bias is not None}
    features, units = kernel.shape
    if lead:
        image: Shape = lead if len(lead) == 2 else (1, int(np.prod(lead)))
        weights = {**weights, "kernel": kernel.reshape(1, 1, features, units)}
        layer = node.replace(kind="Conv2D", config={**config, "filters": units, "kernel_size": (1, 1)}, weights=weights)
    else:
        image = ()
        layer = node.replace(kind="Dense", config={**config, "units": units}, weights=weights)
    return reshaped(node.replace(inputs=(source,)), (*image, features), [layer], output)


def dense(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node] | None:
    """Rule for `Dense`."""
    if len(inputs[0]) == 1:
        return None
    return dense_nodes(node, node.inputs[0], inputs[0][:-1], node.weights["kernel"], node.weights.get("bias"), output)


def _labels(equation: str, rank: int) -> tuple[str, str, str]:
    """Axis labels of input, kernel and output with the ellipsis spelled out; `rank` counts the batch axis."""
    operands, result = equation.replace(" ", "").split("->")
    first, kernel = operands.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    rest = "".join(spare[: rank - len(first.replace("...", ""))])
    return first.replace("...", rest), kernel, result.replace("...", rest)


def einsum_dense(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    """Rule for `EinsumDense`."""
    first, kernel, result = _labels(node.config["equation"], len(inputs[0]) + 1)
    contracted = "".join(c for c in first if c not in result)
    kept = first[: len(first) - len(contracted)]
    new = result[len(kept) :]
    if first != kept + contracted or result[: len(kept)] != kept or sorted(kernel) != sorted(contracted + new):
        raise refuse(
            node,
            f"the equation {node.config['equation']!r} is not a dense layer on the last axes",
            "write it with Dense, Permute and Reshape layers",
        )
    lead = inputs[0][: len(kept) - 1]
    weights = np.einsum(f"{kernel}->{contracted}{new}", node.weights["kernel"])
    sizes = weights.shape[len(contracted) :]
    weights = weights.reshape(-1, int(np.prod(sizes)))
    bias = node.weights.get("bias")
    if bias is not None:
        own = bias.shape[max(bias.ndim - len(sizes), 0) :]
        if bias.size != int(np.prod(own)):
            raise refuse(
                node,
                f"the bias of shape {bias.shape} varies along axes of the input",
                "use bias_axes that name new axes only",
            )
        bias = np.broadcast_to(bias.reshape(own), sizes).reshape(-1)
    return dense_nodes(node, node.inputs[0], lead, weights, bias, output)


LAYERS = {"Dense": Layer(dense), "EinsumDense": Layer(einsum_dense)}
