"""A microcontroller: TFLite Micro with its reference kernels, all of whose operators are in the program.

It has no delegate and one thread: whatever it runs counts as fast. Operators that a program does not register are not
there, and makers of chips replace kernels by their own; this table is that of the project itself.

Found by asking its interpreter (tflite-micro, 2026-10) about files of one operation each. The tests ask the installed
one again for every row, for every operator without a row, and for scales on both sides of every condition.
"""

from __future__ import annotations

import math

from tfq.targets.target import Kernel, Ratio, SameScale, Target

_BOTH = (
    "ABS", "BATCH_MATMUL", "BROADCAST_TO", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU",
    "EXPAND_DIMS", "FULLY_CONNECTED", "GATHER", "L2_NORMALIZATION", "LEAKY_RELU", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM",
    "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "PACK", "PAD", "PRELU", "QUANTIZE", "RELU", "RELU6", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUARED_DIFFERENCE",
    "SQUEEZE", "STRIDED_SLICE", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
)  # fmt: skip
_FLOAT_ONLY = ("CEIL", "COS", "EXP", "FLOOR", "LOG", "NEG", "ROUND", "SIN", "SQRT", "SQUARE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# those of 16-bit layers and of what stands between them
_INT16 = (
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "DEQUANTIZE", "LEAKY_RELU", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PAD", "QUANTIZE", "RESHAPE", "SLICE", "SOFTMAX", "STRIDED_SLICE", "SUB",
    "TANH", "TRANSPOSE",
)  # fmt: skip
_SCALED = {
    **dict.fromkeys(("CONCATENATION", "REDUCE_MAX", "REDUCE_MIN"), SameScale()),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), SameScale(within=1e-6)),
    # factors that the kernels hold as fixed-point numbers below 1, or above 1
    **dict.fromkeys(("ADD", "SUB"), Ratio(0.0, 2.0**19, inputs=(0, 1), each=True)),
    "HARD_SWISH": Ratio(0.0, 2.0**7),
    "SOFTMAX": Ratio(2.0**-18, math.inf),
}

MICRO = Target(
    "micro",
    "TFLite Micro",
    kernels=(
        *(Kernel(name, ("float32",)) for name in (*_BOTH, *_FLOAT_ONLY, *_SCALED) if name != "DEQUANTIZE"),
        *(Kernel(name, ("int8",)) for name in _BOTH),
        *(Kernel(name, ("int8",), demands=(condition,)) for name, condition in _SCALED.items()),
        *(Kernel(name, ("int8", "int4")) for name in ("CONV_2D", "DEPTHWISE_CONV_2D")),
        *(Kernel(name, ("int16", "int8")) for name in _WEIGHTED),
        *(Kernel(name, ("int16",)) for name in _INT16),
    ),
    plain=(),
    integers_only=True,
)
