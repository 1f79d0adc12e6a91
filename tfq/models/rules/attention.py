"""Multi-head attention as dense layers, matrix products and a softmax (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

  attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V,
with 1 / sqrt(d) folded into the query projection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfq.models.graph import Node
from tfq.models.rewrite import made_by
from tfq.models.rules.dense import dense_nodes
from tfq.models.rules.rule import Layer, Shape, refuse


def multi_head_attention(node: Node, inputs: Sequence[Shape], output: Shape) -> list[Node]:
    """Rule for `MultiHeadAttention` on [time, features]; inputs are query, value and, if given, key."""
    if any(len(shape) != 2 for shape in inputs):
        shapes = f"its inputs have the shapes {list(inputs)}"
        raise refuse(node, shapes, "expected (time, features): reshape them before the layer")
    heads, depth = node.config["num_heads"], node.config["key_dim"]
    query, value = node.inputs[:2]
    key = node.inputs[2] if len(node.inputs) > 2 else value
    times = {"query": inputs[0][0], "key": inputs[-1][0], "value": inputs[1][0]}
    made: list[Node] = []

    def project(part: str, source: str, factor: float = 1.0) -> str:
        kernel = node.weights[f"{part}/kernel"] * np.float32(factor)
        bias = node.weights.get(f"{part}/bias")
        flat = None if bias is None else (bias * np.float32(factor)).reshape(-1)
        seed = made_by(node, part, "Dense", (source,))
        shape = (times[part], heads, kernel.shape[2])
        made.extend(dense_nodes(seed, source, (times[part],), kernel.reshape(kernel.shape[0], -1), flat, shape))
        made.append(made_by(node, f"{part}.heads", "Permute", (made[-1].name,), {"dims": (2, 1, 3)}))
        return made[-1].name

    q = project("query", query, 1 / np.sqrt(depth))
    k = project("key", key)
    v = project("value", value)
    scores = made_by(node, "scores", "MatMul", (q, k), {"transpose_b": True})
    softmax = made_by(node, "softmax", "Softmax", (scores.name,))
    context = made_by(node, "context", "MatMul", (softmax.name, v))
    joined = made_by(node, "join", "Permute", (context.name,), {"dims": (2, 1, 3)})
    kernel = node.weights["attention_output/kernel"]
    kernel = kernel.reshape(-1, kernel.shape[-1])
    projection = dense_nodes(
        node, joined.name, (times["query"],), kernel, node.weights.get("attention_output/bias"), output
    )
    return [*made, scores, softmax, context, joined, *projection]


LAYERS = {"MultiHeadAttention": Layer(multi_head_attention)}
