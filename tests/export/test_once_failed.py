"""Models that once crashed, were refused or came out wrong: now they give what Keras gives, in every runtime."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from random_graphs import Drawn, outcome

K, OPS = keras.layers, keras.ops
RNG = np.random.default_rng(7)
TOKENS = RNG.integers(0, 12, (24, 5))


def normal(*shape):
    return RNG.normal(size=(24, *shape)).astype("float32")


def of(library, shape, function, dtype="float32"):
    x = library.Input(shape, dtype=dtype, name="x")
    return library.Model(x, function(x))


def works(model, *values):
    found = outcome(Drawn(model, {t.name.split(":")[0]: v for t, v in zip(model.inputs, values, strict=True)}, ""))
    assert (found.kind, found.message) == ("works", "")


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_an_embedding_reads_whatever_type_the_input_has(library, dtype):
    layers = library.layers
    model = of(library, (5,), lambda x: layers.Dense(3)(layers.Flatten()(layers.Embedding(12, 4)(x))), dtype)
    works(model, TOKENS.astype(dtype))


def test_one_input_may_hold_indices_and_quantities():
    def function(x):
        looked_up = K.Flatten()(K.Embedding(12, 3)(x[:, :2]))
        return K.Dense(2)(K.Concatenate()([looked_up, K.Dense(3)(x[:, 2:])]))

    works(of(keras, (5,), function), np.concatenate([TOKENS[:, :2], RNG.normal(size=(24, 3))], 1).astype("float32"))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "float64"])
def test_arithmetic_reads_whatever_type_the_input_has(dtype):
    model = of(keras, (6, 6, 3), lambda x: K.Conv2D(4, 3)(K.Rescaling(1 / 50, -1.0)(x)), dtype)
    values = RNG.integers(0, 120, (24, 6, 6, 3)).astype("float32" if dtype.startswith("float") else dtype)
    works(model, values)


def test_an_input_that_nothing_reads_stays():
    x, unused = keras.Input((4,), name="x"), keras.Input((3,), name="unused")
    works(keras.Model([x, unused], K.Dense(3)(x)), normal(4), normal(3))


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize(
    ("shape", "shared"), [((6,), None), ((5, 6), None), ((5, 6), [1]), ((4, 5, 6), [1]), ((2, 3, 4, 2), [2])]
)
def test_prelu_takes_every_rank(library, shape, shared):
    start = library.initializers.RandomUniform(-0.4, 0.4)
    works(
        of(library, shape, library.layers.PReLU(alpha_initializer=start, shared_axes=shared)),
        normal(*shape),
    )


@pytest.mark.parametrize(
    "function",
    [OPS.selu, OPS.erf, OPS.softplus, OPS.log_sigmoid, OPS.log_softmax, lambda x: OPS.relu(OPS.gelu(x, False)),
     lambda x: OPS.log(OPS.softmax(x)), lambda x: OPS.log(OPS.square(3 * x) + 0.1), lambda x: OPS.relu6(OPS.relu(x))],
    ids=["selu", "erf", "softplus", "log sigmoid", "log softmax", "relu of gelu", "log of softmax", "log of a sum",
         "relu6 of relu"],
)  # fmt: skip
@pytest.mark.parametrize("inside", [False, True])
def test_functions_without_a_good_int8_kernel_keep_their_accuracy(function, inside):
    def whole(x):
        found = function(K.Dense(5)(x))
        return K.Dense(3)(found) if inside else found

    works(of(keras, (6,), whole), normal(6))


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_boxes_divide_the_same_tensor_by_the_same_number_twice(library):
    def boxes(x):
        middle, size = x[:, :2], x[:, 2:]
        return library.layers.Concatenate()([middle - size / 2, middle + size / 2])

    works(of(library, (4,), boxes), normal(4))


@pytest.mark.parametrize("joined", [tf_keras.layers.Concatenate(axis=1), tf_keras.layers.Minimum()])
def test_a_float_tensor_is_not_clipped_to_the_grid_of_what_it_is_joined_with(joined):
    works(of(tf_keras, (3, 4), lambda x: joined([tf.nn.elu(3 * x), tf.tanh(x)])), normal(3, 4))


@pytest.mark.parametrize("pool", [K.AveragePooling2D(2), K.MaxPooling2D(2)], ids=["average", "max"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_relu_may_follow_a_pooling(pool, inside):
    def function(x):
        found = K.ReLU()(pool(x))
        return K.Conv2D(2, 2)(found) if inside else found

    works(of(keras, (6, 6, 3), function), normal(6, 6, 3))


def test_a_mean_may_be_reshaped():
    works(of(keras, (6, 6, 3), lambda x: OPS.transpose(OPS.mean(x, 2)[:, :, None], (0, 3, 2, 1))), normal(6, 6, 3))


def test_a_sigmoid_between_float_operations_is_float():
    works(of(keras, (2, 3), lambda x: OPS.exp(OPS.concatenate([OPS.sigmoid(OPS.cos(x)), OPS.sin(x)], 1))), normal(2, 3))


@pytest.mark.parametrize(
    "idle",
    [K.Permute((1, 3, 2)), K.GlobalAveragePooling2D(keepdims=True), K.ZeroPadding2D(0), K.MaxPooling2D(1),
     K.UpSampling2D(1), lambda x: x[:, :, :, ::1]],
    ids=["permute", "pool", "pad", "max", "upsampling", "slice"],
)  # fmt: skip
def test_layers_that_do_nothing_are_no_obstacle(idle):
    works(of(keras, (1, 1, 1), lambda x: idle(K.Rescaling(0.5, 0.1)(x))), normal(1, 1, 1))


def test_a_relu_of_a_dense_layer_that_others_read_stays_apart_from_it():
    def function(x):
        y = K.Dense(4)(x)
        return y + 3 * OPS.relu(y)

    works(of(keras, (6,), function), normal(6))


def test_a_product_is_joined_with_its_factor():
    works(of(keras, (6,), lambda x: K.Dense(3)(OPS.concatenate([x, x * x], -1))), 100 * normal(6))
