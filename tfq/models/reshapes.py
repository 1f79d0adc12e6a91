"""Fewer reshapes: reshape(reshape(x)) = reshape(x), and f(reshape(x)) = reshape(f(x)) for element-wise f.

The second also holds for f over the last axis, such as softmax, where the reshape keeps that axis.

Reshapes move towards the outputs, meet the next one and cancel; what is left of a 1-D network is a 2-D
network with one reshape at either end, and activations stand next to the layers they are fused onto.
"""

from __future__ import annotations

import itertools

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import made_by, rewrite
from tfq.operations.table import operator_of

RESHAPES = ("Reshape", "Flatten")
_GLOBAL_POOLING = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")
_OVER_THE_LAST_AXIS = ("Affine", "FloatAffine", "Softmax", "LayerNormalization", "log_softmax")


def cancel_reshapes(graph: Graph) -> Graph:
    """Drop reshapes that do nothing, join chains of them and move element-wise nodes in front of them."""
    if not any(node.kind in RESHAPES for node in graph.nodes):
        return graph
    shapes = dict(tensor_shapes(graph))
    graph_nodes, readers = graph.by_name, graph.readers
    seen = dict(graph_nodes)  # grows by the nodes made on the way

    def keep(*nodes: Node) -> list[Node]:
        for node in nodes:
            seen[node.name] = node
        return list(nodes)

    def reshape(node: Node) -> list[Node] | str | None:
        source = seen[node.inputs[0]]
        while source.kind in RESHAPES:
            source = seen[source.inputs[0]]
        if shapes[source.name] == shapes[node.name]:
            return source.name
        wanted = {} if node.kind == "Flatten" else {"target_shape": shapes[node.name]}
        if source.name == node.inputs[0] and (not wanted or tuple(node.config["target_shape"]) == shapes[node.name]):
            keep(node)
            return None
        return keep(node.replace(inputs=(source.name,), config=wanted))

    def commutes(node: Node) -> bool:
        sources = [seen[name] for name in node.inputs]
        if any(s.kind not in RESHAPES for s in sources):
            return False
        before, after = shapes[sources[0].inputs[0]], shapes[sources[0].name]
        elementwise = operator_of(node.kind).elementwise
        if elementwise and len(sources) == 2:
            return shapes[sources[1].inputs[0]] == before and shapes[sources[1].name] == after
        if node.config.get("function", node.kind) in _OVER_THE_LAST_AXIS:
            return before[-1:] == after[-1:] and list(np.atleast_1d(node.config.get("axis", -1))) == [-1]
        return elementwise and len(sources) == 1

    def keeps_image(node: Node) -> bool:
        """A global pooling all of whose readers shape it back to [1, 1, channels]."""
        if node.kind not in _GLOBAL_POOLING or node.config.get("keepdims") or node.name in graph.outputs:
            return False
        image = (1, 1, *shapes[node.name])
        return all(graph_nodes[r].kind == "Reshape" and shapes[r] == image for r in readers[node.name])

    def rule(node: Node) -> list[Node] | str | None:
        if keeps_image(node):
            shapes[node.name] = (1, 1, *shapes[node.name])
            return keep(node.replace(config={**node.config, "keepdims": True}))
        if node.kind in RESHAPES:
            return reshape(node)
        if not commutes(node):
            keep(node)
            return None
        target = shapes[node.name]
        moved = node.replace(inputs=tuple(seen[name].inputs[0] for name in node.inputs))
        roles = itertools.chain(["shape"], (f"shape{i}" for i in itertools.count(2)))
        role = next(role for role in roles if f"{node.name}.{role}" not in seen)
        after = made_by(node, role, "Reshape", (node.name,), {"target_shape": target})
        shapes[moved.name], shapes[after.name] = shapes[moved.inputs[0]], target
        return keep(moved, after)

    return rewrite(graph, rule)
