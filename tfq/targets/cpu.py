"""The CPU of a phone or computer: LiteRT with the XNNPACK delegate.

What the delegate takes runs in one partition, on packed weights and on all threads. Everything else runs in plain,
mostly single-threaded kernels, and each such operation splits the model's partition in two.

Found in the delegate's source and by asking the runtime (ai-edge-litert 2.3); the tests ask the installed runtime again
for every row, and for every condition on both its sides. Kernels for packed integers multiply by a factor that they
hold as a 32-bit fixed-point number; most of the bounds come from there.
"""

from __future__ import annotations

from tfq.targets.target import Kernel, Multiple, NormalScales, Ratio, SameScale, SlopeRatio, Target

_INT8, _FLOAT = ("int8",), ("float32",)
_NORMAL = NormalScales()
_PRODUCT = Ratio(0.0, 2.0**8, inputs=(0, 1))  # s_input s_kernel / s_output, in every channel

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# operators whose int8 kernels only move values: what they read and write lies on one grid
_MOVES = (
    "CONCATENATION", "DEPTH_TO_SPACE", "MAX_POOL_2D", "PAD", "RESIZE_BILINEAR", "SLICE", "SPACE_TO_DEPTH",
    "STRIDED_SLICE", "TRANSPOSE",
)  # fmt: skip
_FREE = ("ELU", "LOGISTIC", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM", "TANH")  # any scales
_FLOAT_ONLY = (
    "ABS", "AVERAGE_POOL_2D", "CEIL", "COS", "DIV", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "MAXIMUM", "MINIMUM",
    "NEG", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SOFTMAX", "SQRT", "SQUARE",
    "SQUARED_DIFFERENCE",
)  # fmt: skip
_BOTH = ("ADD", "SUB", "MUL", "LEAKY_RELU", "BATCH_MATMUL", "RESHAPE", "TRANSPOSE_CONV")
_PLAIN_INT8 = (
    "ABS", "AVERAGE_POOL_2D", "EXP", "GELU", "HARD_SWISH", "LOG", "MAXIMUM", "MINIMUM", "NEG", "PRELU", "RELU",
    "RELU6", "RELU_N1_TO_1", "SOFTMAX", "SQUARED_DIFFERENCE",
)  # fmt: skip
_PLAIN_ANY = (
    "BROADCAST_TO", "EXPAND_DIMS", "GATHER", "L2_NORMALIZATION", "LOG_SOFTMAX", "MIRROR_PAD", "PACK",
    "RESIZE_NEAREST_NEIGHBOR", "SPLIT", "SQUEEZE", "TILE",
)  # fmt: skip

# outside the delegate all the same: those of 16-bit layers and of what stands between them
_INT16 = (
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "DEQUANTIZE", "LEAKY_RELU", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PAD", "QUANTIZE", "RESHAPE", "SLICE", "SOFTMAX", "STRIDED_SLICE", "SUB",
    "TANH", "TRANSPOSE",
)  # fmt: skip

CPU = Target(
    "cpu",
    "XNNPACK",
    kernels=(
        *(Kernel(name, _FLOAT) for name in (*_WEIGHTED, *_MOVES, *_FREE, *_FLOAT_ONLY, *_BOTH)),
        *(Kernel(name, _INT8, demands=(_NORMAL, _PRODUCT)) for name in _WEIGHTED),
        Kernel("TRANSPOSE_CONV", _INT8, demands=(_NORMAL, Ratio(0.0, 2.0**8, inputs=(2, 1)))),
        *(Kernel(name, _INT8, demands=(_NORMAL, SameScale())) for name in _MOVES),
        *(Kernel(name, _INT8, demands=(_NORMAL,)) for name in _FREE),
        *(
            Kernel(name, _INT8, fast=(Ratio(2.0**-10, 2.0**8, inputs=(0, 1), each=True),), demands=(_NORMAL,))
            for name in ("ADD", "SUB")
        ),
        Kernel("MUL", _INT8, fast=(Ratio(2.0**-16, 2.0**8, inputs=(0, 1)),)),
        Kernel("LEAKY_RELU", _INT8, fast=(Ratio(2.0**-8, 2.0**7, closed=True), SlopeRatio(2.0**-8, 2.0**7))),
        Kernel("BATCH_MATMUL", _INT8, demands=(_NORMAL,)),
        Kernel("RESHAPE", _INT8, fast=(SameScale(),)),
        Kernel("QUANTIZE", _INT8, fast=(Ratio(2.0**-8, 2.0**7, closed=True),)),
        Kernel("QUANTIZE", _FLOAT, demands=(_NORMAL,)),
        Kernel("DEQUANTIZE", _INT8, demands=(_NORMAL,)),
        # integer weights: packed two or four to a byte, rows must end on whole bytes
        Kernel("FULLY_CONNECTED", ("int8", "int4"), fast=(Multiple(2),), demands=(_NORMAL, _PRODUCT)),
        Kernel("FULLY_CONNECTED", ("int8", "int2"), fast=(Multiple(4),), demands=(_NORMAL, _PRODUCT)),
        # dynamic range: activations are quantised row by row while the model runs
        Kernel("FULLY_CONNECTED", ("float32", "int8")),
        Kernel("FULLY_CONNECTED", ("float32", "int4"), fast=(Multiple(2),)),
        Kernel("FULLY_CONNECTED", ("float32", "int2"), fast=(Multiple(4),)),
        Kernel("CONV_2D", ("float32", "int8")),
    ),
    plain=(
        *(Kernel(name, _INT8) for name in (*_PLAIN_INT8, *_PLAIN_ANY)),
        *(Kernel(name, _FLOAT) for name in (*_PLAIN_ANY, "SIGN")),
        *(Kernel(name, ("int8", "int4")) for name in ("CONV_2D", "DEPTHWISE_CONV_2D")),
        *(Kernel(name, ("int16", "int8")) for name in (*_WEIGHTED, "TRANSPOSE_CONV")),
        *(Kernel(name, ("int16",)) for name in _INT16),
        Kernel("CONV_2D", ("float32", "int4")),
        Kernel("DEPTHWISE_CONV_2D", ("float32", "int8")),
    ),
    most_taps=25,
    most_joined=5,
    most_interleaved=4,
)
