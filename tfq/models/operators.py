"""The operators of both frameworks by name: what the frontends take, and what a model file may name.

The rows stand beside the functions, by theme. Nothing here imports TensorFlow, as in `tfq.models.keras_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfq.models import dot_product, operations, shaping
from tfq.models.flatten import Call

_Found = tuple[Callable[..., Any], str]
_ROWS = (*operations.ROWS, *shaping.ROWS, *dot_product.ROWS)
KERAS: Mapping[str, _Found] = {name: (row.rule, names) for row in _ROWS for name, names in row.keras.items()}
TENSORFLOW: Mapping[str, _Found] = {name: (row.rule, names) for row in _ROWS for name, names in row.tensorflow.items()}
READ_MASKS = ("DotProductAttention",)
"""Of keras.ops: those whose rule takes truth values."""
SHAPES = ("shape", "compat.v1.shape", "shape_v2")
"""TensorFlow's operators on shapes: the batch size in what they give is None, every other entry a number."""


def add_nodes(call: Call, found: _Found, value: Callable[[str], Any]) -> Any:
    """The output of an operator of one of these tables; `value` gives an argument by its name, or None."""
    rule, names = found
    given = ([value(name) for name in alternatives.split("|")] for alternatives in names.split())
    return rule(call, *(next((v for v in values if v is not None), None) for values in given))
