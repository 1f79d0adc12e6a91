"""Scales that kernels take.

`with_legal_scales` brings the scales of integer operations to ratios that the fast kernels of a target take, by the
conditions of its table (`tfq.targets`). It only makes scales larger, where little is lost by it:

    s_x / s_y too large   the output's steps are far finer than those of what is read: its scale grows. With a bound of
                          2^8, half a step of it is then 1/512 of a step of the input.
    s_x / s_y too small   the whole input is less than a step of the output, or little more: its scale grows, where
                          nothing else reads it.

What is left runs in plain kernels, more slowly. Prescribed grids stay. Two bounds hold on every target: plain kernels
of LiteRT on x86 wrap around where what they compute is 2^15 steps of the output.

    ADD   s_x / s_y <= 2^6 for each input        MUL   s_a s_b / s_y <= 1/2

`require_runnable` tells of those that no runtime takes: XNNPACK refuses the whole file, and the converter or a kernel
ends the process.

    convolutions, dense layers     max(s_x s_w) / s_y < 2^8        one step of the input moves the output by its range
    Add, Subtract                  max(s_a, s_b) / s_y < 2^18
    HardSwish                      s_x / s_y < 2^7

Found by experiment with TensorFlow 2.21 and LiteRT 2.3; XNNPACK's source says the first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from tfq.calibration.calibrate import prescribed_groups
from tfq.calibration.specify import with_ranges
from tfq.calibration.statistics import Range
from tfq.errors import UserError
from tfq.models.graph import Node
from tfq.models.grids import grid_groups
from tfq.models.rewrite import sole_readers
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel
from tfq.targets.target import Ratio, SlopeRatio, Target

_LARGEST_PRODUCT = 2.0**8
_LARGEST_SCALE = 2.0**100  # beyond, sums of a few hundred steps leave float32
_INSIDE = 1 + 2.0**-9  # scales are rounded up to few bits, and a bound may be excluded
_NEVER_WRAPS = {
    "ADD": Ratio(0.0, 2.0**6, inputs=(0, 1), each=True, closed=True),
    "MUL": Ratio(0.0, 0.5, inputs=(0, 1), closed=True),
}
_HARMLESS = 1 / 4  # s_x / s_y: half a step of x is then an eighth of a step of y at most
_ROUNDS = 100


def with_legal_scales(model: QuantizedModel, target: Target) -> QuantizedModel:
    """The model with scales that the target's fast kernels take, as far as larger ones can do it."""
    conditions: dict[str, list[Ratio | SlopeRatio]] = {name: [bound] for name, bound in _NEVER_WRAPS.items()}
    for row in target.kernels:
        if row.types == ("int8",):
            found = [c for c in (*row.fast, *row.demands) if isinstance(c, (Ratio, SlopeRatio))]
            conditions.setdefault(row.operator, []).extend(found)
    groups, readers = grid_groups(model), sole_readers(model)
    prescribed = prescribed_groups(model)

    def grows(tensor: str, factor: float) -> bool:
        grown = factor * model.grids[tensor].scale[0]
        return groups[tensor] not in prescribed and grown < _LARGEST_SCALE

    for _ in range(_ROUNDS):
        factors: dict[str, float] = {}
        for node in model.layers:
            for condition in conditions.get(OPERATORS[node.kind].tflite, ()):
                for tensor, factor in _wanted(model, node, condition):
                    if grows(tensor, factor) and (tensor == node.name or readers[tensor] == node.name):
                        factors[tensor] = max(factor, factors.get(tensor, 1.0))
        if not factors:
            break
        ranges = {
            groups[t]: Range(*(factor * end for end in model.grids[t].real_range)) for t, factor in factors.items()
        }
        model = with_ranges(model, ranges)
    return model


def _wanted(model: QuantizedModel, node: Node, condition: Ratio | SlopeRatio) -> Iterator[tuple[str, float]]:
    """(tensor, by what its scale would have to grow) for the ratios of a node that break a condition."""
    if isinstance(condition, SlopeRatio):
        slope = abs(node.config["alpha"])
        low = condition.low / slope
        condition = Ratio(low if low <= _HARMLESS else 0.0, condition.high / slope, closed=True)
    read = [name for name in node.inputs if name in model.grids and not model.grids[name].is_wide]
    if node.grid is None or not node.precision.is_int8 or len(read) < len(node.inputs):
        return
    scales = [model.grids[name].scale[0] for name in read]
    if "constant" in node.config:  # the last input, which has no grid of its own
        scales.append(abs(node.config["constant"]) / 255)
    ratios = scales if condition.each else [math.prod(scales[i] for i in condition.inputs)]
    for name, ratio in itertools.zip_longest(read[: len(ratios)], (scale / node.grid.scale[0] for scale in ratios)):
        if not (ratio < condition.high or (condition.closed and ratio == condition.high)):
            yield node.name, _INSIDE * ratio / condition.high
        elif ratio < condition.low and name is not None:
            yield name, _INSIDE * condition.low / ratio


def require_runnable(model: QuantizedModel) -> None:
    """Raise UserError that names the first layer whose scales no runtime takes."""
    for node in model.layers:
        if node.grid is None or not node.precision.is_int8:
            continue
        read = [model.grids[name].scale[0] for name in node.inputs if name in model.grids]
        if not read:
            continue
        given = node.grid.scale[0]
        kernel = node.weight_grids.get(OPERATORS[node.kind].kernel)
        if OPERATORS[node.kind].channel_axis is not None and kernel is not None:
            ratio, limit = read[0] * max(kernel.scale) / given, _LARGEST_PRODUCT
        else:
            ratio, limit = max(read) / given, OPERATORS[node.kind].largest_ratio
        if ratio >= limit:
            raise UserError(
                f"layer {node.origin[0]!r} ({node.kind}) cannot be computed in int8: one step of what it reads"
                f" ({max(read):.3g}) moves what it gives by {ratio:.3g} steps ({given:.3g} each; under {limit:.0f} are"
                " expected); bring the features it reads to one scale, by a Normalization layer or before the model,"
                " or choose `precision='dynamic_range'` or float16"
            )
