"""Every weight and bias of the file, element by element, against the graph's own and the specification.

A constant is read by the runtime and turned into the Keras layout here; `tfq.export.layout` goes the other way and is
not used. That each axis means what it is taken for is shown where the layer runs alone (`tfq.verify.alone`). Checked
are shape and storage; that scale and zero-point of every element are those of its Keras channel; that the integers are
the simulation's; and, from the weights alone, that they are the nearest on the grid:

    | w - s (q - z) | <= s / 2,  or q is the end of the grid beyond which w lies;   of a bias s = s_input * s_kernel
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tfq.models.graph import Graph, Node
from tfq.models.operators import OPERATORS
from tfq.simulate.weights import weight_integers
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization
from tfq.verify.contents import Contents

# The axes of a kernel in the file, in the order in which Keras has them.
_ORDER = {
    "Conv2D": (1, 2, 3, 0),  # outputs, rows, columns, inputs
    "Conv2DTranspose": (1, 2, 0, 3),  # outputs, rows, columns, inputs
    "Dense": (1, 0),  # outputs, inputs
}
_CHANNEL_AXIS = {"Conv2D": 3, "Conv2DTranspose": 2, "Dense": 1, "DepthwiseConv2D": 2}  # of Keras' kernels
_FLOATS = {"float32": np.float32, "float16": np.float16}
_TIE = 1e-3  # steps: the integers are found in float32


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A weight or bias as the runtime reads it, in the Keras layout: real = scale * (values - zero_point).

    Attributes:
      values: integers, or floats of scale 1.
      scale: broadcasts against `values`.
      axis: of the output channels; None where there are none.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: int
    axis: int | None

    @property
    def channels(self) -> int:
        return self.values.shape[-1 if self.axis is None else self.axis]

    def real(self, channels: np.ndarray | None) -> np.ndarray:
        """float64, of these output channels (None: all)."""
        values, scale = self.values, np.broadcast_to(self.scale, self.values.shape)
        if channels is not None and self.axis is not None:
            values, scale = np.take(values, channels, self.axis), np.take(scale, channels, self.axis)
        return (values.astype(np.float64) - self.zero_point) * scale


@dataclasses.dataclass
class Constants:
    """What was read and found.

    Attributes:
      read: node name -> weight name -> constant; without biases of zeros that the file leaves out.
      weights, biases: tensors checked; integers: compared one by one.
      faults: in words.
    """

    read: dict[str, dict[str, Constant]] = dataclasses.field(default_factory=dict)
    weights: int = 0
    biases: int = 0
    integers: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)


def check_constants(contents: Contents, graph: Graph, spec: QuantizationSpec) -> Constants:
    """All layers with a kernel."""
    found = Constants()
    for layer in spec.layers:
        node = graph[layer.name]
        kernel = OPERATORS[node.kind].kernel
        if not kernel:
            continue
        found.read[layer.name] = {}
        wanted = weight_integers(node, layer)
        for name in (kernel, "bias"):
            label = f"{layer.name}/{name}"
            what = f"{name} of {layer.name!r} ({layers_of(graph, layer.name)})"
            if label not in contents.index:
                # the converter leaves out a bias of zeros
                if name in node.weights and not (name == "bias" and not wanted.get(name, node.weights[name]).any()):
                    found.faults.append(f"{what} is not in the file")
                continue
            constant = _constant(contents, contents.index[label], node, name)
            if constant is None:
                found.faults.append(f"{what} has the shape {list(contents.info(contents.index[label]).shape)}")
                continue
            found.read[layer.name][name] = constant
            found.weights, found.biases = found.weights + (name != "bias"), found.biases + (name == "bias")
            if name not in node.weights:
                found.faults += [f"{what} is not 0, and the layer has none"] if constant.values.any() else []
            elif name in layer.weights:
                found.integers += wanted[name].size
                found.faults += _integer_faults(contents, what, layer, name, node, constant, wanted[name])
                found.faults += _bias_faults(what, layer, name, kernel, spec)
            elif layer.precision in _FLOATS:
                found.faults += _float_faults(contents, what, layer, name, node, constant)
    return found


def layers_of(graph: Graph, name: str) -> str:
    """The Keras layers that a node stands for, in words."""
    origin = graph[name].origin
    return "Keras layer " + origin[0] if len(origin) == 1 else "Keras layers " + ", ".join(origin)


def _constant(contents: Contents, index: int, node: Node, name: str) -> Constant | None:
    """None for a shape that is not the node's."""
    info = contents.info(index)
    elements = contents.elements(index)
    along = [-1 if axis == info.axis and len(info.scale) > 1 else 1 for axis in range(elements.ndim)]
    scale = np.asarray(info.scale or (1.0,)).reshape(along)
    zero_point = info.zero_point[0] if info.zero_point else 0
    scale = np.broadcast_to(scale, elements.shape)
    shape = node.weights[name].shape if name in node.weights else elements.shape
    values, scale = (x if name == "bias" else _in_keras_layout(node.kind, x) for x in (elements, scale))
    if values.size != int(np.prod(shape)) or (values.shape != shape and node.kind != "DepthwiseConv2D"):
        return None
    if name == "bias":
        return Constant(values, scale, zero_point, 0)
    return Constant(values.reshape(shape), scale.reshape(shape), zero_point, _CHANNEL_AXIS.get(node.kind))


def _in_keras_layout(kind: str, values: np.ndarray) -> np.ndarray:
    """A kernel of the file with its axes in Keras' order; a depthwise one [1, rows, columns, channels * multiplier]."""
    return np.transpose(values, _ORDER[kind]) if kind in _ORDER and values.ndim == len(_ORDER[kind]) else values


def _integer_faults(
    contents: Contents,
    what: str,
    layer: LayerQuantization,
    name: str,
    node: Node,
    constant: Constant,
    wanted: np.ndarray,
) -> Iterator[str]:
    grid, index = layer.weights[name], contents.index[f"{layer.name}/{name}"]
    stored = contents.type_of(index)
    if stored != grid.storage:
        yield f"{what} is {stored}{list(contents.info(index).shape)}, specified {grid.storage}"
        return
    steps = np.asarray(grid.scale, np.float64).reshape(_along(grid, constant.values.ndim))
    if not np.array_equal(constant.scale, np.broadcast_to(steps, constant.values.shape)):
        yield f"{what} has scales that differ from the specified ones, or along another axis"
    if set(contents.info(index).zero_point) != {grid.zero_point}:
        yield f"{what} has zero-points other than {grid.zero_point}"
    if not np.array_equal(constant.values, wanted):
        yield f"{what} holds integers that differ from the specified ones"
    codes, weights = constant.values.astype(np.float64) - grid.zero_point, node.weights[name].astype(np.float64)
    low, high = grid.integer_range
    over = (constant.values >= high) & (weights > codes * steps)
    under = (constant.values <= low) & (weights < codes * steps)
    near = np.abs(weights - codes * steps) <= steps * (0.5 + _TIE)
    if not (near | over | under).all() or constant.values.min() < low or constant.values.max() > high:
        yield f"{what} holds integers that are not the nearest to the layer's weights"


def _along(grid: TensorQuantization, rank: int) -> list[int]:
    return [-1 if axis == grid.axis else 1 for axis in range(rank)]


def _bias_faults(what: str, layer: LayerQuantization, name: str, kernel: str, spec: QuantizationSpec) -> Iterator[str]:
    """The specified scales of a bias are those of what it is added to."""
    if name != "bias":
        return
    of_kernel = np.asarray(layer.weights[kernel].scale)
    of_bias = np.asarray(layer.weights[name].scale)
    product = spec.activations[layer.inputs[0]].scale[0] * np.repeat(of_kernel, max(1, len(of_bias) // len(of_kernel)))
    if not np.allclose(of_bias, product, rtol=1e-6, atol=0):
        yield f"{what} has scales that are not those of input and {kernel}"


def _float_faults(
    contents: Contents, what: str, layer: LayerQuantization, name: str, node: Node, constant: Constant
) -> Iterator[str]:
    index = contents.index[f"{layer.name}/{name}"]
    stored = contents.type_of(index)
    if stored != layer.precision:
        yield f"{what} is {stored}{list(contents.info(index).shape)}, specified {layer.precision}"
    elif not np.array_equal(constant.values, node.weights[name].astype(_FLOATS[layer.precision])):
        yield f"{what} holds values that differ from the specified ones"
