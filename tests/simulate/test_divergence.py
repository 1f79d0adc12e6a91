"""How far outputs are from those of the float model, against definitions written down a second time."""

import numpy as np
import operator_graphs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from tfq.models.graph import Graph, Node
from tfq.simulate.divergence import End, Measured, Yardstick, divergence, ends
from tfq.simulate.eager import tensors
from tfq.simulate.judge import Judge


def test_divergence_of_probabilities_is_kullback_leibler():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    q = np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    expected = [0.5 * np.log(2) + 0.25 * np.log(0.5), 0]
    np.testing.assert_allclose(divergence([p], [q]), expected, atol=1e-6)


def test_divergence_of_other_outputs_is_relative_squared_error():
    y, q = np.array([[3.0, 4.0], [0.0, 5.0]]), np.array([[3.0, 5.0], [2.0, 5.0]])
    np.testing.assert_allclose(divergence([y], [q]), [1 / 25, 4 / 25])
    np.testing.assert_allclose(divergence([y, y], [q, y]), divergence([y], [q]))
    assert np.isfinite(divergence([np.zeros((2, 3))], [np.zeros((2, 3))])).all()


def rounded(probabilities):
    """As a file gives them: whole numbers of steps of 1/256."""
    return np.minimum(np.rint(probabilities * 256), 255) / 256


def test_divergence_of_logits_is_that_of_their_softmax():
    rng = np.random.default_rng(0)
    y, q = rng.normal(0, 3, (2, 5, 1000))
    rod = Measured(logits=True)
    rod.add(y)
    expected = entropy(softmax(y, -1), softmax(q, -1), axis=-1)
    np.testing.assert_allclose(rod.yardstick(y, q), expected, rtol=1e-9)
    np.testing.assert_allclose(rod.yardstick(y[:, None], q[:, None]), expected, rtol=1e-9)  # one for each position
    assert (rod.yardstick(y + 7, y) < 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), classes=st.sampled_from([2, 10, 100, 1000]), spread=st.floats(0.1, 10))
def test_merged_classes_never_raise_the_divergence(seed, classes, spread):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, spread, (4, classes))
    p, r = softmax(y, -1), softmax(y + rng.normal(0, 0.3, y.shape), -1)
    found = divergence([p], [r])
    assert (found >= -1e-12).all()
    floor = np.count_nonzero(r < 1 / 512, axis=-1) / 512  # what small r are lifted by, where p has a step
    assert (found <= entropy(p, r, axis=-1) + floor + 1e-9).all()


def test_the_grid_of_probabilities_is_not_taken_for_a_divergence():
    rng = np.random.default_rng(1)
    y = rng.normal(0, 1.5, (64, 1000))
    p, close, far = (softmax(v, -1) for v in (y, y + rng.normal(0, 0.1, y.shape), y + rng.normal(0, 1, y.shape)))
    same, near, off = (divergence([p], [rounded(r)]).mean() for r in (p, close, far))
    assert same < 0.05  # a plain KL of what is rounded to 0 is a hundred times that
    assert same <= near < off / 3
    np.testing.assert_allclose(off, entropy(p, far, axis=-1).mean(), rtol=0.5)


def test_a_softmax_at_the_end_is_looked_at_before_its_grid():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    assert End("logits", True) in ends(graph)
    model = operator_graphs.specified(graph, samples)
    found = Judge(graph, samples).divergence(model)
    names = [end.tensor for end in ends(graph)]
    expected = 0
    for end, y, q in zip(ends(graph), tensors(graph, samples, names), tensors(model, samples, names), strict=True):
        rod = Measured(logits=end.logits)
        rod.add(y)
        expected = expected + rod.yardstick(y, q)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_parts_of_unlike_ranges_that_end_a_model_together_are_looked_at_apart():
    """As a detector's boxes, whose error would hide that of the classes beside them."""
    dense = [
        Node(n, "Dense", {"units": 3}, ("x",), {"kernel": np.ones((4, 3), np.float32)}) for n in ("boxes", "logits")
    ]
    graph = Graph(
        (
            Node("x", "Input", {"shape": (4,), "dtype": "float32"}),
            *dense,
            Node("classes", "FloatSoftmax", {}, ("logits",)),
            Node("copy", "Requantize", {}, ("classes",)),
            Node("scale", "FloatConcatenate", {"axis": -1}, ("boxes", "copy")),
            Node("score", "Sigmoid", {}, ("boxes",)),
            Node("all", "FloatConcatenate", {"axis": -1}, ("score", "scale")),
            Node("flat", "Reshape", {"target_shape": (9, 1)}, ("all",)),
        ),
        ("x",),
        ("flat", "boxes"),
    )
    assert ends(graph) == (End("score", False), End("boxes", False), End("logits", True), End("boxes", False))


@pytest.mark.parametrize("kind", ["probabilities", "values"])
def test_the_yardstick_of_an_output_follows_from_its_values(kind):
    values = np.random.default_rng(2).normal(size=(6, 4))
    assert Yardstick.of(softmax(values, -1) if kind == "probabilities" else values).kind == kind
