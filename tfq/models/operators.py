"""The operations of a *prepared* graph, and how each of them is quantised.

`prepare` (tfq.models.prepare) leaves no node whose kind is not in this table; every later stop looks
a node's rule up here. To support a new operation, add its row.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Operator:
    """How a node kind is quantised.

    Attributes:
      output: how the output's grid is found:
        "own"   from the calibrated range of the output;
        "same"  the grid of its inputs: all inputs and the output share one (TFLite demands it);
        "fixed" the constant grid `fixed` (TFLite demands it);
        "float" the operation has no int8 kernel worth using: it stays float32, and the spec says so.
      kernel: variable name of the weight matrix; "" where there is none.
      channel_axis: output-channel axis of that variable in the Keras layout; None: per-tensor only.
      fixed: (scale, zero_point) of a "fixed" output.
      clamps: TFLite can fuse a ReLU or ReLU6 onto the operation.
      why: of "float": the reason, for the specification; "" is that it has no int8 kernel that keeps the accuracy.
    """

    output: str
    kernel: str = ""
    channel_axis: int | None = None
    fixed: tuple[float, int] | None = None
    clamps: bool = False
    why: str = ""


OPERATORS: dict[str, Operator] = {
    # weights; the bias is int32 with scale s_input * s_kernel
    "Conv2D": Operator("own", kernel="kernel", channel_axis=3, clamps=True),
    "DepthwiseConv2D": Operator("own", kernel="depthwise_kernel", channel_axis=2, clamps=True),
    "Conv2DTranspose": Operator("own", kernel="kernel", channel_axis=2),
    "Dense": Operator("own", kernel="kernel", channel_axis=1, clamps=True),
    "Embedding": Operator("same", kernel="embeddings"),
    # arithmetic
    "Add": Operator("own", clamps=True),
    "Subtract": Operator("own", clamps=True),
    "Multiply": Operator("own", clamps=True),
    "MatMul": Operator("own"),
    "Maximum": Operator("same"),
    "Minimum": Operator("same"),
    "GlobalAveragePooling2D": Operator("own"),
    "Mean": Operator("own"),
    "Requantize": Operator("own"),
    # activations
    "ReLU": Operator("own"),
    "LeakyReLU": Operator("own"),
    "PReLU": Operator("own", kernel="alpha"),
    "HardSwish": Operator("own"),
    "Gelu": Operator("own"),
    "Sigmoid": Operator("fixed", fixed=(1 / 256, -128)),
    "Softmax": Operator("fixed", fixed=(1 / 256, -128)),
    "Tanh": Operator("fixed", fixed=(1 / 128, 0)),
    # data movement and pooling
    "MaxPooling2D": Operator("same"),
    "AveragePooling2D": Operator("same"),
    "GlobalMaxPooling2D": Operator("same"),
    "Concatenate": Operator("same"),
    "Reshape": Operator("same"),
    "Flatten": Operator("same"),
    "Permute": Operator("same"),
    "ZeroPadding2D": Operator("same"),
    "Cropping2D": Operator("same"),
    "Slice": Operator("same"),
    "UpSampling2D": Operator("same"),
    "Resizing": Operator("same"),
    # float islands
    "LayerNormalization": Operator("float"),
    "Unary": Operator("float"),
    "Divide": Operator("float"),
    "ELU": Operator("float"),
    "FloatAffine": Operator("float", why="kept float: an 8-bit grid would lose the small values that it is there for"),
    "Cast": Operator("float", why="it makes whole numbers, such as indices, of an input"),
}
