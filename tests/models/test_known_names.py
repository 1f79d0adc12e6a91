"""The allow-list of names against the installed libraries and the tables of the frontends."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import tf_keras

from tfq.models import carried_names, keras3, known_names, operators, tf_keras_models
from tfq.models.keras_layers import LAYERS


def public_layers():
    return {
        name
        for library in (keras, tf_keras)
        for name, found in vars(library.layers).items()
        if isinstance(found, type) and issubclass(found, library.layers.Layer)
    }


def test_every_layer_that_a_frontend_takes_may_stand_in_a_file():
    assert set(LAYERS) <= known_names.LAYERS


# What an older Keras lacks does no harm: the list is that of the newest.
newest = pytest.mark.skipif(tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15), reason="the list is of 3.15")


@newest
def test_every_name_is_a_public_layer_of_a_library():
    assert public_layers() >= known_names.LAYERS | known_names.WRAPPERS


def test_no_layer_stands_in_two_lists():
    lists = (known_names.LAYERS, known_names.WRAPPERS, known_names.NOT_TAKEN, known_names.MODELS)
    assert len(frozenset.union(*lists)) == sum(map(len, lists))


@pytest.mark.parametrize("symbol", [
    "io.read_file", "image.decode_jpeg", "map_fn", "py_function", "numpy_function", "nn.raw_rnn", "raw_ops.ReadFile",
    "math.__class__", "nn.RNNCellDropoutWrapper", "saved_model.load", "linalg.LinearOperator", "print",
])  # fmt: skip
def test_functions_that_run_code_or_open_files_are_not_carried(symbol):
    assert not carried_names.may_carry(symbol)


@pytest.mark.parametrize("kind", ["Lambda", "TFSMLayer", "StringLookup", "IntegerLookup", "TextVectorization", "RNN"])
def test_layers_that_run_code_or_open_files_are_not_on_the_list(kind):
    assert kind not in known_names.LAYERS | known_names.WRAPPERS


def test_layers_of_keras_applications_are_where_they_are_said_to_be():
    for name, module in known_names.HIDDEN_LAYERS.items():
        assert issubclass(getattr(importlib.import_module(module), name), keras.layers.Layer)
        assert issubclass(getattr(importlib.import_module(f"tf_{module}"), name), tf_keras.layers.Layer)


def test_the_operators_are_known_and_those_with_a_rule_among_them():
    assert set(operators.KERAS) <= known_names.KERAS_OPERATIONS
    assert {*operators.TENSORFLOW, *operators.SHAPES} == known_names.TF_SYMBOLS
    for name in known_names.KERAS_OPERATIONS:
        assert keras3.operation_class(name) is not None


@newest
def test_the_activations_are_public_functions():
    own = {name for k in (keras, tf_keras) for name, f in vars(k.activations).items() if callable(f)}
    assert own >= known_names.ACTIVATIONS


def test_every_activation_that_a_frontend_takes_may_stand_in_a_file():
    for frontend in (keras3.Keras3Frontend, tf_keras_models.TFKerasFrontend):
        for function in (*frontend.kept_activations, *frontend.other_activations):
            if not function.__module__.startswith("tensorflow"):
                assert function.__name__ in known_names.ACTIVATIONS


def test_the_types_are_known_to_numpy_or_keras():
    for name in known_names.DTYPES - {"string", "bfloat16"}:
        assert np.dtype(name).name == name
    for policy in known_names.POLICIES - known_names.DTYPES:
        assert tf_keras.mixed_precision.Policy(policy).name == policy
