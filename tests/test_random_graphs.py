"""tfq deals with whatever the frontends accept: small random models become files that compute the same, or a line.

`tests/random_graphs.py` draws and judges them; it also runs by itself for as long as one likes.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from random_graphs import SAMPLES, Drawn, Unsuited, draw, outcome
from random_layers import LAYERS
from random_operators import KERAS_OPERATORS, TF_OPERATORS

from tfq.models import operators
from tfq.models.keras_layers import LAYERS as ROWS


def test_every_layer_and_operator_that_the_frontends_accept_has_a_step():
    assert {name for name, row in ROWS.items() if not row.training_only} <= set(LAYERS) <= set(ROWS)
    assert set(KERAS_OPERATORS) == set(operators.KERAS)
    assert set(TF_OPERATORS) >= set(operators.TENSORFLOW)


def check(library, seeds):
    faults, drawn = [], 0
    for seed in seeds:
        try:
            model = draw(library, seed)
        except Unsuited:
            continue
        found = outcome(model)
        drawn += 1
        if found.kind == "fault":
            faults.append(f"{library} {seed}: {found.message}\n{model.trace}")
    assert not faults, "\n".join(faults)
    assert drawn >= len(seeds) * 3 // 4


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_random_model_is_converted_or_refused_in_one_line(library):
    check(library, range(15))


def test_a_function_that_adds_one_on_its_way_is_no_finer_than_one_is():
    """Seed 84 takes log(1 + exp(x)) where x is about -15."""
    check("tf_keras", [84])


def product_shaped_anew(x):
    """The converter makes one operation of a product and a reshape behind it at the output."""
    return tf.expand_dims(tf.matmul(x, x, transpose_b=True), 1)


def square_of_a_difference(x):
    """The converter would make one operation of both where they compute in float."""
    return tf.square(tf.exp(x) - tf.math.softplus(x))


@pytest.mark.parametrize("function", [product_shaped_anew, square_of_a_difference])
def test_models_that_once_failed(function):
    x = tf_keras.Input((5, 4), name="x")
    model = tf_keras.Model(x, function(tf_keras.layers.Rescaling(0.5)(x)))
    samples = np.random.default_rng(0).normal(size=(SAMPLES, 5, 4)).astype(np.float32)
    found = outcome(Drawn(model, {"x": samples}, function.__name__))
    assert (found.kind, found.message) == ("works", "")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_hundred_random_models_are_converted_or_refused_in_one_line(library):
    check(library, range(100, 200))
