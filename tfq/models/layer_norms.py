"""Layer normalisations that a file holds as means, differences and a root, as one node each.

Between the tensor x and y = gamma (x - mean) / sqrt(variance + epsilon) + beta, exporters write sums, products, squares
and reshapes in many orders. So the place is found by its 1 / sqrt, and what it computes is *tried*: on random x, y has
to be an affine map of the normalised x for every channel. That map gives gamma and beta.

Where a dense layer and others read y, converters fold gamma and beta into the dense layer, and compute y for the others
alone. Then the dense layer is given back what it had, so that all read y:

    W n + b = (W / gamma) y + b - (W / gamma) beta,      y = gamma n + beta
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tfq.models.equality import run_graph, tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.rewrite import merged_origin, without_unused
from tfq.models.rules.rule import Shape

_PARTS = ("Add", "Affine", "Divide", "Mean", "Multiply", "Permute", "Reshape", "Subtract")
_ENDS = ("Add", "Affine", "Divide", "Multiply", "Reshape", "Subtract")
_FUNCTIONS = ("reciprocal", "rsqrt", "sqrt", "square")
_ROOTS = ("rsqrt", "sqrt")
_LARGEST_EPSILON, _LARGEST_ERROR = 0.1, 1e-4
_LEAST_GAIN = 1e-2  # of the largest: what a smaller one lets through, a dense layer can no longer tell
_SPREADS = (1.0, 0.03, 10.0)  # of the samples: small ones show epsilon


def recognise_layer_norms(graph: Graph) -> Graph:
    """The graph with a LayerNormalization in place of each group of nodes that computes one over the last axis."""
    roots = [node.name for node in graph.nodes if node.config.get("function") in _ROOTS]
    shapes = tensor_shapes(graph) if roots else {}
    for root in roots:
        made = _normalised(graph, root, shapes) if root in graph.by_name else None
        graph = graph if made is None else without_unused(graph.with_nodes(made))
    for name in [node.name for node in graph.nodes if node.kind == "LayerNormalization"]:
        graph = _with_own_gain(graph, name)
    return graph


def _with_own_gain(graph: Graph, name: str) -> Graph:
    """The graph in which all read y, where dense layers and one affine map read n."""
    others = [graph[reader] for reader in graph.readers[name]]
    maps, layers = ([node for node in others if node.kind == kind] for kind in ("Affine", "Dense"))
    calls = [node for node in graph.nodes if node.group in {layer.group for layer in layers}]
    if name in graph.outputs or not (len(maps) == 1 and layers and len(others) - 1 == len(layers) == len(calls)):
        return graph
    gain, beta, end = maps[0].weights["scale"], maps[0].weights["offset"], maps[0]
    while end.name not in graph.outputs and [graph[r].kind for r in graph.readers[end.name]] == ["Affine"]:
        (end,) = (graph[r] for r in graph.readers[end.name])
        gain, beta = gain * end.weights["scale"], beta * end.weights["scale"] + end.weights["offset"]
    if np.abs(gain).min() < _LEAST_GAIN * np.abs(gain).max():
        return graph

    def unfolded(layer: Node) -> Node:
        kernel = layer.weights["kernel"] / gain[:, None]
        bias = layer.weights.get("bias", 0.0) - beta @ kernel
        return layer.replace(config={**layer.config, "use_bias": True}, weights={"kernel": kernel, "bias": bias})

    norm = graph[name]
    weights = {"gamma": norm.weights["gamma"] * gain, "beta": norm.weights["beta"] * gain + beta}
    changed = graph.with_nodes(norm.replace(weights=weights, origin=merged_origin(norm, end)), *map(unfolded, layers))
    return without_unused(changed.replace_nodes(changed.nodes, {end.name: name}))


def _may_be_part(node: Node) -> bool:
    broadcasts = node.kind == "Dense" and len(node.weights["kernel"]) == 1
    return broadcasts or node.kind in _PARTS or node.config.get("function") in _FUNCTIONS


def _normalised(graph: Graph, root: str, shapes: Mapping[str, Shape]) -> Node | None:
    """The normalisation that `root` is a part of, in place of the last of its nodes; None where there is none."""
    epsilon = _epsilon(graph, root)
    if epsilon is None:
        return None
    for source, inside in _sources(graph, root):
        if shapes[source] and any(graph[name].kind == "Mean" for name in inside):
            found = _fitted(graph, source, shapes[source], _behind(graph, source, inside), epsilon)
            if found is not None:
                return found
    return None


def _epsilon(graph: Graph, root: str) -> float | None:
    """What is added to the variance."""
    node = graph[graph[root].inputs[0]]
    while node.kind == "Reshape":
        node = graph[node.inputs[0]]
    offset = np.unique(node.weights.get("offset", np.empty(0)))
    return float(offset[0]) if len(offset) == 1 and 0 < offset[0] < _LARGEST_EPSILON else None


def _sources(graph: Graph, root: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Tensors that every way to `root` passes, the nearest first, each with the nodes between the two."""
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    waiting, inside = {root}, set[str]()
    while waiting:
        latest = max(waiting, key=place.__getitem__)
        waiting.remove(latest)
        if not waiting and inside:
            yield latest, frozenset(inside)
        if not _may_be_part(graph[latest]):
            return
        inside.add(latest)
        waiting.update(graph[latest].inputs)


def _behind(graph: Graph, source: str, inside: frozenset[str]) -> list[Node]:
    """The nodes that compute of `source` and of each other alone, in order; those inside are among them."""
    known = {source}
    found = []
    for node in graph.nodes:
        if node.inputs and known.issuperset(node.inputs) and (node.name in inside or _may_be_part(node)):
            known.add(node.name)
            found.append(node)
    return found


def _fitted(graph: Graph, source: str, shape: Shape, nodes: list[Node], epsilon: float) -> Node | None:
    """A LayerNormalization in place of the last of `nodes` that computes one, of what can be taken out."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0.1 * s, s, (4, *shape)) for s in _SPREADS]).astype(np.float32)
    candidates = [node for node in nodes if node.kind in _ENDS]
    part = Graph((Node(source, INPUT, {"shape": shape, "dtype": "float32"}), *nodes), (source,),
                 tuple(node.name for node in candidates))  # fmt: skip
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    for node, y in reversed(list(zip(candidates, run_graph(part, {source: x}), strict=True))):
        map_ = _affine_map(normal, y)
        if map_ is not None and _closed(graph, node.name, source):
            weights = dict(zip(("gamma", "beta"), map_, strict=True))
            origin = merged_origin(*(n for n in nodes if n.name in _needed(graph, node.name, source)))
            config = {"axis": [-1], "epsilon": epsilon}
            return Node(node.name, "LayerNormalization", config, (source,), weights, origin=origin)
    return None


def _affine_map(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(a, b) with y = a x + b for every place of the last axis; None where y is something else."""
    if x.shape != y.shape or not np.isfinite(y).all():
        return None
    rows, results = (values.reshape(-1, x.shape[-1]).astype(np.float64) for values in (x, y))
    mean_x, mean_y = rows.mean(0), results.mean(0)
    scale = ((rows - mean_x) * (results - mean_y)).sum(0) / ((rows - mean_x) ** 2).sum(0)
    offset = mean_y - scale * mean_x
    error = np.abs(scale * rows + offset - results).max()
    if not np.any(scale) or error > _LARGEST_ERROR * np.abs(results).max():
        return None
    return scale.astype(np.float32), offset.astype(np.float32)


def _needed(graph: Graph, name: str, source: str) -> set[str]:
    """`name` and what lies between it and `source`."""
    waiting, found = [name], set[str]()
    while waiting:
        node = waiting.pop()
        if node != source and node not in found:
            found.add(node)
            waiting += graph[node].inputs
    return found


def _closed(graph: Graph, name: str, source: str) -> bool:
    """Whether nothing else reads what lies between `source` and `name`."""
    needed = _needed(graph, name, source)
    inner = needed - {name}
    return not inner & set(graph.outputs) and all(needed.issuperset(graph.readers[n]) for n in inner)
