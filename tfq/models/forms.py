"""Operations that a target runs outside its fast path, in equivalent ones that it runs on it.

    hard-swish          x relu6(x + 3) / 6: an ADD whose output is clamped, and two MUL; the factor 1/6 goes into a
                        layer behind it where one can take it
    nearest upsampling  by whole factors r, c: c copies of the channels side by side, read as [height, width c,
                        channels]; r copies of the rows of these, read as [height r, width c, channels]
    average pooling     a depthwise convolution, and a factor for each place where windows reach over the edge
                        (`tfq.models.pooling`)
    prelu               slope x + relu((1 - slope) x), for slopes of the channels up to 1; with one slope LeakyReLU
    maximum, minimum    relu(a - b) + b;  a - relu(a - b)
    gelu                the float one, between a DEQUANTIZE and a QUANTIZE: XNNPACK makes one table of the three
    softmax             the float one likewise, and what it gives has a grid of its own; not where it ends the model

A row of `FORMS` names TFLite's operator and those that take its place. The table of the target (`tfq.targets`) decides:
a form is chosen where kernels of the fast path take all of them, and no int8 kernel takes the former.

Large windows of depthwise convolutions are split for a target that takes only so many taps (`tfq.models.windows`), and
concatenations for one that joins only so many tensors (`tfq.models.joins`). Slices of channels that take turns become a
transposition where it is faster (`tfq.models.interleaved`).

All forms are exact in real arithmetic. On grids, the values in between are rounded too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.interleaved import split_interleaved
from tfq.models.joins import split_joins
from tfq.models.pooling import as_convolution
from tfq.models.reshapes import RESHAPES
from tfq.models.rewrite import made_by, rewrite
from tfq.models.rules.rule import Shape, affine
from tfq.models.windows import split_windows
from tfq.targets.target import Target

Rule = Callable[[Node, Mapping[str, Shape]], "list[Node] | None"]
_Split = Callable[[Graph, int], tuple[Graph, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Form:
    """Another way to compute an operation.

    Attributes:
      operator: TFLite's name of what it would become.
      operators: of what it becomes.
      error: what it loses, as a sentence.
      rule: the nodes in place of one, given the shapes of all tensors; None for one that has no such form.
      dtype: what the operators compute on.
    """

    operator: str
    operators: tuple[str, ...]
    error: str
    rule: Rule
    dtype: str = "int8"


@dataclasses.dataclass(frozen=True)
class WrittenAnew:
    """Layers that were given another form.

    Attributes:
      operator, operators, error, dtype: as in `Form`.
      layers: names of the nodes that had it.
      reason: what the operator does otherwise, as the end of a sentence.
    """

    operator: str
    operators: tuple[str, ...]
    layers: tuple[str, ...]
    reason: str
    error: str
    dtype: str = "int8"


def _hard_swish(node: Node, shapes: Mapping[str, Shape]) -> list[Node]:
    (source,), channels = node.inputs, shapes[node.name][-1]
    shifted = made_by(node, "shifted", "AddConstant", (source,), {"constant": 3.0})
    gate = made_by(node, "gate", "ReLU", (shifted.name,), {"max_value": 6.0})
    product = made_by(node, "product", "Multiply", (source, gate.name))
    return [shifted, gate, product, affine(node, "", product.name, channels, 1 / 6)]


def _upsampling(node: Node, shapes: Mapping[str, Shape]) -> list[Node] | None:
    (height, width, _), (rows, columns, channels) = shapes[node.inputs[0]], shapes[node.name]
    default = "nearest" if node.kind == "UpSampling2D" else "bilinear"
    nearest = node.config.get("interpolation", default) == "nearest" and "aligned" not in node.config
    if not nearest or rows % height or columns % width:
        return None
    made, source = [], node.inputs
    if columns > width:
        made.append(made_by(node, "columns", "Concatenate", source * (columns // width)))
        source = (made[-1].name,)
    if rows > height:
        made.append(made_by(node, "wide", "Reshape", source, {"target_shape": (height, 1, columns * channels)}))
        made.append(made_by(node, "rows", "Concatenate", (made[-1].name,) * (rows // height)))
        source = (made[-1].name,)
    return [*made, node.replace(kind="Reshape", config={"target_shape": (rows, columns, channels)}, inputs=source)]


def _average_pooling(node: Node, shapes: Mapping[str, Shape]) -> list[Node] | None:
    return as_convolution(node, shapes[node.inputs[0]], shapes[node.name])


def _prelu(node: Node, _: Mapping[str, Shape]) -> list[Node] | None:
    slopes, (source,) = node.weights["alpha"], node.inputs
    if slopes.size > slopes.shape[-1] or slopes.max() > 1:
        return None
    if not np.ptp(slopes):
        return [node.replace(kind="LeakyReLU", config={"alpha": float(slopes.flat[0])}, weights={})]
    channels = slopes.shape[-1]
    slope = affine(node, "slope", source, channels, slopes)
    rest = affine(node, "rest", source, channels, 1 - slopes)
    kept = made_by(node, "kept", "ReLU", (rest.name,))
    return [slope, rest, kept, node.replace(kind="Add", config={}, weights={}, inputs=(slope.name, kept.name))]


def _larger(node: Node, _: Mapping[str, Shape]) -> list[Node] | None:
    difference, above = _above(node)
    return [difference, above, node.replace(kind="Add", inputs=(node.inputs[1], above.name))]


def _smaller(node: Node, _: Mapping[str, Shape]) -> list[Node] | None:
    difference, above = _above(node)
    return [difference, above, node.replace(kind="Subtract", inputs=(node.inputs[0], above.name))]


def _above(node: Node) -> tuple[Node, Node]:
    """a - b, and the part of it above 0."""
    difference = made_by(node, "difference", "Subtract", node.inputs)
    return difference, made_by(node, "above", "ReLU", (difference.name,))


def _gelu(node: Node, _: Mapping[str, Shape]) -> list[Node]:
    return [node.replace(kind="FloatGelu")]


def _softmax(node: Node, _: Mapping[str, Shape]) -> list[Node]:
    return [node.replace(kind="FloatSoftmax")]


_SAME = "The integers are the same."
_NEAREST = Form("RESIZE_NEAREST_NEIGHBOR", ("CONCATENATION", "RESHAPE"), _SAME, _upsampling)
_ROUNDED = "It is exact, but the values in between are rounded too."
FORMS: Mapping[str, Form] = {
    "AveragePooling2D": Form("AVERAGE_POOL_2D", ("DEPTHWISE_CONV_2D", "MUL"), _ROUNDED, _average_pooling),
    "Gelu": Form("GELU", ("GELU",), "It is exact.", _gelu, "float32"),
    "HardSwish": Form("HARD_SWISH", ("ADD", "MUL"), _ROUNDED, _hard_swish),
    "Maximum": Form("MAXIMUM", ("SUB", "ADD"), _ROUNDED, _larger),
    "Minimum": Form("MINIMUM", ("SUB",), _ROUNDED, _smaller),
    "PReLU": Form("PRELU", ("DEPTHWISE_CONV_2D", "ADD"), _ROUNDED, _prelu),
    "Softmax": Form("SOFTMAX", ("SOFTMAX",), "It is exact.", _softmax, "float32"),
    "UpSampling2D": _NEAREST,
    "Resizing": _NEAREST,
}


def written_for(graph: Graph, target: Target) -> tuple[Graph, tuple[WrittenAnew, ...]]:
    """The graph in the forms that the target runs fast, with Affine nodes among them, and what was written anew."""
    fast = {(row.operator, row.types[0]) for row in target.kernels if len(row.types) == 1}
    chosen = {
        kind: form
        for kind, form in FORMS.items()
        if (form.operator, "int8") not in fast and fast.issuperset((name, form.dtype) for name in form.operators)
    }
    shapes = tensor_shapes(graph) if any(node.kind in chosen for node in graph.nodes) else {}
    done: dict[Form, list[str]] = {}
    ends = set(graph.outputs)  # a float there would change the type of an output
    for node in reversed(graph.nodes):
        if node.name in ends and node.kind in RESHAPES:
            ends.update(node.inputs)

    def rule(node: Node) -> list[Node] | None:
        form = chosen.get(node.kind)
        if form is not None and form.dtype != "int8" and node.name in ends:
            return None
        made = None if form is None else form.rule(node, shapes)
        if form is not None and made is not None:
            done.setdefault(form, []).append(node.name)
        return made

    reason = f"runs outside {target.path} in int8"
    written = rewrite(graph, rule)
    anew = [
        WrittenAnew(form.operator, form.operators, tuple(layers), reason, form.error, form.dtype)
        for form, layers in done.items()
    ]
    written, split = split_for(written, target)
    return written, (*anew, *split)


def split_for(graph: Graph, target: Target) -> tuple[Graph, tuple[WrittenAnew, ...]]:
    """The graph without what the target computes slowly because it is large, whatever it computes on."""
    taps = f"has more than {target.most_taps} taps, which {target.path} computes several times more slowly"
    joined = f"joins more than {target.most_joined} tensors, which runs outside {target.path}"
    interleaved = f"copies channels one by one, which {target.path} computes several times more slowly"
    rows: tuple[tuple[_Split, int | None, str, tuple[str, ...], str, str], ...] = (
        (
            split_windows,
            target.most_taps,
            "DEPTHWISE_CONV_2D",
            ("STRIDED_SLICE", "DEPTHWISE_CONV_2D", "ADD"),
            taps,
            _ROUNDED,
        ),
        (split_joins, target.most_joined, "CONCATENATION", ("CONCATENATION",), joined, _SAME),
        (split_interleaved, target.most_interleaved, "SLICE", ("TRANSPOSE", "SLICE"), interleaved, _SAME),
    )
    anew = []
    for split, most, operator, operators, reason, error in rows:
        if most is not None:
            graph, layers = split(graph, most)
            anew += [WrittenAnew(operator, operators, layers, reason, error)] if layers else []
    return graph, tuple(anew)
