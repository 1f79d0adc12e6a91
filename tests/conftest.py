"""Small .tflite models that several folders of tests run."""

import os
import random
import signal
import sys

import numpy as np
import pytest
from hypothesis import settings

# A deadline is an assertion on time, and fails on a busy machine. Continuous integration draws the same
# examples each time; elsewhere every run looks at new ones.
settings.register_profile("no deadline", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("no deadline")

# What runs in the background or under nohup ignores these signals, and so would all commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Fixtures and tests begin from the same random weights whichever process runs them, and after whichever others."""
    random.seed(0)
    np.random.seed(0)
    for name in ("keras", "tf_keras"):
        if name in sys.modules:
            sys.modules[name].utils.set_random_seed(0)


def _converted(model, calibration=None):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.fixture(scope="session")
def classifier():
    """(Keras model 8x8x1 -> 4 class probabilities, images [120, 8, 8, 1] in 0..4, its float and int8 .tflite)."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            tf_keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(6, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", name="probabilities"),
        ]
    )
    images = np.random.default_rng(0).uniform(0, 4, (120, 8, 8, 1)).astype(np.float32)
    return model, images, _converted(model), _converted(model, images)


@pytest.fixture(scope="session")
def autoencoder():
    """(Keras model 6 -> 3 -> 6, samples [80, 6], its float and int8 .tflite)."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    layers = [tf_keras.layers.Dense(3, activation="relu"), tf_keras.layers.Dense(6)]
    model = tf_keras.Sequential([tf_keras.Input((6,), name="signal"), *layers])
    samples = np.random.default_rng(1).normal(size=(80, 6)).astype(np.float32)
    return model, samples, _converted(model), _converted(model, samples)


@pytest.fixture(scope="session")
def two_inputs():
    """(Keras model of the inputs "left" [3] and "ids" [2] int32 with the outputs "sum" and "product", its .tflite)."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(2)
    left, ids = tf_keras.Input((3,), name="left"), tf_keras.Input((2,), name="ids", dtype="int32")
    looked_up = layers.Flatten()(layers.Embedding(5, 4)(ids))
    a, b = layers.Dense(4)(left), layers.Dense(4)(looked_up)
    model = tf_keras.Model([left, ids], [layers.Add(name="sum")([a, b]), layers.Multiply(name="product")([a, b])])
    return model, _converted(model)


@pytest.fixture(scope="session")
def lstm():
    """(LSTM of batch size 1 over [5, 3], its .tflite with the state in variable tensors)."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    model = tf_keras.Sequential([tf_keras.Input((5, 3), batch_size=1, name="steps"), tf_keras.layers.LSTM(4)])
    return model, _converted(model)


def _converted_function(function, shape, **options):
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    for name, value in options.items():
        setattr(converter.target_spec, name, value)
    return converter.convert()


@pytest.fixture(scope="session")
def batch_traps():
    """.tflite models [any, 4] whose batch axis may be resized but must not be: by what goes wrong."""
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32))
    return {
        "fails": _converted_function(lambda x: tf.reshape(x, [1, 4]) @ weights, [None, 4]),
        "mixes samples": _converted_function(lambda x: x - tf.reduce_mean(x, axis=0, keepdims=True) / 2, [None, 4]),
    }


@pytest.fixture(scope="session")
def three_at_a_time():
    """.tflite of y = 2 x + (place in the batch), for exactly [3, 2]."""
    import tensorflow as tf

    place = tf.constant([[0.0], [1.0], [2.0]])
    return _converted_function(lambda x: 2 * x + place, [3, 2])


@pytest.fixture(scope="session")
def needs_tensorflow():
    """.tflite with an operator that is no TFLite builtin."""
    import tensorflow as tf

    return _converted_function(
        tf.linalg.inv,
        [2, 2],
        supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS],
    )
