"""What a rule is: it turns one layer of the user into operations of the table and Affine nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.models.graph import Node
from tfq.models.rewrite import made_by

Shape = tuple[int, ...]


Rule = Callable[[Node, Sequence[Shape], Shape], "list[Node] | str | None"]


def refuse(node: Node, why: str, way_out: str) -> UserError:
    """The one form in which a layer is refused."""
    return UserError(f"layer {node.origin[0]!r} ({node.kind}): {why}; {way_out}")


def affine(node: Node, role: str, source: str, channels: int, scale: Any, offset: Any = 0.0) -> Node:
    """A node `<node>.<role>`, or `node` itself where `role` is empty: source * scale + offset."""
    weights = {
        name: np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (channels,)).copy()
        for name, value in (("scale", scale), ("offset", offset))
    }
    if role:
        return made_by(node, role, "Affine", (source,), weights=weights)
    return node.replace(kind="Affine", config={}, weights=weights, inputs=(source,))
