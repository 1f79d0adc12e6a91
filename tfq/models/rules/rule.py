"""What a rule is: it turns one layer of the user into operations of the table and Affine nodes.

And what a row is: all that tfq knows of a layer class of Keras. The rows stand beside the rules, by theme;
`tfq.models.keras_layers` collects them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models.graph import Node
from tfq.models.refusals import NoRuleError
from tfq.models.rewrite import made_by

Shape = tuple[int, ...]


Rule = Callable[[Node, Sequence[Shape], Shape], "list[Node] | str | None"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer class of Keras that a frontend makes a node of. A model file may name it.

    Attributes:
      rule: turns the node into operations of `tfq.operations.table` and Affine nodes; None where it is one already.
      aliases: other names of the class.
      training_only: it is the identity outside training.
      moves: its output holds its input's values and nothing computed from them, so that indices stay indices.
      merges: it reads several tensors, all of one rank.
      renamed: tf_keras' names of options and variables that Keras 3 calls otherwise.
    """

    rule: Rule | None = None
    aliases: tuple[str, ...] = ()
    training_only: bool = False
    moves: bool = False
    merges: bool = False
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)


def refuse(node: Node, why: str, way_out: str) -> NoRuleError:
    """Why no rule can be applied; the layer is then carried as it is."""
    return NoRuleError(f"layer {node.origin[0]!r} ({node.kind}): {why}; {way_out}")


def no_int8_operation(node: Node, _: Sequence[Shape], __: Shape) -> None:
    """The rule for layers that the frontends take and no later stop can."""
    raise refuse(node, "there is no int8 operation for it", "replace it by layers of the supported kinds")


def affine(node: Node, role: str, source: str, channels: int, scale: Any, offset: Any = 0.0) -> Node:
    """A node `<node>.<role>`, or `node` itself where `role` is empty: source * scale + offset."""
    weights = {
        name: np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (channels,)).copy()
        for name, value in (("scale", scale), ("offset", offset))
    }
    if role:
        return made_by(node, role, "Affine", (source,), weights=weights)
    return node.replace(kind="Affine", config={}, weights=weights, inputs=(source,))
