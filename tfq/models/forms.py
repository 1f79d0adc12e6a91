"""Operations that a target runs outside its fast path, in equivalent ones that it runs on it.

    hard-swish          x relu6(x + 3) / 6: an ADD whose output is clamped, and two MUL; the factor 1/6 goes into a
                        layer behind it where one can take it
    nearest upsampling  by whole factors r, c: c copies of the channels side by side, read as [height, width c,
                        channels]; r copies of the rows of these, read as [height r, width c, channels]

A row of `FORMS` names TFLite's operator and those that take its place. The table of the target (`tfq.targets`) decides:
a form is chosen where int8 kernels of the fast path take all of them, and none takes the former.

All forms are exact in real arithmetic. On grids, the values in between are rounded too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node
from tfq.models.rewrite import made_by, rewrite
from tfq.models.rules.rule import Shape, affine
from tfq.targets.target import Target

Rule = Callable[[Node, Mapping[str, Shape]], "list[Node] | None"]


@dataclasses.dataclass(frozen=True)
class Form:
    """Another way to compute an operation.

    Attributes:
      operator: TFLite's name of what it would become.
      operators: of what it becomes.
      error: what it loses, as a sentence.
      rule: the nodes in place of one, given the shapes of all tensors; None for one that has no such form.
    """

    operator: str
    operators: tuple[str, ...]
    error: str
    rule: Rule


@dataclasses.dataclass(frozen=True)
class WrittenAnew:
    """Layers that were given another form.

    Attributes:
      operator, operators, error: as in `Form`.
      layers: names of the nodes that had it.
      reason: what the operator does otherwise, as the end of a sentence.
    """

    operator: str
    operators: tuple[str, ...]
    layers: tuple[str, ...]
    reason: str
    error: str


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


_NEAREST = Form("RESIZE_NEAREST_NEIGHBOR", ("CONCATENATION", "RESHAPE"), "The integers are the same.", _upsampling)
FORMS: Mapping[str, Form] = {
    "HardSwish": Form(
        "HARD_SWISH", ("ADD", "MUL"), "It is exact, but the values in between are rounded too.", _hard_swish
    ),
    "UpSampling2D": _NEAREST,
    "Resizing": _NEAREST,
}


def written_for(graph: Graph, target: Target) -> tuple[Graph, tuple[WrittenAnew, ...]]:
    """The graph in the forms that the target runs fast, with Affine nodes among them, and what was written anew."""
    fast = {row.operator for row in target.kernels if row.types == ("int8",)}
    chosen = {
        kind: form for kind, form in FORMS.items() if form.operator not in fast and fast.issuperset(form.operators)
    }
    if not any(node.kind in chosen for node in graph.nodes):
        return graph, ()
    shapes = tensor_shapes(graph)
    done: dict[Form, list[str]] = {}

    def rule(node: Node) -> list[Node] | None:
        form = chosen.get(node.kind)
        made = None if form is None else form.rule(node, shapes)
        if form is not None and made is not None:
            done.setdefault(form, []).append(node.name)
        return made

    written = rewrite(graph, rule)
    reason = f"runs outside {target.path} in int8"
    return written, tuple(
        WrittenAnew(form.operator, form.operators, tuple(layers), reason, form.error) for form, layers in done.items()
    )
