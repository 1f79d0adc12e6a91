"""Patterns that become one operation: repeated nodes, hard-swish, ReLU clamps, padding inside a convolution.

Also the split of grouped convolutions, which comes last so that everything else was folded into them before.
"""

from __future__ import annotations

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.pooling import pair
from tfq.models.rewrite import made_by, merged_origin, rewrite, sole_readers
from tfq.operations.table import matrix_of, operator_of

_IDEMPOTENT = ("abs", "ceil", "floor", "sign")
_REDUCTIONS = ("Mean", "GlobalAveragePooling2D", "GlobalMaxPooling2D")


def merge_duplicates(graph: Graph) -> Graph:
    """Nodes that compute the same from the same inputs become one, outputs of the model too.

    TFLiteConverter does so too, and the file would lack a node that is specified.
    """
    kept: dict[str, list[Node]] = {}
    merged: dict[str, list[Node]] = {}

    def rule(node: Node) -> str | None:
        config = sorted((key, value) for key, value in node.config.items() if value is not None and value is not False)
        alike = kept.setdefault(repr((node.kind, config, node.inputs, node.activation)), [])
        first = next((other for other in alike if _same_weights(node, other)), node)
        if first is node:
            alike.append(node)
            return None
        merged.setdefault(first.name, []).append(node)
        return first.name

    slim = rewrite(graph, rule)

    def name_all(node: Node) -> list[Node] | None:
        return [node.replace(origin=merged_origin(node, *merged[node.name]))] if node.name in merged else None

    return rewrite(slim, name_all)


def _same_weights(a: Node, b: Node) -> bool:
    return a.weights.keys() == b.weights.keys() and all(np.array_equal(w, b.weights[n]) for n, w in a.weights.items())


def drop_identities(graph: Graph) -> Graph:
    """Without nodes that give what they read, or that but for axes of size 1, which a reshape takes out.

    TFLiteConverter drops them, and the file would lack them.
    """
    if not any(operator_of(node.kind).optional or node.kind in _REDUCTIONS for node in graph.nodes):
        return graph
    shapes = tensor_shapes(graph)
    sources = {node.name: node.inputs[0] for node in graph.nodes if node.inputs}

    def reduces_nothing(node: Node) -> bool:
        axes = node.config["axes"] if node.kind == "Mean" else (1, 2)
        return node.kind in _REDUCTIONS and all(shapes[sources[node.name]][axis - 1] == 1 for axis in axes)

    def is_identity(node: Node) -> bool:
        if not operator_of(node.kind).optional or shapes[node.name] != shapes[sources[node.name]]:
            return False
        if node.kind == "Permute":
            moved = [axis for axis in node.config["dims"] if shapes[node.name][axis - 1] > 1]
            return moved == sorted(moved)
        if node.kind == "Slice":
            return all(step in (None, 1) for step in node.config["strides"])
        if node.kind in ("MaxPooling2D", "AveragePooling2D"):
            return pair(node.config.get("pool_size", 2)) == (1, 1)
        return True

    def rule(node: Node) -> list[Node] | str | None:
        if is_identity(node):
            return node.inputs[0]
        if reduces_nothing(node):
            return [node.replace(kind="Reshape", config={"target_shape": shapes[node.name]})]
        return None

    return rewrite(graph, rule)


def _factor(node: Node) -> float | None:
    """c if the node computes x * c with one c for all channels."""
    if node.kind != "Affine" or node.weights["offset"].any() or np.ptp(node.weights["scale"]) != 0:
        return None
    return float(node.weights["scale"].flat[0])


def _is_relu6(node: Node) -> bool:
    return node.kind == "ReLU" and dict(node.config) == {"max_value": 6.0}


def recognise_hard_swish(graph: Graph) -> Graph:
    """x * relu6(x + 3) / 6, the factor anywhere in the product, as one HardSwish node (Howard et al. 2019, eq. 5)."""
    nodes = graph.by_name

    def peel(name: str) -> tuple[str, float]:
        node, total = nodes[name], 1.0
        while (factor := _factor(node)) is not None:
            total, node = total * factor, nodes[node.inputs[0]]
        return node.name, total

    def is_gate(name: str, x: str) -> bool:
        gate = nodes[name]
        if not _is_relu6(gate):
            return False
        shifted = nodes[gate.inputs[0]]
        if shifted.kind != "Affine" or shifted.inputs[0] != x:
            return False
        return bool(np.all(shifted.weights["scale"] == 1.0) and np.allclose(shifted.weights["offset"], 3.0, 0, 1e-6))

    def argument(name: str) -> tuple[str, list[Node]] | None:
        """x and the nodes that compute its hard-swish, if `name` is one."""
        base, factor = peel(name)
        product = nodes[base]
        if product.kind != "Multiply" or len(product.inputs) != 2:
            return None
        (a, first), (b, second) = map(peel, product.inputs)
        if not np.isclose(factor * first * second, 1 / 6, rtol=1e-6):
            return None
        for x, gate in ((a, b), (b, a)):
            if is_gate(gate, x):
                return x, [product, nodes[gate], nodes[nodes[gate].inputs[0]]]
        return None

    found = {node.name: argument(node.name) for node in graph.nodes if node.kind in ("Multiply", "Affine")}

    def rule(node: Node) -> list[Node] | None:
        match = found.get(node.name)
        if match is None:
            return None
        x, parts = match
        return [node.replace(kind="HardSwish", config={}, weights={}, inputs=(x,), origin=merged_origin(*parts, node))]

    return rewrite(graph, rule)


def merge_clamps(graph: Graph) -> Graph:
    """A ReLU or ReLU6 behind another one becomes one with it, and so does a function that once is as good as twice."""

    def is_clamp(node: Node) -> bool:
        return node.kind == "ReLU" and (dict(node.config) == {} or _is_relu6(node))

    clamps: dict[str, Node] = {}  # those that stay
    functions: dict[str, str] = {}

    def rule(node: Node) -> list[Node] | str | None:
        function = node.config.get("function")
        if node.kind == "Unary" and function in _IDEMPOTENT:
            if functions.get(node.inputs[0]) == function:
                return node.inputs[0]
            functions[node.name] = function
        if not is_clamp(node):
            return None
        inner = clamps.get(node.inputs[0])
        if inner is None:
            clamps[node.name] = node
            return None
        if _is_relu6(inner) or not _is_relu6(node):
            return inner.name
        clamps[node.name] = node.replace(inputs=inner.inputs, origin=merged_origin(inner, node))
        return [clamps[node.name]]

    return rewrite(graph, rule)


def clamp_before_gelu(graph: Graph) -> Graph:
    """relu(gelu(x)) = gelu(relu(x)), and relu6 likewise to 1e-8; TFLiteConverter has no float form of the left side."""
    nodes, readers = graph.by_name, sole_readers(graph)

    def rule(node: Node) -> list[Node] | None:
        gelu = nodes[node.inputs[0]]
        if node.kind != "ReLU" or gelu.kind != "Gelu" or readers[gelu.name] is None:
            return None
        clamp = made_by(node, "clamp", "ReLU", gelu.inputs, node.config)
        origin = merged_origin(gelu, node)
        return [clamp, node.replace(kind="Gelu", config=gelu.config, inputs=(clamp.name,), origin=origin)]

    return rewrite(graph, rule)


def fuse_activations(graph: Graph) -> Graph:
    """A ReLU or ReLU6 becomes the `activation` of the node that computes its input, where that node allows clamps.

    It also passes back through operations that only move or compare values. The value before it must
    be read by nothing else and be no output of the model.
    """
    nodes, readers = graph.by_name, sole_readers(graph)

    def producers(name: str) -> list[str] | None:
        """The nodes to clamp so that `name` is clamped, or None if there is one that cannot be."""
        node = nodes[name]
        if readers[name] is None:
            return None
        operator = operator_of(node.kind)
        if operator.clamps:
            return [name] if node.activation is None else None
        bilinear = node.kind == "UpSampling2D" and node.config.get("interpolation", "nearest") != "nearest"
        if not operator.selects or bilinear:
            return None
        found = [producers(source) for source in node.inputs]
        return None if any(f is None for f in found) else [p for f in found if f for p in f]

    clamps: dict[str, Node] = {}
    fused: set[str] = set()
    for node in graph.nodes:
        if node.kind == "ReLU" and (dict(node.config) == {} or _is_relu6(node)):
            found = producers(node.inputs[0])
            if found and not any(name in clamps for name in found):
                clamps.update(dict.fromkeys(found, node))
                fused.add(node.name)

    def rule(node: Node) -> list[Node] | str | None:
        if node.name in fused:
            return node.inputs[0]
        if node.name not in clamps:
            return None
        relu = clamps[node.name]
        return [node.replace(activation="relu6" if relu.config else "relu", origin=merged_origin(node, relu))]

    return rewrite(graph, rule)


def _padding(node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    padding = node.config.get("padding", (1, 1))
    rows, columns = padding if isinstance(padding, (list, tuple)) else (padding, padding)
    return pair(rows), pair(columns)


def absorb_padding(graph: Graph) -> Graph:
    """ZeroPadding2D before a convolution without padding, where it is just what padding="same" would add.

    TensorFlow's "same" adds max((ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) rows, the smaller half first.
    """
    if not any(node.kind == "ZeroPadding2D" for node in graph.nodes):
        return graph
    shapes, nodes = tensor_shapes(graph), graph.by_name

    def same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        return total // 2, total - total // 2

    def rule(node: Node) -> list[Node] | None:
        matrix = matrix_of(node.kind)
        if matrix is None or not matrix.window_axes or matrix.transposed:
            return None
        if node.config.get("padding", "valid") != "valid":
            return None
        pad = nodes[node.inputs[0]]
        if pad.kind != "ZeroPadding2D":
            return None
        numbers = [pair(node.config.get(key, 1)) for key in ("kernel_size", "strides", "dilation_rate")]
        size = shapes[pad.inputs[0]][:2]
        if _padding(pad) != tuple(same(n, k, s, d) for n, k, s, d in zip(size, *numbers, strict=True)):
            return None
        config = {**node.config, "padding": "same"}
        return [node.replace(config=config, inputs=pad.inputs, origin=merged_origin(pad, node))]

    return rewrite(graph, rule)


def split_groups(graph: Graph) -> Graph:
    """Conv2D with groups > 1 as slices of the channels, a convolution for each and a concatenation."""

    def rule(node: Node) -> list[Node] | None:
        groups = node.config.get("groups", 1) if node.kind == "Conv2D" else 1
        if groups == 1:
            return None
        channels = node.weights["kernel"].shape[2]
        config = {k: v for k, v in node.config.items() if k != "groups"}
        parts = {name: np.split(w, groups, axis=-1) for name, w in node.weights.items()}
        config["filters"] = parts["kernel"][0].shape[3]
        slices, layers = [], []
        for g in range(groups):
            begin, end = (None, None, g * channels), (None, None, (g + 1) * channels)
            window = {"begin": begin, "end": end, "strides": (None, None, None)}
            slices.append(made_by(node, f"slice{g}", "Slice", node.inputs, window))
            weights = {name: w[g] for name, w in parts.items()}
            layer = made_by(node, f"group{g}", "Conv2D", (slices[-1].name,), config, weights)
            layers.append(layer.replace(activation=node.activation))
        joined = made_by(node, "concatenate", "Concatenate", [layer.name for layer in layers])
        return [*slices, *layers, joined]

    return rewrite(graph, rule)
