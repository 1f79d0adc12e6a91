"""From ranges to the `QuantizationSpec`: the one place where scales and zero-points are computed.

    activations   s = (high - low) / (2^b - 1),   z = -2^(b-1) - low / s   asymmetric, per tensor; b = 8
                  s = max(-low, high) / (2^(b-1) - 1),  z = 0              right-hand side of a MatMul
    weights       s_w = max|w| / (2^(b-1) - 1) of the channel,  z = 0      symmetric, narrow range; b = 2..8
                  s_w for codes of a given entropy (`tfq.numerics.entropy`) all channels the same; b = 8
    biases        s_b = s_x * s_w,                              z = 0      int32

Layers that are chosen to be float have no grids; which activations then have one is said in `tfq.models.borders`.

Activations of fewer than 8 bits can be specified for simulation; TFLite has no kernels for them.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; TFLite's 8-bit quantisation specification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfq.calibration.calibrate import fixed_grid
from tfq.calibration.statistics import Range
from tfq.errors import UserError
from tfq.models.borders import Borders, find_borders
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.operators import OPERATORS
from tfq.models.widths import bits_of, is_weighted, storage_of
from tfq.numerics import reference
from tfq.numerics.entropy import scale_of_entropy
from tfq.spec import LayerQuantization, QuantizationSpec, TensorQuantization, activation_grid

# Kinds whose weights TFLite runs as INT4 tensors.
PACKABLE = ("Conv2D", "DepthwiseConv2D", "Dense")
# An int32 bias holds |b| / (s_x * s_w) < 2^31; one bit is left to the sum it is added to.
_LARGEST_BIAS = 2.0**30
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
_CHOSEN = {
    "float16": "weights are stored in float16, the computation is float32",
    "float32": "weights and computation are float32",
}
# TFLite's multiplier s_x * s_w / s_y has 31 fractional bits; a smaller one is zero there, and refused by XNNPACK.
_SMALLEST_MULTIPLIER = 2.0**-30


def specify(
    graph: Graph,
    ranges: Mapping[str, Range],
    *,
    weight_bits: int | Mapping[str, int] = 8,
    activation_bits: int | Mapping[str, int] = 8,
    per_channel: bool = True,
    storage: str | Mapping[str, str] = "int8",
    entropy_bits: Mapping[str, int] = {},
    precisions: Mapping[str, str] = {},
    input_type: str = "int8",
    output_type: str = "int8",
) -> QuantizationSpec:
    """The specification of the whole graph.

    Args:
      graph: the prepared graph.
      ranges: real range of every group of tensors (`grid_groups`) whose grid TFLite does not prescribe.
      weight_bits: grid bits 2..8 of all kernels, or by node name; 8 for nodes that are absent.
      activation_bits: grid bits of all ranges, or by group likewise; prescribed grids have 8.
      per_channel: one weight scale per output channel, or one per tensor.
      storage: "int8", or "packed": INT4 tensors for weights of at most 4 bits where TFLite runs them; of all
        kernels, or by node name; "int8" for nodes that are absent.
      entropy_bits: of 8-bit kernels on coarse grids, by node name.
      precisions: "int8", "float16" or "float32" of weighted layers, by node name; "int8" for nodes that are absent.
      input_type, output_type: what the file takes and gives.

    Raises:
      UserError: a layer is to be float16 and has weights beyond its range.
      ValueError: a precision of a node that has none, an unknown one, or two for calls of one Keras layer.
    """
    chosen = {name: precision for name, precision in precisions.items() if precision != "int8"}
    _check_floats(graph, chosen)
    borders = find_borders(graph, chosen, float_inputs=input_type == "float32", float_outputs=output_type == "float32")
    groups = grid_groups(graph)
    centred = centred_groups(graph)
    grids: dict[str, TensorQuantization] = {}
    for tensor, group in groups.items():
        prescribed = fixed_grid(graph, tensor)
        if prescribed is not None:
            grids[group] = activation_grid(*prescribed)
        elif group not in grids and group in ranges:
            grids[group] = _grid_of_range(ranges[group], bits_of(activation_bits, group), centred=group in centred)
    activations = {tensor: grids[group] for tensor, group in groups.items() if tensor not in borders.tensors}

    def layer(node: Node) -> LayerQuantization:
        precision, reason = _precision(node, chosen, borders)
        weights = {}
        if precision == "int8" and OPERATORS[node.kind].kernel:
            bits = bits_of(weight_bits, node.name)
            stored, entropy = storage_of(storage, node.name), entropy_bits.get(node.name, 0)
            weights = _weight_grids(node, activations, bits, entropy, per_channel=per_channel, storage=stored)
        return LayerQuantization(node.name, node.kind, precision, node.inputs, node.name, weights, node.origin, reason)

    layers = tuple(layer(node) for node in graph.nodes if node.kind != INPUT)
    return QuantizationSpec(layers, activations, input_type, output_type)


def with_scales(spec: QuantizationSpec, node: Node, scales: np.ndarray) -> QuantizationSpec:
    """The specification with other scales for the kernel of `node`, and those of its bias that follow.

    Args:
      spec: the specification.
      node: an int8 layer with the kernel and bias that are to lie on the new grids.
      scales: float, one for each of the kernel's present scales; rounded (`nearest_weight_scale`).
    """
    layer = spec[node.name]
    kernel = layer.weights[OPERATORS[node.kind].kernel]
    wanted = dataclasses.replace(kernel, scale=_floats(scales))
    if len(wanted.scale) != len(kernel.scale):
        raise ValueError(f"layer {node.name!r} has {len(kernel.scale)} scales, got {len(wanted.scale)}")
    return spec.replace_layers(dataclasses.replace(layer, weights=_following(node, wanted, spec.activations)))


def with_ranges(
    graph: Graph, spec: QuantizationSpec, ranges: Mapping[str, Range], *, bits: int | None = None
) -> QuantizationSpec:
    """The specification with other ranges for some groups of tensors (`grid_groups`); float tensors stay float.

    Kernels keep their scales, except where those would be too small for TFLite; biases follow. So do bits, unless
    `bits` says what these groups get.
    """
    groups = grid_groups(graph)
    centred = centred_groups(graph)
    widths = {groups[tensor]: bits or grid.bits for tensor, grid in spec.activations.items()}
    grids = {g: _grid_of_range(r, widths[g], centred=g in centred) for g, r in ranges.items() if g in widths}
    activations = {tensor: grids.get(groups[tensor], grid) for tensor, grid in spec.activations.items()}

    def layer(found: LayerQuantization) -> LayerQuantization:
        node = graph[found.name]
        kernel = found.weights.get(OPERATORS[node.kind].kernel)
        if kernel is None:
            return found
        if node.kind == "Embedding":
            return dataclasses.replace(found, weights={OPERATORS[node.kind].kernel: activations[node.name]})
        return dataclasses.replace(found, weights=_following(node, kernel, activations))

    return dataclasses.replace(spec, layers=tuple(map(layer, spec.layers)), activations=activations)


def with_floats(graph: Graph, spec: QuantizationSpec, precisions: Mapping[str, str]) -> QuantizationSpec:
    """The specification with more layers in float: what `specify` gives for these precisions and all else the same.

    Args:
      graph: the prepared graph.
      spec: its specification; layers that are float already stay so.
      precisions: "float16" or "float32" of weighted layers, by node name.

    Raises:
      UserError, ValueError: as `specify` does.
    """
    before = {layer.name: layer.precision for layer in spec.layers if is_weighted(graph[layer.name])}
    chosen = {name: p for name, p in {**before, **precisions}.items() if p != "int8"}
    _check_floats(graph, chosen)
    borders = find_borders(
        graph, chosen, float_inputs=spec.input_type == "float32", float_outputs=spec.output_type == "float32"
    )

    def layer(found: LayerQuantization) -> LayerQuantization:
        precision, reason = _precision(graph[found.name], chosen, borders)
        weights = found.weights if precision == "int8" else {}
        return dataclasses.replace(found, precision=precision, reason=reason, weights=weights)

    activations = {tensor: grid for tensor, grid in spec.activations.items() if tensor not in borders.tensors}
    return dataclasses.replace(spec, layers=tuple(map(layer, spec.layers)), activations=activations)


def centred_groups(graph: Graph) -> set[str]:
    """Groups whose zero-point must be 0: the XNNPACK of TensorFlow up to 2.21, so of phones in use, leaves out the
    zero-point of a MatMul's right-hand matrix."""
    groups = grid_groups(graph)
    return {groups[node.inputs[1]] for node in graph.nodes if node.kind == "MatMul"}


def _grid_of_range(found: Range, bits: int, *, centred: bool) -> TensorQuantization:
    """The grid over `found`; `centred`: with the zero-point 0."""
    if centred:
        largest = reference.integer_range(bits, symmetric=False)[1]
        return activation_grid(float(reference.activation_scale(max(-found.low, found.high) / largest, bits)), 0, bits)
    return activation_grid(*reference.asymmetric_parameters(found.low, found.high, bits), bits)


def _check_floats(graph: Graph, chosen: Mapping[str, str]) -> None:
    of_group: dict[str, set[str]] = {}
    for node in graph.nodes:
        of_group.setdefault(node.group, set()).add(chosen.get(node.name, "int8"))
    for name, precision in chosen.items():
        if precision not in _CHOSEN:
            raise ValueError(f"layer {name!r}: precision (={precision!r}) must be int8, {' or '.join(_CHOSEN)}")
        if name not in graph.by_name or not is_weighted(graph[name]):
            raise ValueError(f"{name!r} is no weighted layer and cannot be given a precision")
        if len(of_group[graph[name].group]) > 1:
            raise ValueError(f"the calls of the Keras layer that {name!r} calls are to have different precisions")
        largest = max(float(np.abs(values).max()) for values in graph[name].weights.values())
        if precision == "float16" and largest > _LARGEST_FLOAT16:
            raise UserError(
                f"layer {name!r} has a weight of magnitude {largest:.3g}, float16 holds up to {_LARGEST_FLOAT16:.0f};"
                " use float32 for it"
            )


def _precision(node: Node, chosen: Mapping[str, str], borders: Borders) -> tuple[str, str]:
    """(precision, reason why not int8)."""
    if node.name not in borders.nodes:
        return "int8", ""
    if node.name in chosen:
        return chosen[node.name], f"chosen: {_CHOSEN[chosen[node.name]]}"
    operator = OPERATORS[node.kind]
    if operator.output == "float":
        return "float32", operator.why or f"{node.kind} has no int8 kernel that keeps the accuracy"
    return "float32", f"reads {node.inputs[0]!r}, which is not quantised"


def _weight_grids(
    node: Node,
    activations: Mapping[str, TensorQuantization],
    bits: int,
    entropy: int,
    *,
    per_channel: bool,
    storage: str,
) -> dict[str, TensorQuantization]:
    operator = OPERATORS[node.kind]
    if node.kind == "Embedding":  # a look-up: the table lies on the output's grid
        return {operator.kernel: activations[node.name]}
    axis = operator.channel_axis if per_channel else None
    if operator.channel_axis is None:  # PReLU slopes: 8 bits, per tensor, as the kernel demands
        bits, axis = 8, None
    scales = _floats(weight_scales(node.weights[operator.kernel], bits, axis, entropy))
    stored = "int4" if storage == "packed" and bits <= 4 and node.kind in PACKABLE else "int8"
    kernel = TensorQuantization(scales, 0, bits, stored, symmetric=True, axis=axis, entropy_bits=entropy)
    return _following(node, kernel, activations)


def weight_scales(kernel: np.ndarray, bits: int, axis: int | None, entropy_bits: int = 0) -> np.ndarray:
    """The scales [channels] (or [1] without axis) that a kernel starts with: those that just cover it, or for codes of
    this entropy, one for all channels."""
    scales = reference.symmetric_scales(kernel, bits, axis)
    return np.full_like(scales, scale_of_entropy(kernel, entropy_bits)) if entropy_bits else scales


def _following(
    node: Node, kernel: TensorQuantization, activations: Mapping[str, TensorQuantization]
) -> dict[str, TensorQuantization]:
    """The grids of a layer's kernel and bias, where `kernel` is wanted: no scale is too small for TFLite."""
    values, axis = node.weights[OPERATORS[node.kind].kernel], kernel.axis
    input_scale, output_scale = activations[node.inputs[0]].scale[0], activations[node.name].scale[0]
    smallest = reference.weight_scale(_SMALLEST_MULTIPLIER * output_scale / input_scale, kernel.bits)
    scales = np.maximum(reference.nearest_weight_scale(np.asarray(kernel.scale), kernel.bits), smallest)
    if "bias" in node.weights:
        # [channels, depth multiplier] for a depthwise kernel, [channels, 1] for all others
        channels = values.shape[axis] if axis is not None else 1
        largest = np.abs(node.weights["bias"].astype(np.float64)).reshape(channels, -1).max(1)
        scales = np.maximum(scales, reference.weight_scale(largest / (_LARGEST_BIAS * input_scale), kernel.bits))
    grids = {OPERATORS[node.kind].kernel: dataclasses.replace(kernel, scale=_floats(scales))}
    if "bias" in node.weights:
        repeats = node.weights["bias"].size // scales.size
        bias_scales = np.repeat(reference.bias_scale(input_scale, scales), repeats if axis is not None else 1)
        bias_axis = 0 if axis is not None else None
        grids["bias"] = TensorQuantization(_floats(bias_scales), 0, 32, "int32", symmetric=True, axis=bias_axis)
    return grids


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values, np.float32).reshape(-1))
