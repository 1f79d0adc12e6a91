"""Every layer as the operations of `tfq.operations.table.OPERATORS` and `Affine`.

Each rule (`tfq.models.keras_layers`) is exact in real arithmetic. 1-D layers become 2-D ones on images of height 1;
dense layers on inputs of rank above 2 become 1x1 convolutions, so that weights stay per channel and the batch axis is
kept.
"""

from __future__ import annotations

from tfq.models.carried import carried_node
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.keras_layers import LAYERS
from tfq.models.refusals import NoRuleError
from tfq.models.rewrite import made_by, rewrite


def split_activations(graph: Graph) -> Graph:
    """Give every activation that a layer's config fuses a node of its own, `<layer>.<activation>`."""

    def rule(node: Node) -> list[Node] | None:
        name = node.config.get("activation", "linear")
        if node.kind == "Activation" or name == "linear":
            return None
        bare = node.replace(config={k: v for k, v in node.config.items() if k != "activation"})
        return [bare, made_by(node, name, "Activation", (node.name,), {"activation": name})]

    return rewrite(graph, rule)


def decompose(graph: Graph) -> Graph:
    """Rewrite every node into the kinds of `OPERATORS` and `Affine`; fused activations must be split already.

    A layer that has no such form is carried as it is.
    """
    shapes = tensor_shapes(graph)
    inputs = {node.name: [shapes[i] for i in node.inputs] for node in graph.nodes}

    def rule(node: Node) -> list[Node] | str | None:
        found = LAYERS.get(node.kind)
        if found is None or found.rule is None:
            return None
        try:
            return found.rule(node, inputs[node.name], shapes[node.name])
        except NoRuleError:
            return [carried_node(node, inputs[node.name], shapes[node.name])]

    return rewrite(graph, rule)
