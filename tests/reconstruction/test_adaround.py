"""AdaRound against all rounding choices of small layers."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from layer_problems import fitted_errors, layer_problem

from tfq.reconstruction import adaround as module
from tfq.reconstruction.adaround import RoundedLayer, adaround, annealed, learned_rounding, rectified_sigmoid
from tfq.reconstruction.problem import Solution
from tfq.reconstruction.weight_scales import output_scales


def best_errors(problem):
    """Smallest error of every output over all choices of down or up."""
    scales, (lowest, highest) = output_scales(problem), problem.codes.ends
    low = np.clip(np.floor(problem.matrix / scales[:, None]), lowest, highest - 1)
    groups, taps, outputs = low.shape
    best = np.full((groups, outputs), np.inf)
    for choice in itertools.product((0, 1), repeat=taps):
        codes = (low + np.array(choice)[None, :, None]).astype(np.int8)
        best = np.minimum(best, fitted_errors(problem, Solution(codes, scales, problem.bias)))
    return best


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("groups", [1, 3])
def test_is_close_to_the_best_of_all_rounding_choices(activation, groups):
    nearest, found, best = np.zeros(3), np.zeros(3), np.zeros(3)
    for seed in range(3):
        problem = layer_problem(bits=3, taps=6, groups=groups, activation=activation, has_bias=False, seed=seed)
        nearest[seed] = fitted_errors(problem, problem.nearest(output_scales(problem))).sum()
        found[seed] = fitted_errors(problem, adaround(problem, 0)).sum()
        best[seed] = best_errors(problem).sum()
    assert (best <= found * (1 + 1e-6)).all()
    assert found.sum() <= best.sum() + 0.25 * (nearest.sum() - best.sum())


def test_finds_the_best_choice_with_three_levels_and_a_sum_behind_the_layer():
    problem = layer_problem(bits=2, taps=4, outputs=4, activation="relu", has_bias=False, with_offset=True)
    found = fitted_errors(problem, adaround(problem, 0))
    assert found.sum() <= 1.02 * best_errors(problem).sum()


@pytest.mark.parametrize(("bits", "taps"), [(2, 6), (3, 40), (4, 40)])
def test_nearly_all_roundings_are_decided_at_the_end(bits, taps):
    problem = layer_problem(bits=bits, taps=taps, activation="relu", rows=512, outputs=8)
    settings = {"steps": module.STEPS, "batch": module.BATCH, "rate": module.RATE, "penalty": module.PENALTY}
    _, h = learned_rounding(problem, output_scales(problem), 0, **settings)
    assert np.mean(np.minimum(h, 1 - h) < 1e-2) > 0.98


@pytest.mark.parametrize("per_channel", [True, False])
def test_every_code_is_one_of_the_two_neighbours_and_scales_are_the_mse_ones(per_channel):
    problem = layer_problem(bits=3, taps=20, outputs=5, per_channel=per_channel, activation="relu")
    solution = adaround(problem, 0, steps=100)
    np.testing.assert_array_equal(solution.scales, output_scales(problem))
    distance = solution.codes - np.clip(problem.matrix / solution.scales[:, None], -4, 3)
    assert np.abs(distance).max() <= 1
    assert solution.codes.min() >= -4
    assert solution.codes.max() <= 3
    assert np.unique(solution.scales).size == (5 if per_channel else 1)


def test_the_bias_takes_over_the_mean_error_where_there_is_one():
    problem = layer_problem(bits=2, taps=12, with_offset=True)
    solution = adaround(problem, 0, steps=50)
    y = problem.quantized_inputs()[:, 0] @ solution.matrix[0] + solution.bias + problem.offset[:, 0]
    np.testing.assert_allclose(y.mean(0), problem.targets[:, 0].mean(0), atol=1e-4)
    assert not adaround(layer_problem(has_bias=False), 0, steps=10).bias.any()


def test_weights_on_the_grid_stay():
    problem = layer_problem(bits=4, taps=5, outputs=2)
    matrix = np.random.default_rng(1).integers(-7, 8, problem.matrix.shape).astype(np.float32) * 0.25
    matrix[0, 0] = 7 * 0.25
    solution = adaround(problem.__class__(**{**vars(problem), "matrix": matrix}), 0, steps=20)
    np.testing.assert_allclose(solution.matrix, matrix, rtol=1e-5)


def test_the_same_seed_gives_the_same_solution():
    problem = layer_problem(taps=30, outputs=8, bits=3, activation="relu", rows=600)
    settings = {"steps": 60, "batch": 64, "rate": module.RATE, "penalty": module.PENALTY}
    scales = output_scales(problem)
    (_, first), (_, again), (_, other) = (learned_rounding(problem, scales, seed, **settings) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_rectified_sigmoid_and_annealing():
    v = np.linspace(-6, 6, 49, dtype=np.float32)
    expected = np.clip(1.2 / (1 + np.exp(-v.astype(np.float64))) - 0.1, 0, 1)
    np.testing.assert_allclose(rectified_sigmoid(v)[0], expected, atol=1e-6)
    h = np.linspace(0, 1, 21)
    np.testing.assert_allclose(rectified_sigmoid(module._inverse(h))[0], h, atol=1e-6)
    betas = [annealed(p) for p in (0.0, module.WARM_UP, (1 + module.WARM_UP) / 2, 1.0)]
    np.testing.assert_allclose(betas, [20, 20, 11, 2], rtol=1e-5)


@pytest.mark.parametrize("progress", [0.05, 0.4, 0.99])
@pytest.mark.parametrize("groups", [1, 2])
def test_slopes_are_those_of_automatic_differentiation(groups, progress):
    rng = np.random.default_rng(2)
    floor = rng.integers(-3, 3, (groups, 30, 4)).astype(np.float32)
    scales, bias = rng.uniform(0.5, 2, (groups, 1, 4)).astype(np.float32), np.zeros((groups, 4), np.float32)
    rows, slope = (rng.normal(size=(20, groups, k)).astype(np.float32) for k in (30, 4))
    start = (rng.normal(size=floor.shape) * 2).astype(np.float32)
    y, pull = RoundedLayer(floor, scales, bias, penalty=300.0).outputs({"v": start}, rows)
    v = tf.Variable(start)
    with tf.GradientTape() as tape:
        h = tf.clip_by_value(tf.sigmoid(v) * 1.2 - 0.1, 0.0, 1.0)
        expected = tf.einsum("ngk,gkc->ngc", rows, (floor + h) * scales)
        rest = 1 - tf.reduce_mean(tf.abs(2 * h - 1) ** annealed(progress))
        value = tf.reduce_sum(expected * slope) + (300.0 * rest if progress >= module.WARM_UP else 0.0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pull(slope, progress)["v"], tape.gradient(value, v), rtol=1e-3, atol=1e-3)
