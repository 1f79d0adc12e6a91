"""Shapes of models at their edges, and layers whose files look like something else."""

import dataclasses

import numpy as np
import pytest
import tf_keras

from tfq.errors import UserError
from tfq.models.graph import Graph, Node
from tfq.models.grids import separate_grids
from tfq.models.load import load_model
from tfq.models.prepare import prepare

layers = tf_keras.layers


def prepared(inputs, outputs):
    samples = {"x": np.random.default_rng(0).normal(size=(4, *inputs.shape[1:])).astype(np.float32)}
    return prepare(load_model(tf_keras.Model(inputs, outputs)).graph, samples).graph


def test_an_input_that_is_an_output_is_refused():
    x = tf_keras.Input((4,), name="x")
    with pytest.raises(UserError, match="is its input 'x' unchanged; take it out of the model's outputs"):
        prepared(x, [layers.Dense(2, name="d")(x), x])
    with pytest.raises(UserError, match="is its input 'x' unchanged; the model has no other output"):
        prepared(x, layers.Dropout(0.5)(x))


@pytest.mark.parametrize("dropped", [False, True])
def test_an_output_that_is_there_twice_is_refused(dropped):
    x = tf_keras.Input((4,), name="x")
    y = layers.Dense(2, name="d")(x)
    with pytest.raises(UserError, match="is the same as its output 'd'; take one of them out"):
        prepared(x, [y, layers.Dropout(0.5, name="drop")(y) if dropped else y])


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_constant_initializer_is_no_code(suffix, tmp_path):
    x = tf_keras.Input((4,), name="x")
    initializer = tf_keras.initializers.Constant(-4.6)
    tf_keras.Model(x, layers.Dense(2, name="d", bias_initializer=initializer)(x)).save(tmp_path / f"m.{suffix}")
    graph = load_model(tmp_path / f"m.{suffix}").graph
    np.testing.assert_allclose(graph["d"].weights["bias"], [-4.6, -4.6], rtol=1e-6)


@pytest.mark.parametrize(("kind", "copied"), [("Softmax", True), ("Sigmoid", True), ("Tanh", False)])
def test_the_right_hand_side_of_a_matmul_gets_a_grid_around_zero(kind, copied):
    nodes = (
        Node("a", "Input", {"shape": (3, 3), "dtype": "float32"}),
        Node("b", "Input", {"shape": (3, 3), "dtype": "float32"}),
        Node("s", kind, {}, ("b",)),
        Node("right", "MatMul", {}, ("a", "s")),
        Node("left", "MatMul", {}, ("s", "a")),
    )
    graph = separate_grids(Graph(nodes, ("a", "b"), ("right", "left")))
    assert graph["right"].inputs == ("a", "s.requantize" if copied else "s")
    assert graph["left"].inputs == ("s", "a")


def test_a_tensor_minus_itself_is_told():
    x = tf_keras.Input((4,), name="x")
    y = layers.Dense(2, name="d")(x)
    with pytest.raises(UserError, match="layer 'nothing' subtracts a tensor from itself"):
        prepared(x, layers.Dense(1)(layers.Subtract(name="nothing")([y, y])))


def test_computed_indices_are_told():
    x = tf_keras.Input((4,), name="x")
    with pytest.raises(UserError, match="its indices are computed by 'd'; expected an input of the model"):
        prepared(x, layers.Embedding(5, 2, name="e")(layers.Dense(2, name="d")(x)))


def test_a_model_that_gives_something_else_at_each_call_is_told():
    x = tf_keras.Input((4,), name="x")
    loaded = load_model(tf_keras.Model(x, layers.Dense(2, name="d")(x)))
    rng = np.random.default_rng(0)
    moody = dataclasses.replace(loaded, predict=lambda arrays: (rng.normal(size=(len(arrays["x"]), 2)),))
    samples = {"x": rng.normal(size=(4, 4)).astype(np.float32)}
    with pytest.raises(UserError, match="gives other outputs for the same samples at each call"):
        prepare(loaded.graph, samples, original=moody)
    wrong = dataclasses.replace(loaded, predict=lambda arrays: tuple(2 * y for y in loaded.predict(arrays)))
    with pytest.raises(UserError, match=r"the model's output 'd' differs by .* of its peak"):
        prepare(loaded.graph, samples, original=wrong)
