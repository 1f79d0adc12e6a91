"""Which tensors share a grid where a float node only selects among the values of one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfq.models.grids import grid_groups
from tfq.models.load import load_model
from tfq.models.prepare import prepare


def groups_of(middle):
    """Of a dense layer "first", what is tried on its four numbers, and a dense layer that reads that."""
    inputs = keras.Input((6,), name="x")
    y = layers.Dense(4, name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="last")(middle(y)))
    samples = {"x": np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)}
    graph = prepare(load_model(model).graph, samples).graph
    groups = grid_groups(graph)
    copies = [n.name for n in graph.nodes if n.kind == "Requantize" and graph[n.inputs[0]].kind == "Carried"]
    assert copies
    return groups, copies


@pytest.mark.parametrize(
    "middle",
    [
        lambda y: y - ops.min(y, -1, keepdims=True),
        lambda y: ops.flip(ops.sort(y), -1),
        lambda y: layers.Flatten()(ops.sort(y)[:, None]),
        lambda y: ops.take_along_axis(y, ops.argsort(y), -1),
    ],
)
def test_what_is_selected_of_a_tensor_has_its_grid(middle):
    groups, copies = groups_of(middle)
    assert {groups[name] for name in copies} == {"first"}


@pytest.mark.parametrize(
    "middle",
    [
        lambda y: ops.mod(y, 1.0),  # computed
        lambda y: ops.where(ops.sort(y) > 0.5, y, 3.0 * y),
        lambda y: ops.concatenate([ops.sort(y), 50.0 * ops.relu(y)], -1),  # joined with a wider range
        lambda y: ops.sort(ops.sigmoid(y)),  # of a grid that TFLite prescribes
    ],
)
def test_what_is_computed_or_joined_has_a_grid_of_its_own(middle):
    groups, copies = groups_of(middle)
    assert not any(groups[name] in ("first", "sigmoid") for name in copies)
