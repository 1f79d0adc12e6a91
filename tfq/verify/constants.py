"""Every weight and bias of the file, element by element, against those of the quantised model.

A constant is read by the runtime and turned into the Keras layout here; `tfq.export.layout` goes the other way and is
not used. That each axis means what it is taken for is shown where the layer runs alone (`tfq.verify.alone`). Checked
are shape and storage; that scale and zero-point of every element are those of its Keras channel; that the integers are
the simulation's; and, from the weights alone, that they are the nearest on the grid:

    | w - s (q - z) | <= s / 2,  or q is the end of the grid beyond which w lies;   of a bias s = s_input * s_kernel

and that those of a codebook are in it, with no other of it nearer to the weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tfq.grid import copied_wide
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import weight_integers
from tfq.verify.contents import Contents
from tfq.verify.definitions import CHANNEL_AXIS, FILE_ORDER

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

    def largest(self, channels: np.ndarray | None) -> np.ndarray:
        """As `real`, of the largest magnitude among the values in every place."""
        most = int(np.abs(self.values.astype(np.int64)).max())
        return dataclasses.replace(self, values=np.full_like(self.values, most), zero_point=0).real(channels)


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


def constant_faults(contents: Contents, model: QuantizedModel) -> Iterator[str]:
    """Constants that are not there, or not of the type, the shape and the zero-points specified."""
    for node, name in _constants(model):
        index, what, grid = contents.index.get(f"{node.name}/{name}"), _what(node, name), node.weight_grids.get(name)
        if index is None:
            # the converter leaves out a bias of zeros
            zeros = name == "bias" and not weight_integers(node).get(name, node.weights[name]).any()
            if not zeros:
                yield f"{what} is not in the file"
            continue
        info, stored = contents.info(index), contents.type_of(index)
        wanted = node.precision.float_type if grid is None else grid.storage
        shape = _shape_in_file(node, name)
        if stored != wanted or info.shape != shape:
            yield f"{what} is {stored}{list(info.shape)}, specified {wanted}{list(shape)}"
        elif grid is not None and set(info.zero_point) != {grid.zero_point}:
            yield f"{what} has zero-points other than {grid.zero_point}"
        elif len(info.scale) > 1 and (info.axis >= len(shape) or shape[info.axis] != len(info.scale)):
            yield f"{what} has {len(info.scale)} scales along axis {info.axis} of {list(shape)}"


def check_constants(contents: Contents, model: QuantizedModel) -> Constants:
    """Every element of all constants, once `constant_faults` has found none."""
    found = Constants()
    for node in model.layers:
        if OPERATORS[node.kind].kernel:
            found.read[node.name] = {}
            extra = contents.index.get(f"{node.name}/bias")
            if extra is not None and "bias" not in node.weights and contents.elements(extra).any():
                found.faults.append(f"{_what(node, 'bias')} is not 0, and the layer has none")
    for node, name in _constants(model):
        index = contents.index.get(f"{node.name}/{name}")
        if index is None:
            continue
        what, constant = _what(node, name), _constant(contents, index, node, name)
        found.read[node.name][name] = constant
        found.weights, found.biases = found.weights + (name != "bias"), found.biases + (name == "bias")
        if name in node.weight_grids:
            found.integers += constant.values.size
            found.faults += _integer_faults(what, name, node, constant)
            found.faults += _bias_faults(what, node, model) if name == "bias" else []
        elif not np.array_equal(constant.values, node.weights[name].astype(_FLOATS[node.precision.float_type])):
            found.faults.append(f"{what} holds values that differ from the specified ones")
    return found


def _constants(model: QuantizedModel) -> Iterator[tuple[Node, str]]:
    """(node, weight name) of every kernel and every bias that a layer has."""
    for node in model.layers:
        kernel = OPERATORS[node.kind].kernel
        for name in (kernel, "bias") if kernel else ():
            if name in node.weights and (name in node.weight_grids or node.precision.is_float):
                yield node, name


def _what(node: Node, name: str) -> str:
    return f"{name} of {node.name!r} ({layers_of(node)})"


def layers_of(node: Node) -> str:
    """The Keras layers that a node stands for, in words."""
    return "Keras layer " + node.origin[0] if len(node.origin) == 1 else "Keras layers " + ", ".join(node.origin)


def _shape_in_file(node: Node, name: str) -> tuple[int, ...]:
    shape = node.weights[name].shape
    if node.kind == "DepthwiseConv2D" and name != "bias":
        return (1, *shape[:2], shape[2] * shape[3])
    order = FILE_ORDER.get(node.kind, range(len(shape))) if name != "bias" else range(1)
    return tuple(shape[list(order).index(axis)] for axis in range(len(shape)))


def _constant(contents: Contents, index: int, node: Node, name: str) -> Constant:
    info, elements, shape = contents.info(index), contents.elements(index), node.weights[name].shape
    along = [-1 if axis == info.axis and len(info.scale) > 1 else 1 for axis in range(elements.ndim)]
    scale = np.broadcast_to(np.asarray(info.scale or (1.0,)).reshape(along), elements.shape)
    zero_point = info.zero_point[0] if info.zero_point else 0
    if name == "bias":
        return Constant(elements, scale, zero_point, 0)
    order = FILE_ORDER.get(node.kind)
    values, scale = (x if order is None else np.transpose(x, order) for x in (elements, scale))
    # a depthwise kernel is [1, rows, columns, channels * multiplier] there
    return Constant(values.reshape(shape), scale.reshape(shape), zero_point, CHANNEL_AXIS.get(node.kind))


def _integer_faults(what: str, name: str, node: Node, constant: Constant) -> Iterator[str]:
    grid, values = node.weight_grids[name], constant.values
    along = [-1 if axis == grid.axis else 1 for axis in range(values.ndim)]
    steps = np.asarray(grid.scale, np.float64).reshape(along)
    if not np.array_equal(constant.scale, np.broadcast_to(steps, values.shape)):
        yield f"{what} has scales that differ from the specified ones, or along another axis"
    if not np.array_equal(values, weight_integers(node)[name]):
        yield f"{what} holds integers that differ from the specified ones"
    reals, weights = (values.astype(np.float64) - grid.zero_point) * steps, node.weights[name]
    if grid.codebook:
        yield from _codebook_faults(what, grid.codebook, values, weights / steps)
        return
    low, high = grid.integer_range
    clipped = ((values == high) & (weights > reals)) | ((values == low) & (weights < reals))
    near = np.abs(weights - reals) <= steps * (0.5 + _TIE)
    if not (near | clipped).all() or values.min() < low or values.max() > high:
        yield f"{what} holds integers that are not the nearest to the layer's weights"


def _codebook_faults(what: str, codebook: tuple[int, ...], values: np.ndarray, wanted: np.ndarray) -> Iterator[str]:
    strange = np.setdiff1d(values, codebook)
    if strange.size:
        yield f"{what} holds {strange[0]}, which is not in the codebook {', '.join(map(str, codebook))}"
        return
    nearest = np.full(values.shape, np.inf)
    for code in codebook:
        np.minimum(nearest, np.abs(wanted - code), out=nearest)
    if (np.abs(wanted - values) > nearest + _TIE).any():
        yield f"{what} holds integers that are not the nearest of the codebook to the layer's weights"


def _bias_faults(what: str, node: Node, model: QuantizedModel) -> Iterator[str]:
    """The specified scales of a bias are those of what it is added to."""
    of_kernel = np.asarray(node.weight_grids[OPERATORS[node.kind].kernel].scale)
    of_bias = np.asarray(node.weight_grids["bias"].scale)
    read = model.grids[node.inputs[0]]
    read = copied_wide(read) if node.precision.is_int16 else read
    product = read.scale[0] * np.repeat(of_kernel, max(1, len(of_bias) // len(of_kernel)))
    if not np.allclose(of_bias, product, rtol=1e-6, atol=0):
        yield f"{what} has scales that are not those of input and kernel"
