"""The operations of a *prepared* graph, and how each of them is quantised.

`prepare` (tfq.models.prepare) leaves no node whose kind is not in this table; every later stop looks
a node's rule up here. To support a new operation, add its row.
"""

from __future__ import annotations

import dataclasses
import math

from tfq.operations.matrix import Matrix


@dataclasses.dataclass(frozen=True)
class Operator:
    """How a node kind is quantised.

    Attributes:
      output: how the output's grid is found:
        "own"   from the calibrated range of the output;
        "same"  the grid of its inputs: all inputs and the output share one (TFLite demands it);
        "fixed" the constant grid `fixed` (TFLite demands it);
        "float" the operation has no int8 kernel worth using: it stays float32, and the spec says so.
      kernel: variable name of the weights; "" where there are none.
      matrix: how they multiply what the layer reads; None where they do not.
      dynamic_axis: of the scales of its weights in the Keras layout, where activations stay float32; None where TFLite
        has no kernel for integer weights among float activations worth using.
      packed_axis: of the weights that a kernel with float activations reads two or four to a byte; None where it reads
        bytes alone.
      fixed: (scale, zero_point) of a "fixed" output.
      clamps: TFLite can fuse a ReLU or ReLU6 onto the operation.
      elementwise: every element of the output depends on the elements at the same place of the inputs alone.
      moves: the output holds the input's values, all of them, and nothing computed from them.
      selects: every value of the output is one of the inputs', or 0, so that a ReLU may come before it.
      averages: every value of the output is a weighted mean of values of one channel, so that an affine map of the
        channels may come behind it.
      int16: runtimes have a kernel for int16 activations that is better than that for int8.
      most_int16: elements along the last axis up to which it is; None: any number.
      optional: with some options it gives what it reads.
      largest_ratio: of the largest scale that it reads to that of its output, below which the int8 kernels work.
      tflite: TFLite's name of the one operator that it becomes, where the ratio of its scales matters.
      why: of "float": the reason, for the specification; "" is that it has no int8 kernel that keeps the accuracy.
    """

    output: str
    kernel: str = ""
    matrix: Matrix | None = None
    dynamic_axis: int | None = None
    packed_axis: int | None = None
    fixed: tuple[float, int] | None = None
    clamps: bool = False
    elementwise: bool = False
    moves: bool = False
    selects: bool = False
    averages: bool = False
    int16: bool = False
    most_int16: int | None = None
    optional: bool = False
    largest_ratio: float = math.inf
    tflite: str = ""
    why: str = ""

    @property
    def channel_axis(self) -> int | None:
        """Output-channel axis of the weights in the Keras layout; None: they have one scale."""
        return None if self.matrix is None else self.matrix.channel_axis


_SMALL = "8 bits would lose small probabilities"
OPERATORS: dict[str, Operator] = {
    # weights; the bias is int32 with scale s_input * s_kernel
    "Conv2D": Operator(
        "own", kernel="kernel", matrix=Matrix("hwio", packs=True), dynamic_axis=3, clamps=True, int16=True
    ),
    "DepthwiseConv2D": Operator(
        "own", kernel="depthwise_kernel", matrix=Matrix("hwcm", packs=True), clamps=True, int16=True
    ),
    "Conv2DTranspose": Operator(
        "own",
        kernel="kernel",
        matrix=Matrix("hwoi", transposed=True, carried_per_tensor=True, stored_in_int8=True),
        int16=True,
    ),
    "Dense": Operator(
        "own",
        kernel="kernel",
        matrix=Matrix("io", packs=True, carried_per_tensor=True),
        dynamic_axis=1,
        packed_axis=0,
        clamps=True,
        int16=True,
    ),
    "Embedding": Operator("same", kernel="embeddings", dynamic_axis=0, packed_axis=1),  # a scale for every row
    # arithmetic
    "Add": Operator("own", clamps=True, elementwise=True, largest_ratio=2.0**18, tflite="ADD", int16=True),
    "Subtract": Operator("own", clamps=True, elementwise=True, largest_ratio=2.0**18, tflite="SUB", int16=True),
    "Multiply": Operator("own", clamps=True, elementwise=True, tflite="MUL", int16=True),
    "AddConstant": Operator("own", clamps=True, elementwise=True, largest_ratio=2.0**18, tflite="ADD", int16=True),
    "MultiplyConstant": Operator("own", clamps=True, elementwise=True, tflite="MUL", int16=True),
    "MultiplyPlaces": Operator("own", clamps=True),
    "MatMul": Operator("own", int16=True),
    "Maximum": Operator("same", elementwise=True, int16=True),
    "Minimum": Operator("same", elementwise=True, int16=True),
    "GlobalAveragePooling2D": Operator("own", averages=True, int16=True),
    "Mean": Operator("own", int16=True),
    "Requantize": Operator("own", moves=True, tflite="QUANTIZE"),
    # activations
    "ReLU": Operator("own", elementwise=True, tflite="QUANTIZE"),
    "LeakyReLU": Operator("own", elementwise=True, tflite="LEAKY_RELU", int16=True),
    "PReLU": Operator("own", kernel="alpha"),
    "HardSwish": Operator("own", elementwise=True, largest_ratio=2.0**7),
    "Gelu": Operator("own", elementwise=True),
    "Sigmoid": Operator("fixed", fixed=(1 / 256, -128), elementwise=True, int16=True),
    # the int16 kernel takes e^-10 for all that is less, so every element may add two steps to the sum
    "Softmax": Operator("fixed", fixed=(1 / 256, -128), int16=True, most_int16=32),
    "Tanh": Operator("fixed", fixed=(1 / 128, 0), elementwise=True, int16=True),
    # data movement and pooling
    "MaxPooling2D": Operator("same", selects=True, optional=True, int16=True),
    "AveragePooling2D": Operator("same", averages=True, optional=True, int16=True),
    "GlobalMaxPooling2D": Operator("same", selects=True),
    "Concatenate": Operator("same", selects=True, int16=True),
    "Reshape": Operator("same", moves=True, selects=True, int16=True),
    "Flatten": Operator("same", moves=True, selects=True, int16=True),
    "Permute": Operator("same", moves=True, selects=True, optional=True, int16=True),
    "ZeroPadding2D": Operator("same", selects=True, optional=True, int16=True),
    "Cropping2D": Operator("same", selects=True, averages=True, optional=True, int16=True),
    "Slice": Operator("same", selects=True, optional=True, int16=True),
    "UpSampling2D": Operator("same", selects=True, averages=True, optional=True),  # bilinear: it selects nothing
    "Resizing": Operator("same", averages=True, optional=True),
    # float islands
    "LayerNormalization": Operator("float"),
    "Unary": Operator("float", elementwise=True),
    "Divide": Operator("float", elementwise=True),
    "ELU": Operator("float", elementwise=True),
    "FloatAffine": Operator("float", why="kept float: an 8-bit grid would lose the small values that it is there for"),
    "FloatGelu": Operator(
        "float", elementwise=True, why="kept float: there is no fast kernel in integers, and the one in float is exact"
    ),
    "FloatSoftmax": Operator("float", why=f"kept float: {_SMALL}"),
    "FloatSigmoid": Operator("float", elementwise=True, why=f"kept float: {_SMALL}"),
    "FloatConcatenate": Operator("float", why="kept float: it joins tensors of unlike ranges, and ends the model"),
    "Carried": Operator("float"),
    "Cast": Operator("float", why="it makes whole numbers, such as indices, of an input"),
}


_UNKNOWN = Operator("")  # of an input, or of a layer that is not decomposed yet


def operator_of(kind: str) -> Operator:
    """The row of a node kind, one without any property for a kind that has none."""
    return OPERATORS.get(kind, _UNKNOWN)


def matrix_of(kind: str) -> Matrix | None:
    """How the weights of a node kind multiply what it reads; None for those without such weights."""
    return operator_of(kind).matrix
