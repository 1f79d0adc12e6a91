"""Layers of several inputs: sums, products, extremes, products of matrices, concatenation."""

from __future__ import annotations

from collections.abc import Sequence

from tfq.models.graph import Node
from tfq.models.rewrite import made_by
from tfq.models.rules.rule import Shape, affine, refuse


def _same_rank(node: Node, inputs: Sequence[Shape]) -> tuple[list[Node], list[str]]:
    """Reshapes that give every input the rank of the largest, by leading axes of 1, and the names to read then."""
    rank = max(map(len, inputs))
    made, names = [], []
    for i, (name, shape) in enumerate(zip(node.inputs, inputs, strict=True)):
        if len(shape) < rank:
            target = (*(1,) * (rank - len(shape)), *shape)
            made.append(made_by(node, f"input{i}", "Reshape", (name,), {"target_shape": target}))
            name = made[-1].name
        names.append(name)
    return made, names


def merge(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node] | None:
    """Layers of several inputs as chains of two; an average as a sum and a factor."""
    if len(node.inputs) == 2 and len(inputs[0]) == len(inputs[1]) and node.kind != "Average":
        return None
    kind = "Add" if node.kind == "Average" else node.kind
    made, names = _same_rank(node, inputs)
    total = names[0]
    for i, name in enumerate(names[1:], 1):
        last = i == len(names) - 1 and node.kind != "Average"
        made.append(
            node.replace(kind=kind, config={}, inputs=(total, name))
            if last
            else made_by(node, f"{kind.lower()}{i}", kind, (total, name))
        )
        total = made[-1].name
    if node.kind == "Average":
        made.append(affine(node, "", total, output[-1], 1 / len(names)))
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
