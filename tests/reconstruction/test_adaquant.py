"""AdaQuant: its gradients against TensorFlow's, what it may change, and that it gains."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from layer_problems import assert_within, fitted_errors, layer_problem
from operator_graphs import calibration_of

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.grid import activation_grid
from tfq.models.graph import Graph, Node
from tfq.models.widths import activation_bits, precisions_of
from tfq.numerics import reference
from tfq.numerics.codebook import Codes
from tfq.precision import Precision
from tfq.reconstruction.adaquant import LearnedLayer, Rates, adaquant, moved_grid, on_learned_range
from tfq.reconstruction.descent import output_slope
from tfq.reconstruction.problem import clamp, limits_of
from tfq.reconstruction.reconstruct import Reconstruction, has_own_input_grid, reconstruct
from tfq.reconstruction.weight_scales import output_scales

RNG = np.random.default_rng(0)


@tf.custom_gradient
def rounded(values):
    return tf.round(values), lambda upstream: upstream


def held(values, low, high):
    return rounded(tf.clip_by_value(values, low, high))


def tf_loss(learned, given, rows, targets, activation, progress):
    """Equation 2 and the dampening as TensorFlow differentiates them."""
    n, p = given["grid"].integer_range
    low, width = given["grid"].real_range[0], np.subtract(*given["grid"].real_range[::-1])
    scale = width * tf.exp(learned["widening"]) / (p - n)
    zero_point = held(n - (low + width * learned["shift"]) / scale, n, p)
    x = (rounded(tf.clip_by_value(rows / scale + zero_point, n, p)) - zero_point) * scale
    codes = held(learned["weights"], *given["allowed"].ends)
    matrix = given["scales"] * tf.gather(tf.exp(learned["scales"]), given["tied"])[:, None] * codes
    y = tf.einsum("ngk,gkc->ngc", x, matrix) + given["bias"] + learned["bias"] * given["deviation"]
    f = {None: tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation]
    inside = tf.clip_by_value(learned["weights"], *given["allowed"].ends)
    distance = tf.reduce_mean((inside - tf.stop_gradient(tf.round(inside))) ** 2)
    error = tf.reduce_mean(tf.reduce_sum((f(y) - f(targets)) ** 2, [1, 2])) / given["unit"]
    return error + given["dampening"] * progress**2 * distance


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize(("groups", "tied"), [(1, [[0, 1, 2]]), (1, [[0, 0, 0]]), (2, [[0, 0, 0], [1, 1, 1]])])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_slopes_are_those_of_automatic_differentiation(activation, groups, tied, low):
    grid = activation_grid(*reference.asymmetric_parameters(low, 1.7, 4), 4)
    tied, ends, unit, progress = np.array(tied), (-4, 3), 0.7, 0.6
    rows, targets = (RNG.normal(size=(50, groups, k)).astype(np.float32) for k in (40, 3))
    given = {name: RNG.normal(size=(groups, 3)).astype(np.float32) for name in ("bias", "deviation")}
    given |= {"scales": RNG.uniform(0.5, 2, (groups, 1, 3)).astype(np.float32), "tied": tied, "allowed": Codes(*ends)}
    learned = {
        "weights": RNG.normal(size=(groups, 40, 3)).astype(np.float32) * 2.5,
        "scales": RNG.normal(size=tied.max() + 1).astype(np.float32) / 9,
        "bias": RNG.normal(size=(groups, 3)).astype(np.float32),
        "widening": np.float32(0.05),
        "shift": np.float32(-0.03),
    }
    y, pull = LearnedLayer(**given, dampening=36.0, grid=grid).outputs(learned, rows)
    found = pull(output_slope(y, clamp(targets, limits_of(activation)), limits_of(activation), unit), progress)
    variables = {name: tf.Variable(values) for name, values in learned.items()}
    with tf.GradientTape() as tape:
        given |= {"grid": grid, "unit": unit, "dampening": 36.0}
        loss = tf_loss(variables, given, rows, targets, activation, progress)
    assert 0.5 < np.mean((learned["weights"] >= ends[0]) & (learned["weights"] <= ends[1])) < 0.9
    for name, expected in tape.gradient(loss, variables).items():
        expected = expected.numpy()
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [4, 8])
def test_a_range_not_yet_moved_is_the_given_grid(bits):
    grid = activation_grid(*reference.asymmetric_parameters(-1.3, 2.9, bits), bits)
    values = RNG.uniform(-3, 4, 500).astype(np.float32)
    assert moved_grid(grid, 0.0, 0.0) == grid
    expected = reference.fake_quantize(values, grid.scale[0], grid.zero_point, *grid.integer_range)
    found, _ = on_learned_range(values, grid, 0.0, 0.0)
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01  # halves may round the other way
    assert np.abs(found - expected).max() <= grid.scale[0] * 1.001


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
    assert_within(solution.codes, problem.codes.ends)
    assert has_bias or not solution.bias.any()


def test_tied_outputs_keep_one_scale():
    problem = layer_problem(taps=12, outputs=5, per_channel=False)
    solution = adaquant(problem, 0, steps=100)
    assert np.unique(solution.scales).size == 1
    assert solution.scales[0, 0] != output_scales(problem)[0, 0]


def test_the_input_range_is_learned_only_where_it_is_free():
    settings = {"taps": 12, "bits": 8, "input_bits": 4, "outliers": 10.0, "activation": "relu", "rows": 1024}
    fixed, free = (layer_problem(**settings, free=free) for free in (False, True))
    without, learned = (adaquant(p, 0, rates=Rates(range=3e-3)) for p in (fixed, free))
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
    """x -> a -> b -> c, b + c -> d -> sigmoid -> e, a max pooling of d -> f; convolutions on 4 bits read 4 bits."""
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
    precisions = precisions_of(graph, Precision(weight_bits=4, activation_bits=4))
    bits = activation_bits(graph, precisions)
    found = calibrate(graph, iter([samples]), method="minmax", total=64, bits=bits)
    return graph, samples, specify(graph, found.ranges, precisions)


def test_which_inputs_are_free(network):
    graph, _, _ = network
    free = [n.name for n in graph.nodes if n.kind == "Conv2D" and has_own_input_grid(graph, n.name)]
    # not x: the model's input; b: read by the sum too; sigmoid: prescribed; pool: on the grid of e; f: an output
    assert free == ["b", "d"]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_in_a_network_free_ranges_alone_are_moved_and_bits_stay(network, mode):
    graph, samples, model = network

    def method(problem, seed):
        return adaquant(problem, seed, steps=300)

    changed, outcomes = reconstruct(
        graph, model, calibration_of(samples), Reconstruction("adaquant", method, mode=mode)
    )
    kept = {outcome.name for outcome in outcomes if outcome.kept}
    moved = {name for name, grid in changed.grids.items() if grid != model.grids[name]}
    assert moved == {source for layer, source in (("b", "a"), ("d", "sum")) if layer in kept}
    assert moved
    assert {changed.grids[name].bits for name in moved} == {4}
    for name, grid in changed.grids.items():
        assert grid.bits == model.grids[name].bits
    for layer in changed.layers:
        for variable, grid in layer.weight_grids.items():
            assert grid.bits == model[layer.name].weight_grids[variable].bits
            if variable == "bias":  # it follows the scales it is made of
                source, kernel = changed.grids[layer.inputs[0]].scale[0], layer.weight_grids["kernel"].scale
                np.testing.assert_array_equal(grid.scale, reference.bias_scale(source, np.asarray(kernel)))
