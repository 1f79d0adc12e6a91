"""Masks in front of a softmax, whatever they are written as: no number like -1e9 is left, nor a selection."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.models.equality import run_graph
from tfq.models.graph import Graph
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.targets.cpu import CPU

T = 6
CAUSAL = np.tri(T)[None]
RNG = np.random.default_rng(0)


def causal_attention(library, x):
    return library.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)


def masked_softmax(library, x):
    return library.layers.Dot(1)([library.layers.Softmax()(library.layers.Dense(T)(x), CAUSAL), x])


def rows_without_any(library, x):
    masked = library.layers.Masking()(x)
    return library.layers.MultiHeadAttention(2, 4)(masked, masked)


def where_infinite(x):
    return tf.where(CAUSAL > 0, x, -np.inf)


def two_sums(x):
    return x + (CAUSAL - 1) * np.float32(1e9) + np.where(np.arange(T) < T - 1, 0.0, -100.0).astype(np.float32)


def computed_sum(x):
    return x + (tf.cast(x[:, :1] > 0, tf.float32) - 1) * 1e9 * np.eye(T, dtype=np.float32)[1:2]


def file_of(path, function):
    kernel = tf.constant(RNG.normal(0, 0.5, (8, T)).astype(np.float32))
    signature = [tf.TensorSpec((1, T, 8))]
    net = tf.function(lambda x: tf.matmul(tf.nn.softmax(function(tf.matmul(x, kernel[None]))), x), signature)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()]).convert())
    return path


def seldom_masked(x):
    return x + tf.where((tf.reduce_max(tf.abs(x)) > 9) & (np.arange(T) == 1), -np.inf, 0.0)


def check(model, samples=None):
    loaded = load_model(model)
    if samples is None:
        samples = RNG.normal(size=(4, T, 8)).astype(np.float32)
        samples[1:, 4:] = 0
    given = {loaded.graph.inputs[0]: samples}
    graph = prepare(loaded.graph, given, original=loaded, target=CPU).graph
    reads = tuple(node.inputs[0] for node in graph.nodes if node.kind in ("Softmax", "FloatSoftmax"))
    assert reads
    for scores in run_graph(Graph(graph.nodes, graph.inputs, reads), given):
        assert scores.min() >= 0
        assert scores.max() < 40
    return [node for node in graph.nodes if node.kind == "Carried"]


@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("function", [causal_attention, masked_softmax, rows_without_any])
def test_masks_of_keras(library, function):
    x = library.Input((T, 8))
    carried = check(library.Model(x, function(library, x)))
    assert bool(carried) == (function is rows_without_any)


@pytest.mark.parametrize("function", [where_infinite, two_sums, computed_sum])
def test_masks_of_a_file(tmp_path, function):
    carried = check(file_of(tmp_path / "net.tflite", function))
    assert bool(carried) == (function is computed_sum)


def test_a_mask_that_hides_something_in_few_samples(tmp_path):
    samples = RNG.uniform(-1, 1, (30, T, 8)).astype(np.float32)
    samples[20] *= 12
    assert check(file_of(tmp_path / "net.tflite", seldom_masked), samples)
