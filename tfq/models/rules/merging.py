"""Layers of several inputs: sums, products, extremes, products of matrices, concatenation."""

from __future__ import annotations

from collections.abc import Sequence

from tfq.models.graph import Node
from tfq.models.rewrite import made_by
from tfq.models.rules.rule import Layer, Shape, affine, refuse


def merge(node: Node, _: Sequence[Shape], output: Shape) -> list[Node] | None:
    """Layers of several inputs as chains of two; an average as a sum and a factor."""
    if len(node.inputs) == 2 and node.kind != "Average":
        return None
    kind = "Add" if node.kind == "Average" else node.kind
    made: list[Node] = []
    total = node.inputs[0]
    for i, name in enumerate(node.inputs[1:], 1):
        last = i == len(node.inputs) - 1 and node.kind != "Average"
        made.append(
            node.replace(kind=kind, config={}, inputs=(total, name))
            if last
            else made_by(node, f"{kind.lower()}{i}", kind, (total, name))
        )
        total = made[-1].name
    if node.kind == "Average":
        made.append(affine(node, "", total, output[-1], 1 / len(node.inputs)))
    return made


def dot(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    axes = node.config["axes"]
    axes = (axes, axes) if isinstance(axes, int) else tuple(axes)
    ranks = tuple(map(len, inputs))
    first, second = (axis % (rank + 1) for axis, rank in zip(axes, ranks, strict=True))
    if node.config.get("normalize"):
        raise refuse(node, "normalize=True has no int8 operation", "use a plain product")
    if ranks == (1, 1):
        rows = [
            made_by(node, f"row{i}", "Reshape", (name,), {"target_shape": (1, *shape)})
            for i, (name, shape) in enumerate(zip(node.inputs, inputs, strict=True))
        ]
        product = node.replace(kind="MatMul", config={"transpose_b": True}, inputs=tuple(r.name for r in rows))
        return [*rows, product, made_by(node, "scalar", "Reshape", (node.name,), {"target_shape": output})]
    if ranks != (2, 2):
        raise refuse(node, f"it multiplies inputs of shapes {inputs[0]} and {inputs[1]}", "reshape both to rank 3")
    return [node.replace(kind="MatMul", config={"transpose_a": first == 1, "transpose_b": second == 2})]


def concatenate(node: Node, inputs: Sequence[Shape], _: Shape) -> list[Node] | str | None:
    if len(node.inputs) == 1:
        return node.inputs[0]
    if node.config.get("axis", -1) % (len(inputs[0]) + 1) == 0:
        raise refuse(node, "it joins the batch axis", "join along another axis")
    return None


LAYERS = {
    "Concatenate": Layer(concatenate, moves=True, merges=True),
    "Dot": Layer(dot),
    **dict.fromkeys(("Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract"), Layer(merge, merges=True)),
}
