"""AdaQuant: its gradients against NumPy, what it may change, and that it gains."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from layer_problems import fitted_errors, layer_problem

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import activation_grid, specify
from tfq.models.graph import Graph, Node
from tfq.numerics import reference
from tfq.reconstruction.adaquant import adaquant, moved_grid, on_learned_range, range_facts, squared_distance
from tfq.reconstruction.descent import nearest_integer
from tfq.reconstruction.reconstruct import has_own_input_grid, reconstruct
from tfq.reconstruction.weight_scales import output_scales
from tfq.simulate.guard import Version

RNG = np.random.default_rng(0)


def test_gradients_of_weights_and_scales():
    u, s, top = RNG.normal(size=(1, 40, 3)) * 4, np.array([0.5, 1.0, 2.0]).reshape(1, 1, 3), 3
    upstream = RNG.normal(size=u.shape)
    steps, scales = tf.constant(u, tf.float32), tf.constant(s, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([steps, scales])
        values = nearest_integer(steps, -top, top) * scales
        loss = tf.reduce_sum(values * upstream)
    to_steps, to_scales = tape.gradient(loss, [steps, scales])
    codes, inside = np.clip(np.rint(u), -top, top), np.abs(u) <= top
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(values, codes * s, rtol=1e-6)
    np.testing.assert_allclose(to_steps, upstream * s * inside, rtol=1e-5)
    np.testing.assert_allclose(to_scales, (upstream * codes).sum(1, keepdims=True), rtol=1e-4)


def test_gradient_of_the_dampening_pulls_to_the_codes():
    w, top = RNG.normal(size=(1, 50, 1)) * 3, 3
    weights = tf.constant(w, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = squared_distance(weights, top)
    codes = np.clip(np.rint(w), -top, top)
    inside = np.abs(w) <= top
    np.testing.assert_allclose(value, np.mean(inside * (w - codes) ** 2), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, weights), inside * 2 * (w - codes) / w.size, atol=1e-7)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_range_not_yet_moved_is_the_given_grid(bits):
    grid = activation_grid(*reference.asymmetric_parameters(-1.3, 2.9, bits), bits)
    values = RNG.uniform(-3, 4, 500).astype(np.float32)
    start = {"widening": tf.constant(0.0), "shift": tf.constant(0.0)}
    assert moved_grid(grid, np.float32(0), np.float32(0)) == grid
    expected = reference.fake_quantize(values, grid.scale[0], grid.zero_point, *grid.integer_range)
    found = on_learned_range(tf.constant(values), start, range_facts(grid)).numpy()
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01  # halves may round the other way
    assert np.abs(found - expected).max() <= grid.scale[0] * 1.001


def test_gradients_of_the_range_are_straight_through():
    grid = activation_grid(0.1, -2, 4)
    values = RNG.uniform(-1.5, 2.0, 300).astype(np.float32)
    upstream = RNG.normal(size=300)
    start = {"widening": tf.constant(0.0), "shift": tf.constant(0.0)}
    with tf.GradientTape() as tape:
        tape.watch(start)
        loss = tf.reduce_sum(on_learned_range(tf.constant(values), start, range_facts(grid)) * upstream)
    widening, shift = tape.gradient(loss, start).values()
    n, p, z, s = -8, 7, -2, 0.1
    levels = values / s + z
    codes, inside = np.clip(np.rint(levels), n, p), (levels >= n) & (levels <= p)
    to_zero = (upstream * (inside * s - s)).sum()  # x inside does not depend on z but through the rounding
    to_scale = (upstream * ((codes - z) - inside * values / s)).sum()
    # s = r / (p - n) and z = n - low / s, with low = low_0 + r_0 d and r = r_0 exp(c)
    low, width = s * (n - z), s * (p - n)
    np.testing.assert_allclose(widening, to_scale * s + to_zero * low / s, rtol=1e-3)
    np.testing.assert_allclose(shift, to_zero * -width / s, rtol=1e-3)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_gains_on_rounding_to_the_nearest(activation, groups, has_bias):
    problem = layer_problem(
        taps=12, groups=groups, activation=activation, has_bias=has_bias, rows=512, with_offset=has_bias
    )
    solution = adaquant(problem, 0, steps=400)
    assert problem.error(solution) < 0.7 * problem.error(problem.nearest())
    assert solution.input_grid is None
    assert np.abs(solution.codes).max() <= problem.largest_code
    assert has_bias or not solution.bias.any()


def test_tied_outputs_keep_one_scale():
    problem = layer_problem(taps=12, outputs=5, per_channel=False)
    solution = adaquant(problem, 0, steps=100)
    assert np.unique(solution.scales).size == 1
    assert solution.scales[0, 0] != output_scales(problem)[0, 0]


def test_the_input_range_is_learned_only_where_it_is_free():
    settings = {"taps": 12, "bits": 8, "input_bits": 4, "outliers": 10.0, "activation": "relu", "rows": 1024}
    fixed, free = (layer_problem(**settings, free=free) for free in (False, True))
    without, learned = (adaquant(p, 0, range_rate=3e-3) for p in (fixed, free))
    assert without.input_grid is None
    assert learned.input_grid.bits == 4
    assert learned.input_grid.real_range[0] <= 0 <= learned.input_grid.real_range[1]
    assert learned.input_grid.scale[0] < 0.9 * free.input_grid.scale[0]
    assert fitted_errors(free, learned).sum() < 0.9 * fitted_errors(fixed, without).sum()
    float_inputs = dataclasses.replace(free, input_grid=None)
    assert adaquant(float_inputs, 0, steps=5).input_grid is None


def test_the_same_seed_gives_the_same_solution():
    problem = layer_problem(taps=30, outputs=8, activation="relu", rows=600, free=True, input_bits=4)
    first, again, other = (adaquant(problem, seed, steps=60, penalty=0.0) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.scales, again.scales)
    np.testing.assert_array_equal(first.bias, again.bias)
    assert first.input_grid == again.input_grid
    assert (first.scales != other.scales).any()


def conv(name, source, *, activation="relu"):
    weights = {"kernel": RNG.normal(size=(3, 3, 4, 4)).astype(np.float32) / 4, "bias": np.full(4, 0.1, np.float32)}
    config = {"filters": 4, "kernel_size": 3, "padding": "same"}
    return Node(name, "Conv2D", config, (source,), weights, activation)


@pytest.fixture(scope="module")
def network():
    """x -> a -> b -> c, b + c -> d -> sigmoid -> e, a max pooling of d -> f; calibrated on 4-bit activations."""
    nodes = (
        Node("x", "Input", {"shape": (6, 6, 4), "dtype": "float32"}),
        *(conv("a", "x"), conv("b", "a"), conv("c", "b", activation=None)),
        Node("sum", "Add", {}, ("b", "c"), activation="relu"),
        conv("d", "sum", activation=None),
        Node("sigmoid", "Sigmoid", {}, ("d",)),
        conv("e", "sigmoid"),
        Node("pool", "MaxPooling2D", {"pool_size": 2, "strides": 1}, ("e",)),
        *(conv("f", "pool"), conv("g", "f")),
    )
    graph = Graph(nodes, ("x",), ("g", "f"))
    samples = {"x": RNG.normal(size=(64, 6, 6, 4)).astype(np.float32)}
    found = calibrate(graph, iter([samples]), method="minmax", percentile=99.9, total=64, bits=4)
    return graph, samples, specify(graph, found.ranges, weight_bits=4, activation_bits=4)


def test_which_inputs_are_free(network):
    graph, _, _ = network
    free = [n.name for n in graph.nodes if n.kind == "Conv2D" and has_own_input_grid(graph, n.name)]
    # not x: the model's input; b: read by the sum too; sigmoid: prescribed; pool: on the grid of e; f: an output
    assert free == ["b", "d"]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_in_a_network_free_ranges_alone_are_moved_and_bits_stay(network, mode):
    graph, samples, spec = network

    def method(problem, seed):
        return adaquant(problem, seed, steps=300)

    version, outcomes = reconstruct(graph, Version("start", graph, spec), samples, method, name="adaquant", mode=mode)
    kept = {outcome.name for outcome in outcomes if outcome.kept}
    moved = {name for name, grid in version.spec.activations.items() if grid != spec.activations[name]}
    assert moved == {source for layer, source in (("b", "a"), ("d", "sum")) if layer in kept}
    assert moved
    for name, grid in version.spec.activations.items():
        assert grid.bits == spec.activations[name].bits
    for layer in version.spec.layers:
        for variable, grid in layer.weights.items():
            assert grid.bits == spec[layer.name].weights[variable].bits
            if variable == "bias":  # it follows the scales it is made of
                source, kernel = version.spec.activations[layer.inputs[0]].scale[0], layer.weights["kernel"].scale
                np.testing.assert_array_equal(grid.scale, reference.bias_scale(source, np.asarray(kernel)))
