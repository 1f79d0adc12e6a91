"""Scales that no runtime takes: XNNPACK refuses the whole file, and the converter or a kernel ends the process.

    convolutions, dense layers     max(s_x s_w) / s_y < 2^8        one step of the input moves the output by its range
    Add, Subtract                  max(s_a, s_b) / s_y < 2^18
    HardSwish                      s_x / s_y < 2^7

Found by experiment with TensorFlow 2.21 and LiteRT 2.3; XNNPACK's source says the first.
"""

from __future__ import annotations

from tfq.errors import UserError
from tfq.operations.table import OPERATORS
from tfq.quantized_model import QuantizedModel

_LARGEST_PRODUCT = 2.0**8


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
