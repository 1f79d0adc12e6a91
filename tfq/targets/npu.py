"""An accelerator that computes in integers of 8 and 16 bits, as small processors have beside them.

The table is that of Arm's Ethos-U55, by its compiler: Vela 5.2 was given a file of every operator for each type, and
said what it puts on the accelerator. All else that LiteRT has runs beside it, on the processor. Other accelerators take
other operators: ask their compilers. What Vela asks of shapes and strides is not here.
"""

from __future__ import annotations

from tfq.targets.target import Kernel, Target

_INT16 = (
    "ABS", "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "EXP", "EXPAND_DIMS", "LEAKY_RELU", "LOG", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "PACK", "PAD", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN",
    "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX", "SPLIT", "SQUEEZE",
    "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE",
)  # fmt: skip
_INT8 = (*_INT16, "BATCH_MATMUL", "GELU", "HARD_SWISH", "PRELU", "RELU_N1_TO_1", "SQUARED_DIFFERENCE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_BESIDE = ("BROADCAST_TO", "GATHER", "L2_NORMALIZATION", "LOG_SOFTMAX", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
_FLOAT = (*_INT8, *_WEIGHTED, *_BESIDE, "COS", "DIV", "ELU", "FLOOR", "ROUND", "SIN", "SQRT", "SQUARE")

NPU = Target(
    "npu",
    "the accelerator",
    kernels=(
        *(Kernel(name, ("int8",)) for name in (*_INT8, *_WEIGHTED)),
        *(Kernel(name, ("int16",)) for name in _INT16),
        *(Kernel(name, ("int16", "int8")) for name in _WEIGHTED),
    ),
    plain=(
        *(Kernel(name, ("float32",)) for name in _FLOAT),
        *(Kernel(name, ("int8",)) for name in (*_BESIDE, "DEQUANTIZE")),
        *(Kernel(name, ("int16",)) for name in ("BATCH_MATMUL", "DEQUANTIZE")),
    ),
    integers_only=True,
)
