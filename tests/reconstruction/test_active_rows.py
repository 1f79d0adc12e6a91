"""Least squares over active rows: against weighted regression, against all codes there are, and what it promises."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_problems import assert_within, fitted_errors, layer_problem

from tfq.reconstruction import active_rows
from tfq.reconstruction.active_rows import is_affordable, refined
from tfq.reconstruction.least_squares import least_squares
from tfq.reconstruction.problem import clamp, limits_of

KINDS = {
    "plain": {},
    "depthwise": {"groups": 3, "outputs": 1},
    "depthwise, multiplier 2": {"groups": 3, "outputs": 2},
    "per tensor": {"per_channel": False},
    "no bias": {"has_bias": False},
    "with an offset": {"with_offset": True},
    "depthwise with an offset": {"groups": 3, "outputs": 1, "with_offset": True},
}


def cut_off(problem, share=1.0):
    """The problem with outputs so low that the clamp cuts most of them off."""
    lower = (problem.targets.mean(0) + share * problem.targets.std(0)).astype(np.float32)
    return dataclasses.replace(
        problem,
        bias=problem.bias - lower * problem.has_bias,
        targets=problem.targets - lower,
        held_targets=problem.held_targets - lower,
    )


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), share=st.floats(-1, 2), damping=st.sampled_from([1e-2, 1.0]))
@settings(max_examples=10)
def test_no_output_gets_worse_on_the_fitted_rows_and_codes_lie_on_their_grids(
    kind, activation, seed, bits, share, damping
):
    problem = cut_off(layer_problem(taps=6, bits=bits, rows=96, activation=activation, seed=seed, **KINDS[kind]), share)
    start = least_squares(problem)
    found = refined(problem, start, damping)
    before, after = fitted_errors(problem, start), fitted_errors(problem, found)
    assert (after <= before * (1 + 1e-4) + 1e-6).all()
    assert found.codes.dtype == np.int8
    assert_within(found.codes, problem.codes.ends)
    for number in range(problem.tied.max() + 1):
        assert np.unique(found.scales[problem.tied == number]).size == 1
    assert problem.has_bias or not found.bias.any()


@pytest.mark.parametrize(("bits", "most"), [(2, 0.98), (3, 0.995)])
def test_it_gains_where_much_is_cut_off(bits, most):
    ratios = []
    for seed in range(4):
        problem = cut_off(layer_problem(taps=40, outputs=8, bits=bits, rows=2048, activation="relu", seed=seed))
        start = least_squares(problem)
        ratios.append(fitted_errors(problem, refined(problem, start, 1e-2)).sum() / fitted_errors(problem, start).sum())
    assert np.mean(ratios) < most


def test_with_many_bits_it_is_the_regression_over_active_rows():
    """On an 8-bit grid codes hardly bind: what is left is weighted least squares, solved here by `lstsq`."""
    problem = cut_off(layer_problem(taps=4, outputs=2, bits=8, rows=4096, activation="relu"), 0.5)
    rng = np.random.default_rng(0)
    problem = dataclasses.replace(problem, targets=problem.targets + rng.normal(size=problem.targets.shape) ** 2)
    found = refined(problem, least_squares(problem), 1e-6)
    x = np.concatenate([problem.quantized_inputs()[:, 0], np.ones((4096, 1))], 1)
    y = x[:, :4] @ found.matrix[0] + found.bias[0]
    for output in range(2):
        z = problem.targets[:, 0, output]
        active = (z > 0) | (y[:, output] > 0)
        wanted = np.linalg.lstsq(x[active], clamp(z, limits_of("relu"))[active], rcond=None)[0]
        loss, least = (np.square(np.maximum(v, 0) - np.maximum(z, 0)).sum() for v in (y[:, output], x @ wanted))
        assert loss < 1.02 * least


@pytest.mark.parametrize("seed", range(4))
def test_it_comes_near_the_best_of_all_codes(seed):
    problem = cut_off(layer_problem(taps=3, outputs=1, bits=3, rows=512, activation="relu", seed=seed), 0.5)
    start = least_squares(problem)
    found = refined(problem, start, 1e-2)
    x, z = problem.quantized_inputs()[:, 0], clamp(problem.targets[:, 0, 0], limits_of("relu"))
    best = np.inf
    for codes in itertools.product(range(-3, 4), repeat=3):  # with the scale found, and every bias that may matter
        y = x @ (np.array(codes) * found.scales[0, 0])
        biases = found.bias[0, 0] + np.linspace(-2, 2, 81)
        best = min(best, np.square(np.maximum(y[:, None] + biases, 0) - z[:, None]).sum(0).min())
    lost = [float(fitted_errors(problem, solution).sum()) for solution in (start, found)]
    assert lost[1] <= lost[0] * (1 + 1e-6)
    assert lost[1] < 1.25 * best


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_worked_on_apart(kind, monkeypatch):
    """Each has its own rows and matrix: how many are worked on side by side changes nothing."""
    problem = cut_off(layer_problem(taps=6, rows=200, activation="relu", **KINDS[kind]))
    start = least_squares(problem)
    whole = refined(problem, start, 1e-2)
    monkeypatch.setattr(active_rows, "_PART_BYTES", 1)
    apart = refined(problem, start, 1e-2)
    np.testing.assert_array_equal(apart.codes, whole.codes)
    np.testing.assert_allclose(apart.scales, whole.scales)
    np.testing.assert_allclose(apart.bias, whole.bias, rtol=1e-4, atol=1e-5)


def test_layers_of_many_taps_and_outputs_are_left_alone():
    small = layer_problem(taps=9, outputs=8, rows=64, activation="relu")
    assert is_affordable(small)
    assert not is_affordable(dataclasses.replace(small, matrix=np.zeros((1, 4608, 512), np.float32)))
