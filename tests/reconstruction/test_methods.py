"""Every method by its name: solutions are on their grids, and none is worse than rounding to the nearest."""

import dataclasses

import numpy as np
import pytest
from layer_problems import assert_within, layer_problem

from tfq.numerics.codebook import clustered
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.problem import on_grid
from tfq.reconstruction.weight_scales import by_scale


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("groups", "per_channel", "has_bias"), [(1, True, True), (5, True, True), (1, False, False)])
def test_solutions_lie_on_the_grids_of_the_problem(name, groups, per_channel, has_bias):
    problem = layer_problem(
        taps=9, groups=groups, outputs=2, per_channel=per_channel, has_bias=has_bias, activation="relu", rows=300
    )
    solution = METHODS[name](problem, 0)
    assert solution.codes.shape == problem.matrix.shape
    assert solution.codes.dtype == np.int8
    assert_within(solution.codes, problem.codes.ends)
    assert solution.scales.shape == solution.bias.shape == problem.bias.shape
    assert (solution.scales > 0).all()
    assert np.isfinite(solution.bias).all()
    for number in range(problem.tied.max() + 1):
        assert np.unique(solution.scales[problem.tied == number]).size == 1
    assert solution.input_grid is None
    assert has_bias or not np.any(solution.bias)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("groups", [1, 5])
def test_given_scales_stay(name, groups):
    problem = layer_problem(taps=12, groups=groups, outputs=4, activation="relu", rows=300, bits=8)
    coarse = np.full(problem.scales.shape, 6 * problem.scales.max())
    problem = dataclasses.replace(problem, scales=coarse, scales_are_given=True)
    solution = METHODS[name](problem, 0)
    np.testing.assert_array_equal(solution.scales, coarse)
    assert problem.error(solution) <= problem.error(problem.nearest())


def with_clusters(problem, count):
    """The layer with a codebook and scales as they are found without its inputs."""
    rows = by_scale(problem.matrix, problem.tied)
    scales, codebook = clustered(rows, count, 0)
    return dataclasses.replace(problem, bits=8, scales=scales[problem.tied], codebook=codebook)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "adaround"])  # which a recipe refuses
@pytest.mark.parametrize(("groups", "per_channel"), [(1, True), (5, True), (1, False)])
def test_codes_lie_in_the_codebook(name, groups, per_channel):
    problem = layer_problem(taps=9, groups=groups, outputs=12, per_channel=per_channel, activation="relu", rows=300)
    problem = with_clusters(problem, 8)
    solution = METHODS[name](problem, 0)
    assert len(solution.codebook) == 8
    assert set(solution.codes.ravel().tolist()) <= set(solution.codebook)
    for number in range(problem.tied.max() + 1):
        assert np.unique(solution.scales[problem.tied == number]).size == 1
    assert problem.error(solution) <= 1.05 * problem.error(problem.nearest())


@pytest.mark.parametrize("name", ["least_squares", "best"])
def test_clusters_gain_by_the_inputs_and_lose_less_the_more_there_are(name):
    problem = layer_problem(taps=20, outputs=8, activation="relu", rows=1024)
    posed = [with_clusters(problem, count) for count in (4, 8, 16)]
    errors = [each.error(METHODS[name](each, 0)) for each in posed]
    assert errors == sorted(errors, reverse=True)
    for each, error in zip(posed, errors, strict=True):
        assert error < 0.7 * each.error(each.nearest())


@pytest.mark.parametrize("name", ["bias_correction", "adaround", "adaquant", "least_squares", "best"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gains_on_samples_that_it_has_not_seen(name, bits):
    problem = layer_problem(taps=20, outputs=6, bits=bits, activation="relu", rows=1024)
    assert problem.error(METHODS[name](problem, 0)) < 0.8 * problem.error(METHODS["nearest"](problem, 0))


def test_mse_scales_lower_the_error_of_the_weights():
    problem = layer_problem(taps=50, bits=3)
    errors = [np.square(METHODS[n](problem, 0).matrix - problem.matrix).sum() for n in ("nearest", "mse")]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_bias_correction_leaves_no_mean_error_and_the_codes_alone(with_offset, groups):
    problem = layer_problem(taps=10, groups=groups, bits=2, with_offset=with_offset)
    solution, before = (METHODS[n](problem, 0) for n in ("bias_correction", "mse"))
    np.testing.assert_array_equal(solution.codes, before.codes)
    y = np.einsum("ngk,gkc->ngc", problem.quantized_inputs(), solution.matrix) + solution.bias
    y = y + (problem.offset if with_offset else 0)
    np.testing.assert_allclose(y.mean(0), problem.targets.mean(0), atol=1e-4)
    assert np.abs(before.bias - solution.bias).max() > 1e-3


def test_the_error_of_samples_is_that_of_rows_and_of_their_means():
    problem = layer_problem(taps=8, outputs=3, bits=3, activation="relu")  # 128 rows to choose by
    solution = problem.nearest()
    y = np.einsum("ngk,gkc->ngc", on_grid(problem.held_inputs, problem.input_grid), solution.matrix) + solution.bias
    y, z = np.maximum(y, 0), np.maximum(problem.held_targets, 0)

    def relative(y, z):
        return np.square(y - z).sum() / np.square(z - z.mean(0)).sum()

    rows = relative(y, z)
    means = relative(*(values.reshape(16, 8, 1, 3).mean(1) for values in (y, z)))
    assert problem.error(solution) == pytest.approx(rows, rel=1e-4)
    told_apart = dataclasses.replace(problem, held_samples=16)
    assert told_apart.error(solution) == pytest.approx(np.sqrt(rows * means), rel=1e-4)
    assert dataclasses.replace(problem, held_samples=128).error(solution) == problem.error(solution)
