"""The definitions in NumPy against Keras' own layers."""

import numpy as np
import pytest

from tfq.models.equality import node_function
from tfq.models.graph import Node
from tfq.operations.table import OPERATORS
from tfq.verify.definitions import WINDOWED, define, output_size, window_of

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def conv(rows=3, columns=3, inputs=4, outputs=5, **config):
    weights = {"kernel": normal(rows, columns, inputs, outputs), "bias": normal(outputs)}
    return Node("x", "Conv2D", {"filters": outputs, "kernel_size": (rows, columns), **config}, ("a",), weights)


def transposed(rows=3, columns=3, inputs=4, outputs=5, **config):
    weights = {"kernel": normal(rows, columns, outputs, inputs), "bias": normal(outputs)}
    return Node("x", "Conv2DTranspose", {"filters": outputs, "kernel_size": (rows, columns), **config}, ("a",), weights)


def depthwise(multiplier=1, **config):
    weights = {"depthwise_kernel": normal(3, 2, 4, multiplier), "bias": normal(4 * multiplier)}
    return Node(
        "x", "DepthwiseConv2D", {"kernel_size": (3, 2), "depth_multiplier": multiplier, **config}, ("a",), weights
    )


def plain(kind, *, weights=None, activation=None, inputs=("a",), **config):
    return Node("x", kind, config, inputs, weights or {}, activation)


IMAGE, ROWS = (7, 6, 4), (5, 6)
TWO = ("a", "b")
CASES = [
    (conv(), IMAGE),
    (conv(padding="same"), IMAGE),
    (conv(padding="same", strides=2), IMAGE),
    (conv(padding="same", strides=(2, 3), activation=None), (8, 9, 4)),
    (conv(2, 5, padding="same", dilation_rate=(2, 1)), IMAGE),
    (conv(strides=2), IMAGE),
    (conv(padding="same").replace(activation="relu"), IMAGE),
    (conv(1, 1).replace(activation="relu6"), IMAGE),
    (transposed(), IMAGE),
    (transposed(padding="same"), IMAGE),
    (transposed(padding="same", strides=2), IMAGE),
    (transposed(strides=2), IMAGE),
    (transposed(2, 2, padding="same", strides=3), IMAGE),
    (transposed(5, 4, strides=(2, 3)), IMAGE),
    (transposed(padding="same", strides=2, output_padding=(1, 0)), IMAGE),
    (transposed(strides=2, output_padding=1), IMAGE),
    (depthwise(), IMAGE),
    (depthwise(3, padding="same", strides=2), IMAGE),
    (depthwise(2, padding="same", dilation_rate=2), IMAGE),
    (plain("MaxPooling2D"), IMAGE),
    (plain("MaxPooling2D", pool_size=3, strides=2, padding="same"), IMAGE),
    (plain("AveragePooling2D", pool_size=(3, 2), strides=(2, 1), padding="same"), IMAGE),
    (plain("AveragePooling2D", pool_size=3), IMAGE),
    (plain("Dense", weights={"kernel": normal(6, 3), "bias": normal(3)}, units=3), (6,)),
    (plain("Dense", weights={"kernel": normal(6, 3)}, units=3, use_bias=False, activation="relu"), (6,)),
    *(
        (plain(kind, inputs=TWO), IMAGE, IMAGE)
        for kind in ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum")
    ),
    (plain("Multiply", inputs=TWO), IMAGE, (1, 1, 4)),
    (plain("FloatAffine", weights={"scale": normal(4), "offset": normal(4)}), IMAGE),
    (plain("Cast"), ROWS),
    (plain("AddConstant", constant=-1.5), IMAGE),
    (plain("MultiplyConstant", constant=-1.5), ROWS),
    (
        plain("MultiplyPlaces", rows=(1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5), columns=(1.0,) * 5 + (2.0,), step=1 / 84),
        IMAGE,
    ),
    (plain("MatMul", inputs=TWO), (2, 3, 4), (2, 4, 5)),
    (plain("MatMul", inputs=TWO, transpose_a=True), (2, 4, 3), (2, 4, 5)),
    (plain("MatMul", inputs=TWO, transpose_b=True), (2, 3, 4), (2, 5, 4)),
    (plain("GlobalAveragePooling2D"), IMAGE),
    (plain("GlobalAveragePooling2D", keepdims=True), IMAGE),
    (plain("GlobalMaxPooling2D"), IMAGE),
    (plain("GlobalMaxPooling2D", keepdims=True), IMAGE),
    (plain("Mean", axes=(2,)), ROWS),
    (plain("Mean", axes=(1, 3), keepdims=True), IMAGE),
    (plain("Requantize"), IMAGE),
    (plain("ReLU"), IMAGE),
    (plain("ReLU", max_value=6.0), IMAGE),
    (plain("LeakyReLU", alpha=0.1), IMAGE),
    (plain("PReLU", weights={"alpha": normal(1, 1, 4)}, shared_axes=[1, 2]), IMAGE),
    (plain("ELU"), IMAGE),
    (plain("HardSwish"), IMAGE),
    (plain("Gelu"), IMAGE),
    (plain("Gelu", approximate=True), IMAGE),
    (plain("FloatGelu"), IMAGE),
    (plain("Sigmoid"), IMAGE),
    (plain("FloatSigmoid"), IMAGE),
    (plain("Tanh"), IMAGE),
    (plain("Softmax"), IMAGE),
    (plain("FloatSoftmax"), IMAGE),
    (plain("Concatenate", inputs=TWO), IMAGE, (7, 6, 2)),
    (plain("Concatenate", inputs=TWO, axis=1), IMAGE, (3, 6, 4)),
    (plain("FloatConcatenate", inputs=TWO, axis=1), IMAGE, (3, 6, 4)),
    (plain("Reshape", target_shape=(6, 28)), IMAGE),
    (plain("Flatten"), IMAGE),
    (plain("Permute", dims=(3, 1, 2)), IMAGE),
    (plain("ZeroPadding2D", padding=2), IMAGE),
    (plain("ZeroPadding2D", padding=((1, 0), (2, 3))), IMAGE),
    (plain("Cropping2D", cropping=((1, 2), (0, 3))), IMAGE),
    (plain("Slice", begin=(1, None, 3), end=(-1, None, 0), strides=(2, None, -1)), IMAGE),
    (plain("UpSampling2D", size=(2, 3)), IMAGE),
    (plain("UpSampling2D", size=2, interpolation="bilinear"), IMAGE),
    (plain("Resizing", height=5, width=13), IMAGE),
    (plain("Resizing", height=5, width=13, interpolation="nearest"), IMAGE),
    (plain("LayerNormalization", weights={"gamma": normal(4), "beta": normal(4)}, axis=[-1], epsilon=0.01), IMAGE),
    (plain("LayerNormalization", weights={"gamma": normal(7, 4)}, axis=[1, 3], center=False), IMAGE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].kind}-{case[0].config}")
def test_a_layer_is_what_keras_computes(case):
    node, *shapes = case
    arrays = [3 * normal(1, *shape) for shape in shapes]
    wanted = node_function(node)(arrays).numpy()
    found = define(
        node, [a.astype(np.float64) for a in arrays], {n: w.astype(np.float64) for n, w in node.weights.items()}
    )
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    if node.kind in WINDOWED:
        size = output_size(node, arrays[0].shape, window_of(node, node.weights))
        at = np.stack([rng.integers(0, n, 5) for n in size], -1)
        some = define(node, arrays, node.weights, at)
        np.testing.assert_allclose(some, wanted[0, at[:, 0], at[:, 1]], rtol=1e-4, atol=1e-4)


def test_an_embedding():
    table, rows = normal(9, 4), rng.integers(0, 9, (1, 6))
    node = Node("x", "Embedding", {"input_dim": 9, "output_dim": 4}, ("a",), {"embeddings": table})
    np.testing.assert_array_equal(define(node, [rows.astype(np.float64)], {"embeddings": table}), table[rows])


FUNCTIONS = """abs ceil cos erf exp expm1 floor log log1p log_sigmoid log_softmax reciprocal rsqrt selu sign sin
    softplus softsign sqrt square"""


@pytest.mark.parametrize("function", FUNCTIONS.split())
def test_a_function_is_tensorflows(function):
    node = plain("Unary", function=function)
    values = np.abs(3 * normal(1, 40)) if function in ("log", "log1p", "rsqrt", "sqrt") else 3 * normal(1, 40)
    wanted = node_function(node)([values]).numpy()
    np.testing.assert_allclose(define(node, [values.astype(np.float64)], {}), wanted, rtol=1e-4, atol=1e-5)


def test_every_operation_is_among_the_cases():
    alone = {"Embedding", "Unary", "Carried"}  # have tests of their own
    assert {case[0].kind for case in CASES} | alone == set(OPERATORS)


def test_what_has_none_is_said():
    assert define(plain("Unary", function="digamma"), [normal(1, 3)], {}) is None
    assert define(plain("Wavelet"), [normal(1, 3)], {}) is None
