"""From ranges to the `QuantizedModel`: the one place where scales and zero-points are computed.

    activations   s = (high - low) / (2^b - 1),   z = -2^(b-1) - low / s   asymmetric, per tensor; b = 8
                  s = max(-low, high) / (2^(b-1) - 1),  z = 0              right-hand side of a MatMul
    weights       s_w = max|w| / (2^(b-1) - 1) of the channel,  z = 0      symmetric, narrow range; b = 2..8
                  s_w for codes of a given entropy (`tfq.numerics.entropy`) all channels the same; b = 8
                  s_w found with the codebook of the layer (`tfq.numerics.codebook`); b = 8
    biases        s_b = s_x * s_w,                              z = 0      int32; int64 beside int16 activations
    int16         s = 4 max(-low, high) / (2^15 - 1),           z = 0      of the activation's 8-bit grid

Layers that are chosen to be float have no grids; which activations then have one, and which of these have 16 bits, is
said in `tfq.models.borders`.

Activations of fewer than 8 bits can be specified for simulation; TFLite has no kernels for them.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; TFLite's 8-bit quantisation specification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfq.calibration.calibrate import fixed_grid, prescribed_groups
from tfq.calibration.statistics import Range
from tfq.errors import UserError
from tfq.grid import Grid, activation_grid, copied_wide, wide_grid
from tfq.models.borders import Borders, Wide, find_borders, find_wide
from tfq.models.graph import INPUT, Graph, Node, share_structure
from tfq.models.grids import grid_groups
from tfq.models.widths import (
    LARGEST_FLOAT16,
    activation_bits,
    can_be_dynamic,
    is_weighted,
    largest_weight,
    precisions_of,
    storage_of,
)
from tfq.numerics import reference
from tfq.numerics.codebook import clustered
from tfq.numerics.entropy import scale_of_entropy
from tfq.operations.table import OPERATORS, operator_of
from tfq.precision import FLOAT16, FLOAT32, INT8, STORED_BITS, W8A16, Precision
from tfq.quantized_model import QuantizedModel

# An int32 bias holds |b| / (s_x * s_w) < 2^31; one bit is left to the sum it is added to. Beside int16 activations
# kernels add up 48 bits, accelerators (Arm's compiler says) read 40 of a bias.
_BIASES = {"int32": (32, 2.0**30), "int64": (40, 2.0**38)}
_CHOSEN = {
    "float16": "weights are stored in float16, the computation is float32",
    "float32": "weights and computation are float32",
    "dynamic_range": "weights are integers, activations are float32 and rounded at run time",
    "int16x8": "weights are int8, activations int16",
}
# TFLite's multiplier s_x * s_w / s_y has 31 fractional bits; a smaller one is zero there, and refused by XNNPACK.
_SMALLEST_MULTIPLIER = 2.0**-30


def specify(
    graph: Graph,
    ranges: Mapping[str, Range],
    precisions: Precision | Mapping[str, Precision] = INT8,
    *,
    per_channel: bool = True,
    input_type: str = "int8",
    output_type: str = "int8",
) -> QuantizedModel:
    """The quantised model, its weights still those of `graph`.

    Args:
      graph: the prepared graph.
      ranges: real range of every group of tensors (`grid_groups`) whose grid TFLite does not prescribe.
      precisions: of all weighted layers, or by node name; w8 for weighted nodes that are absent, and for other nodes
        with a kernel. Packed weights of layers that TFLite cannot run so are stored as int8.
      per_channel: one weight scale per output channel, or one per tensor.
      input_type, output_type: what the file takes and gives.

    Raises:
      UserError: a layer is to be float16 and has weights beyond its range.
      ValueError: a precision of a node that has none, one that no layer of a graph can be given by itself, or two for
        calls of one Keras layer.
    """
    by_name = precisions_of(graph, precisions)
    _check(graph, by_name)
    borders, wide = _formats(graph, by_name, input_type, output_type)
    groups, bits = grid_groups(graph), activation_bits(graph, by_name)
    centred = centred_groups(graph)
    grids: dict[str, Grid] = {}
    for tensor, group in groups.items():
        fixed = fixed_grid(graph, tensor)
        if fixed is not None:
            grids[group] = activation_grid(*fixed)
        elif group not in grids and group in ranges:
            width = bits.get(group, STORED_BITS)
            grids[group] = _grid_of_range(ranges[group], width, centred=group in centred)
    prescribed = prescribed_groups(graph)
    found = {
        tensor: wide_grid(grids[group], prescribed=group in prescribed) if tensor in wide.tensors else grids[group]
        for tensor, group in groups.items()
        if tensor not in borders.tensors
    }

    def decided(node: Node) -> Node:
        grid = found.get(node.name)
        if node.kind == INPUT:
            return node.replace(grid=grid, precision=FLOAT32 if grid is None else INT8)
        precision, reason = _precision(node, by_name.get(node.name, INT8), borders, wide)
        node = node.replace(grid=grid, precision=precision, reason=reason)
        if not precision.has_grid or not OPERATORS[node.kind].kernel:
            return node
        return _with_weight_grids(node, found.get(node.inputs[0]), per_channel=per_channel)

    nodes = tuple(map(decided, graph.nodes))
    model = QuantizedModel(nodes, graph.inputs, graph.outputs, graph.output_names, input_type, output_type)
    return share_structure(model, graph)


def with_scales(node: Node, scales: np.ndarray, input_grid: Grid | None) -> Node:
    """The node with other scales for its kernel, and those of its bias that follow.

    Args:
      node: a layer with the kernel and bias that are to lie on the new grids.
      scales: float, one for each of the kernel's present scales; rounded (`nearest_weight_scale`).
      input_grid: of what it reads; None where that is float.
    """
    kernel = node.weight_grids[OPERATORS[node.kind].kernel]
    wanted = dataclasses.replace(kernel, scale=_floats(scales))
    if len(wanted.scale) != len(kernel.scale):
        raise ValueError(f"layer {node.name!r} has {len(kernel.scale)} scales, got {len(wanted.scale)}")
    return _following(node, wanted, input_grid)


def in_dynamic_range(node: Node, precision: Precision) -> Node:
    """A layer or embedding of dynamic range at another precision of it: on the grid that this starts with."""
    kernel = node.weight_grids[OPERATORS[node.kind].kernel]
    return _with_weight_grids(node.replace(precision=precision), None, per_channel=kernel.axis is not None)


def with_ranges(model: QuantizedModel, ranges: Mapping[str, Range], *, bits: int | None = None) -> QuantizedModel:
    """The model with other ranges for some groups of tensors (`grid_groups`); float tensors stay float.

    Kernels keep their scales, except where those would be too small for TFLite; biases follow. So do bits, unless
    `bits` says what these groups get; what has 16 bits keeps them.
    """
    groups = grid_groups(model)
    centred, prescribed = centred_groups(model), prescribed_groups(model)

    def changed(tensor: str, grid: Grid) -> Grid:
        group = groups[tensor]
        if group not in ranges:
            return grid
        width = bits or (STORED_BITS if grid.is_wide else grid.bits)
        found = _grid_of_range(ranges[group], width, centred=group in centred)
        return wide_grid(found, prescribed=group in prescribed) if grid.is_wide else found

    grids = {tensor: changed(tensor, grid) for tensor, grid in model.grids.items()}

    def moved(node: Node) -> Node:
        node = node.replace(grid=grids.get(node.name))
        if node.kind == INPUT or not node.weight_grids:
            return node
        kernel = OPERATORS[node.kind].kernel
        if node.kind == "Embedding" and node.precision.is_int8:
            return node.replace(weight_grids={kernel: grids[node.name]})
        return _following(node, node.weight_grids[kernel], grids.get(node.inputs[0]))

    return model.with_nodes(*map(moved, model.nodes))


def with_precisions(model: QuantizedModel, precisions: Mapping[str, Precision]) -> QuantizedModel:
    """The model with more layers in float, or with int16 activations: what `specify` gives for these precisions and all
    else the same.

    Args:
      model: layers that are not int8 already stay so.
      precisions: of weighted layers, by node name; none of int8.

    Raises:
      UserError, ValueError: as `specify` does.
    """
    before = {node.name: node.precision for node in model.layers if is_weighted(node)}
    chosen = {name: p for name, p in {**before, **precisions}.items() if not p.is_int8}
    _check(model, chosen)
    borders, wide = _formats(model, chosen, model.input_type, model.output_type)
    groups, prescribed = grid_groups(model), prescribed_groups(model)

    def grid_of(node: Node) -> Grid | None:
        if node.grid is None or node.name in borders.tensors:
            return None
        if node.name not in wide.tensors or node.grid.is_wide:
            return node.grid
        return wide_grid(node.grid, prescribed=groups[node.name] in prescribed)

    grids = {node.name: grid_of(node) for node in model.nodes}

    def decided(node: Node) -> Node:
        node = node.replace(grid=grids[node.name])
        if node.kind == INPUT:
            return node
        precision, reason = _precision(node, chosen.get(node.name, node.precision), borders, wide)
        node = node.replace(precision=precision, reason=reason)
        if not precision.has_grid:
            return node.replace(weight_grids={})
        if precision.is_int16 and node.weight_grids:
            return _following(node, node.weight_grids[OPERATORS[node.kind].kernel], grids[node.inputs[0]])
        return node

    return model.with_nodes(*map(decided, model.nodes))


def _formats(
    graph: Graph, precisions: Mapping[str, Precision], input_type: str, output_type: str
) -> tuple[Borders, Wide]:
    """Where float meets integers, and where integers have 16 bits."""
    edges = {"float_inputs": input_type == "float32", "float_outputs": output_type == "float32"}
    floats, wides = (
        [name for name, precision in precisions.items() if getattr(precision, kind)]
        for kind in ("is_float", "is_int16")
    )
    borders = find_borders(graph, floats, **edges)
    return borders, find_wide(graph, wides, borders, **edges)


def centred_groups(graph: Graph) -> set[str]:
    """Groups whose zero-point must be 0: the XNNPACK of TensorFlow up to 2.21, so of phones in use, leaves out the
    zero-point of a MatMul's right-hand matrix."""
    groups = grid_groups(graph)
    return {groups[node.inputs[1]] for node in graph.nodes if node.kind == "MatMul"}


def _grid_of_range(found: Range, bits: int, *, centred: bool) -> Grid:
    """The grid over `found`; `centred`: with the zero-point 0."""
    if centred:
        largest = reference.integer_range(bits, symmetric=False)[1]
        return activation_grid(float(reference.activation_scale(max(-found.low, found.high) / largest, bits)), 0, bits)
    return activation_grid(*reference.asymmetric_parameters(found.low, found.high, bits), bits)


def _check(graph: Graph, precisions: Mapping[str, Precision]) -> None:
    of_group: dict[str, set[str]] = {}
    for node in graph.nodes:
        of_group.setdefault(node.group, set()).add(precisions.get(node.name, INT8).arithmetic)
    for name, precision in precisions.items():
        if precision.is_int8:
            continue
        if name not in graph.by_name or not (is_weighted(graph[name]) or can_be_dynamic(graph[name])):
            raise ValueError(f"{name!r} is no weighted layer and cannot be given a precision")
        lacking = (precision.is_dynamic and not can_be_dynamic(graph[name])) or (
            precision.is_int16 and not operator_of(graph[name].kind).int16
        )
        if lacking:
            raise ValueError(f"layer {name!r}: TFLite has no kernel for {graph[name].kind} in {precision.name}")
        if len(of_group[graph[name].group]) > 1:
            raise ValueError(f"the calls of the Keras layer that {name!r} calls are to have different precisions")
        largest = largest_weight(graph[name])
        if precision == FLOAT16 and largest > LARGEST_FLOAT16:
            raise UserError(
                f"layer {name!r} has a weight of magnitude {largest:.3g}, float16 holds up to {LARGEST_FLOAT16:.0f};"
                " use float32 for it"
            )


def _precision(node: Node, wanted: Precision, borders: Borders, wide: Wide) -> tuple[Precision, str]:
    """(precision, reason why not int8)."""
    if node.name in wide.nodes:
        if is_weighted(node):
            return wanted, f"chosen: {_CHOSEN[wanted.arithmetic]}"
        return W8A16, "all that it reads, or all that reads it, has int16 activations"
    if node.name not in borders.nodes:
        return wanted if wanted.is_int8 else INT8, ""
    if wanted.is_float and (is_weighted(node) or can_be_dynamic(node)):
        return wanted, f"chosen: {_CHOSEN[wanted.arithmetic]}"
    operator = OPERATORS[node.kind]
    if node.kind == "Carried":
        return FLOAT32, f"there is no int8 rule for {node.config['work'].name}: it computes as its library has it"
    if operator.output == "float":
        return FLOAT32, operator.why or f"{node.kind} has no int8 kernel that keeps the accuracy"
    return FLOAT32, f"reads {node.inputs[0]!r}, which is not quantised"


def _with_weight_grids(node: Node, input_grid: Grid | None, *, per_channel: bool) -> Node:
    operator, precision = OPERATORS[node.kind], node.precision
    if node.kind == "Embedding" and not precision.is_dynamic:  # a look-up: the table lies on the output's grid
        assert node.grid is not None
        return node.replace(weight_grids={operator.kernel: node.grid})
    axis = operator.dynamic_axis if precision.is_dynamic else operator.channel_axis
    if axis is None:  # PReLU slopes: 8 bits, per tensor, as the kernel demands
        precision = INT8
    axis = axis if per_channel else None
    stored = storage_of(node, precision)
    if stored == "int8":
        precision = dataclasses.replace(precision, storage="int8")
    # the builtin kernel that multiplies floats by INT4 weights misreads -8
    narrow = precision.is_dynamic and stored == "int4" and is_weighted(node)
    kernel = starting_grid(node.weights[operator.kernel], precision, axis, stored, narrow=narrow)
    return _following(node.replace(precision=precision), kernel, input_grid)


def starting_grid(
    kernel: np.ndarray, precision: Precision, axis: int | None, stored: str = "int8", *, narrow: bool = False
) -> Grid:
    """The grid that a kernel starts with: its scales, [channels] or one without axis, just cover it, or are those for
    codes of the precision's entropy, one for all channels, or those found with its codebook."""
    bits = precision.weight_bits
    codebook: tuple[int, ...] = ()
    scales = reference.symmetric_scales(kernel, bits, axis, narrow=narrow)
    if precision.entropy_bits:
        scales = np.full_like(scales, scale_of_entropy(kernel, precision.entropy_bits))
    if precision.clusters:
        scales, codebook = clustered(kernel, precision.clusters, axis)
    return Grid(_floats(scales), 0, bits, stored, True, axis, precision.entropy_bits, narrow, codebook)


def _following(node: Node, kernel: Grid, input_grid: Grid | None) -> Node:
    """The node with grids for its kernel and bias, where `kernel` is wanted: no scale is too small for TFLite.

    Where activations are float, so is the bias.
    """
    if node.precision.is_dynamic:
        scales = reference.nearest_weight_scale(np.asarray(kernel.scale), kernel.bits)
        return node.replace(
            weight_grids={OPERATORS[node.kind].kernel: dataclasses.replace(kernel, scale=_floats(scales))}
        )
    assert node.grid is not None
    assert input_grid is not None
    values, axis = node.weights[OPERATORS[node.kind].kernel], kernel.axis
    read, made = (copied_wide(g) if node.precision.is_int16 else g for g in (input_grid, node.grid))
    input_scale, output_scale = read.scale[0], made.scale[0]
    storage = "int64" if node.precision.is_int16 else "int32"
    bits, most = _BIASES[storage]
    smallest = reference.weight_scale(_SMALLEST_MULTIPLIER * output_scale / input_scale, kernel.bits)
    scales = np.maximum(reference.nearest_weight_scale(np.asarray(kernel.scale), kernel.bits), smallest)
    if "bias" in node.weights:
        # [channels, depth multiplier] for a depthwise kernel, [channels, 1] for all others
        channels = values.shape[axis] if axis is not None else 1
        largest = np.abs(node.weights["bias"].astype(np.float64)).reshape(channels, -1).max(1)
        scales = np.maximum(scales, reference.weight_scale(largest / (most * input_scale), kernel.bits))
    grids = {OPERATORS[node.kind].kernel: dataclasses.replace(kernel, scale=_floats(scales))}
    if "bias" in node.weights:
        repeats = node.weights["bias"].size // scales.size
        bias_scales = np.repeat(reference.bias_scale(input_scale, scales), repeats if axis is not None else 1)
        bias_axis = 0 if axis is not None else None
        grids["bias"] = Grid(_floats(bias_scales), 0, bits, storage, symmetric=True, axis=bias_axis)
    return node.replace(weight_grids=grids)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values, np.float32).reshape(-1))
