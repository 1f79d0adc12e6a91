"""The finished .tflite against the specification and the layers' definitions.

The file is read afresh from its bytes, by the runtime (`tfq.verify.contents`); tensors are found by their names
("conv", "conv/kernel", "conv/bias", "conv/3"). Checked are, and independent of what wrote the file:

    inputs and outputs   names, order, types and zero-points
    activations          type, scale and zero-point of each
    constants            every weight and bias, element by element (`tfq.verify.constants`)
    operations           each belongs to a layer, reads that layer's own constants, works in float or on int16 where
                         the specification says so and nowhere else; no quantised tensor has a grid nobody specified
    layers               each computes its definition when it runs alone (`tfq.verify.alone`)

Taken as given are the prepared graph, which `tfq.models.prepare` compares with the user's model, the specification's
activation grids, and that a tensor is called after its node. A wrong name cannot hide a wrong result: the layer runs on
the tensors that bear the names, and has to give what its definition gives on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tfq.errors import VerificationError
from tfq.grid import Grid, copied_wide, wide_grid
from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Node
from tfq.models.pooling import place_factors
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.verify.alone import run_alone, same_elements
from tfq.verify.constants import check_constants, constant_faults, layers_of
from tfq.verify.contents import Contents, Operation, read

_BORDER = ("QUANTIZE", "DEQUANTIZE")
# operation -> where it reads kernel and bias
_READS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "GATHER": (0,),
    "EMBEDDING_LOOKUP": (1,),
    "PRELU": (1,),
}
_NUMBER = 1e-6  # how far a stored number may be from that specified, as a share of it


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was checked and found as specified.

    Attributes:
      activations, weights, biases: tensors checked; those of float layers are among the weights and biases.
      integers: weight and bias integers compared one by one.
      operators: operations of the file; `float_operators` of them work in float, as specified.
      absent: activation tensors that the converter made superfluous (data movement only).
      layers_alone: tensors computed by their own layer alone and compared with its definition.
      elements_alone: elements compared there.
      unseen: of these, layers of which too few elements told anything.
    """

    activations: int
    weights: int
    biases: int
    integers: int
    operators: int
    float_operators: int
    absent: tuple[str, ...]
    layers_alone: int
    elements_alone: int
    unseen: tuple[str, ...]


def verify_structure(content: bytes, model: QuantizedModel) -> Verification:
    """Check the whole file.

    Raises:
      VerificationError: names the first tensors and layers that differ, and their Keras layers.
    """
    contents = read(content)
    faults = [*_edges(contents, model)]
    if len(contents.index) < len(contents.names):
        faults.append(f"{len(contents.names) - len(contents.index)} tensors have the names of others")
    absent = []
    for name, grid in model.grids.items():
        index = contents.index.get(f"{name}/quantized", contents.index.get(name))
        if index is None:
            if model[name].kind != INPUT and OPERATORS[model[name].kind].output == "same":
                absent.append(name)
            else:
                faults.append(f"activation {name!r} ({layers_of(model[name])}) is not in the file")
        else:
            faults += _grid_faults(f"activation {name!r} ({layers_of(model[name])})", contents, index, grid)
    faults += constant_faults(contents, model)
    float_operators = 0
    for operation in contents.operations:
        found, is_float = _operation_faults(contents, operation, model)
        faults += found
        float_operators += is_float
    _raise(faults)  # what follows shows these again, and names them less well
    constants = check_constants(contents, model)
    _raise(constants.faults)
    alone, faults = run_alone(contents, model, constants.read)
    _raise([*faults, *_shape_faults(contents)])
    return Verification(
        activations=len(model.grids) - len(absent),
        weights=constants.weights,
        biases=constants.biases,
        integers=constants.integers,
        operators=len(contents.operations),
        float_operators=float_operators,
        absent=tuple(absent),
        layers_alone=alone.layers,
        elements_alone=alone.elements,
        unseen=alone.unseen,
    )


def _raise(faults: list[str]) -> None:
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise VerificationError(
            f"the .tflite differs from the specification: {'; '.join(faults[:3])}{more};"
            " this is a defect of tfq: please report it with the model"
        )


def _edges(contents: Contents, model: QuantizedModel) -> Iterator[str]:
    """Names, order and types of the file's inputs and outputs."""
    subgraph, shapes = contents.table.subgraphs[0], tensor_shapes(model)
    edges = (
        ("input", subgraph.inputs, contents.inputs, model.inputs, model.inputs, model.input_type),
        ("output", subgraph.outputs, contents.outputs, model.output_names, model.outputs, model.output_type),
    )
    for what, indices, index_of, names, nodes, wanted in edges:
        if [index_of.get(n) for n in names] != [int(i) for i in indices] or len(index_of) != len(names):
            name_of = {index: name for name, index in index_of.items()}
            yield f"the {what}s are {[name_of.get(int(i)) for i in indices]}, specified {list(names)}"
            continue
        for name, node in zip(names, nodes, strict=True):
            index = index_of[name]
            owner = contents.names[index].split("/")[0] if "/" not in node else contents.names[index]
            info, stored = contents.info(index), contents.type_of(index)
            if owner not in same_elements(model, node):
                yield f"{what} {name!r} is the tensor of {owner!r}, specified {node!r} ({layers_of(model[node])})"
            elif info.shape[1:] != shapes[node]:
                yield f"{what} {name!r} has the shape {list(info.shape[1:])}, specified {list(shapes[node])}"
            if node in model.grids and wanted == "uint8":
                yield from _grid_faults(f"{what} {name!r}", contents, index, model.grids[node], as_uint8=True)
            elif node in model.grids and stored != wanted:
                yield f"{what} {name!r} is {stored}, specified {wanted}"


def _shape_faults(contents: Contents) -> Iterator[str]:
    """Tensors of which the runtime, once it has run through the file, makes another shape than stands there.

    Layers are run alone on the shapes that stand there.
    """
    for index, shape in contents.runtime.shapes().items():
        told = contents.info(index).shape
        if shape != told:
            yield f"tensor {contents.names[index]!r} becomes {list(shape)} at run time, and the file says {list(told)}"


def _grid_faults(what: str, contents: Contents, index: int, grid: Grid, *, as_uint8: bool = False) -> Iterator[str]:
    """as_uint8: the same grid of integers from 0 on."""
    info, stored = contents.info(index), contents.type_of(index)
    storage, zero_point = ("uint8", grid.zero_point + 128) if as_uint8 else (grid.storage, grid.zero_point)
    if stored != storage:
        yield f"{what} is {stored}, specified {storage}"
    elif info.scale != grid.scale or info.zero_point != (zero_point,):
        yield (
            f"{what} has the scale {list(info.scale)} and the zero-point {list(info.zero_point)},"
            f" specified {list(grid.scale)}, {zero_point}"
        )


def _operation_faults(
    contents: Contents,
    operation: Operation,
    model: QuantizedModel,
) -> tuple[list[str], bool]:
    """Faults of one operation, and whether it works in float."""
    if operation.kind in _BORDER:
        return [], False
    touched = [i for i in (*operation.inputs, *operation.outputs) if i >= 0]
    types = {contents.type_of(i) for i in touched}
    in_float, in_integers = bool(types & {"float32", "float16"}), bool(types & {"int8", "int4", "int2"})
    wide = "int16" in types
    name = contents.names[operation.outputs[0]].split("/")[0]
    node = model.by_name.get(name)
    if node is None:
        return [f"operation {operation.kind} writes {name!r}, which the specification does not know"], in_float
    what = f"{operation.kind} of layer {name!r} ({layers_of(node)})"
    if in_float and not node.precision.is_float:
        return [f"{what} works in float, specified {node.precision.arithmetic}"], True
    if wide and not node.precision.is_int16:
        return [f"{what} works on int16, specified {node.precision.arithmetic}"], False
    in_integers &= not wide  # but for the weights
    # integers, among float activations
    multiplies = node.precision.is_dynamic and in_float and operation.kind in _READS
    in_integers &= not multiplies
    if in_integers and not node.precision.is_int8:
        return [f"{what} works in int8, specified {node.precision.arithmetic}"], False
    faults = []
    kernel = OPERATORS[node.kind].kernel
    own = (f"{name}/{kernel}", f"{name}/bias") if kernel else ()
    for role, position in zip((kernel, "bias"), _READS.get(operation.kind, ()) if kernel else (), strict=False):
        index = operation.inputs[position] if position < len(operation.inputs) else -1
        if index >= 0:
            label = contents.names[_stored(contents, index)]
            if label != f"{name}/{role}":
                faults.append(f"{what} reads {label!r} as its {role}")
    wanted = _numbers_of(node)
    numbers = [i for i in operation.inputs if wanted.size and contents.is_constant(i)]
    for index in numbers:
        faults += _number_faults(what, contents, index, wanted)
    if in_float:
        return faults, not multiplies
    known = [model.grids[t] for t in (*node.inputs, name) if t in model.grids]
    if wide:
        known += [wide_grid(grid, prescribed=True) for grid in known] + list(map(copied_wide, known))
    named = {name, f"{name}/quantized", *node.inputs, *(f"{i}/quantized" for i in node.inputs), *own}
    for index in touched:
        label = contents.names[index]
        if label in named or not contents.info(index).quantized or label.split("/")[0] != name:
            continue
        if index in numbers:
            continue
        if not any(not list(_grid_faults("", contents, index, grid)) for grid in known):
            faults.append(f"tensor {label!r} inside {what} has a grid that nobody specified")
    return faults, False


def _numbers_of(node: Node) -> np.ndarray:
    """What a layer adds or multiplies by: one number, or one for each place; empty for all others."""
    return place_factors(node.config) if node.kind == "MultiplyPlaces" else np.array(node.config.get("constant", ()))


def _number_faults(what: str, contents: Contents, index: int, wanted: np.ndarray) -> Iterator[str]:
    """Of such numbers; any grid on which they lie will do."""
    values = contents.info(index).to_real(contents.elements(index))
    if values.size != wanted.size or not np.allclose(values.ravel(), wanted.ravel(), rtol=_NUMBER, atol=0):
        yield f"{what} works with {values.ravel()[:3].tolist()}, specified {wanted.ravel()[:3].tolist()}"


def _stored(contents: Contents, index: int) -> int:
    """The constant behind a tensor: float16 weights come through a DEQUANTIZE."""
    if index in contents.writer:
        writer = contents.operations[contents.writer[index]]
        if writer.kind == "DEQUANTIZE" and contents.is_constant(writer.inputs[0]):
            return writer.inputs[0]
    return index
