"""Least squares on the grid against all codes there are, and against its own claims."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_problems import assert_within, fitted_errors, layer_problem

from tfq.numerics import reference
from tfq.numerics.codebook import Codes
from tfq.reconstruction.lattice import (
    Ordered,
    best_scales,
    cheapest,
    descend,
    multiples,
    quadratic_cost,
    rounded,
    search,
)
from tfq.reconstruction.least_squares import _Rows, least_squares, least_squares_of, with_search
from tfq.reconstruction.problem import Solution, limits_of

KINDS = {
    "plain": {},
    "depthwise, multiplier 2": {"groups": 3, "outputs": 2},
    "per tensor": {"per_channel": False},
    "no bias": {"has_bias": False},
    "with an offset": {"with_offset": True},
    "depthwise with an offset": {"groups": 3, "outputs": 1, "with_offset": True},
}


def quadratic(taps, outputs, bits, rng, *, groups=1):
    """(Gram matrix of correlated inputs, wanted weights, scales that clip a little, lowest and highest code)."""
    x = rng.normal(size=(groups, 4 * taps, taps)) + 1.5 * rng.normal(size=(groups, 4 * taps, 1))
    gram = x.transpose(0, 2, 1) @ x / (4 * taps) + 0.05 * np.eye(taps)
    wanted, allowed = rng.normal(size=(groups, taps, outputs)), Codes(*reference.integer_range(bits, symmetric=True))
    return gram, wanted, np.abs(wanted).max(1) / allowed.high * rng.uniform(0.6, 1, (groups, outputs)), allowed


def cost(gram, wanted, codes, scales):
    """(w - w*)' H (w - w*) of every output, written out."""
    error = codes * scales[:, None] - wanted
    return np.einsum("gkc,gkl,glc->gc", error, gram, error)


def nearest(wanted, scales, allowed):
    return np.clip(np.rint(wanted / scales[:, None]), *allowed.ends)


def every_code(bits, taps):
    """All codes of one output, float [taps, choices]."""
    low, high = reference.integer_range(bits, symmetric=True)
    return np.array(list(itertools.product(range(low, high + 1), repeat=taps)), float).T


def settled(gram, wanted, scales, allowed):
    return descend(gram, wanted, scales, rounded(Ordered.of(gram), wanted, scales, allowed), allowed)


class TestRounding:
    @pytest.mark.parametrize("bits", [2, 3])
    def test_it_is_near_the_best_of_all_codes(self, bits):
        rng, ratios, plainly = np.random.default_rng(bits), [], []
        every = every_code(bits, 5)
        for _ in range(80):
            gram, wanted, scales, allowed = quadratic(5, 4, bits, rng)
            found = cost(gram, wanted, settled(gram, wanted, scales, allowed), scales)[0]
            plain = cost(gram, wanted, nearest(wanted, scales, allowed), scales)[0]
            for output in range(4):
                errors = every * scales[0, output] - wanted[0, :, output, None]
                best = np.einsum("kn,kl,ln->n", errors, gram[0], errors).min()
                ratios.append(found[output] / best)
                plainly.append(plain[output] / best)
        assert min(ratios) > 1 - 1e-9
        assert np.mean(np.array(ratios) < 1 + 1e-9) > 0.6  # the best itself, more often than not
        assert np.mean(ratios) < 1.2
        assert np.mean(plainly) > 1.5 * np.mean(ratios)

    @given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), taps=st.integers(1, 90), groups=st.integers(1, 3))
    def test_it_is_never_above_the_nearest_codes_and_stays_on_the_grid(self, seed, bits, taps, groups):
        gram, wanted, scales, allowed = quadratic(taps, 3, bits, np.random.default_rng(seed), groups=groups)
        before = cost(gram, wanted, nearest(wanted, scales, allowed), scales)
        for codes in (rounded(Ordered.of(gram), wanted, scales, allowed), settled(gram, wanted, scales, allowed)):
            np.testing.assert_array_equal(codes, np.rint(codes))
            assert_within(codes, allowed.ends)
            assert (cost(gram, wanted, codes, scales) <= before * (1 + 1e-9) + 1e-12).all()
            before = cost(gram, wanted, codes, scales)

    @given(seed=st.integers(0, 10**6), bits=st.integers(2, 5), taps=st.sampled_from([1, 7, 63, 64, 65, 130]))
    @settings(max_examples=40)
    def test_no_change_of_a_single_code_lowers_the_cost(self, seed, bits, taps):
        gram, wanted, scales, allowed = quadratic(taps, 2, bits, np.random.default_rng(seed))
        codes = settled(gram, wanted, scales, allowed)
        slope = gram @ (codes * scales[:, None] - wanted)
        curvature = np.diagonal(gram, axis1=1, axis2=2)[:, :, None]
        for step in (-1, 1):
            change = step * scales[:, None]
            gained = 2 * change * slope + change**2 * curvature  # of the cost, exactly
            assert gained[(codes + step >= allowed.low) & (codes + step <= allowed.high)].min(initial=0) > -1e-9

    @given(seed=st.integers(0, 10**6), taps=st.sampled_from([3, 64, 100]))
    @settings(max_examples=30)
    def test_descent_never_climbs(self, seed, taps):
        rng = np.random.default_rng(seed)
        gram, wanted, scales, allowed = quadratic(taps, 3, 3, rng)
        start = rng.integers(allowed.low, allowed.high + 1, wanted.shape).astype(float)
        found = descend(gram, wanted, scales, start.copy(), allowed)
        assert (cost(gram, wanted, found, scales) <= cost(gram, wanted, start, scales) * (1 + 1e-9)).all()

    @pytest.mark.parametrize(("taps", "bits"), [(2, 3), (3, 3), (5, 2), (6, 2)])
    def test_of_few_taps_a_search_finds_the_best_of_all_codes(self, taps, bits):
        gram, wanted, scales, allowed = quadratic(taps, 60, bits, np.random.default_rng(taps))
        start = descend(gram, wanted, scales, nearest(wanted, scales, allowed), allowed)
        every = every_code(bits, taps)
        errors = every[:, :, None] * scales[0] - wanted[0, :, None]  # [taps, choices, outputs]
        best = np.einsum("knc,kl,lnc->nc", errors, gram[0], errors).min(0)
        settled_at, found = (
            np.mean(cost(gram, wanted, codes, scales)[0] < best * (1 + 1e-9))
            for codes in (start, search(gram, wanted, scales, start, allowed))
        )
        assert found > 0.95
        assert found >= settled_at

    @given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), taps=st.integers(1, 40), groups=st.integers(1, 3))
    @settings(max_examples=30)
    def test_a_search_never_climbs_and_stays_on_the_grid(self, seed, bits, taps, groups):
        rng = np.random.default_rng(seed)
        gram, wanted, scales, allowed = quadratic(taps, 3, bits, rng, groups=groups)
        start = rng.integers(allowed.low, allowed.high + 1, wanted.shape).astype(float)
        for codes in (start, settled(gram, wanted, scales, allowed)):
            found = search(gram, wanted, scales, codes, allowed)
            np.testing.assert_array_equal(found, np.rint(found))
            assert_within(found, allowed.ends)
            before = cost(gram, wanted, codes, scales)
            assert (cost(gram, wanted, found, scales) <= before * (1 + 1e-9) + 1e-12).all()

    def test_a_search_goes_on_where_a_descent_ends(self):
        gram, wanted, scales, allowed = quadratic(64, 32, 3, np.random.default_rng(0))
        codes = settled(gram, wanted, scales, allowed)
        before, after = (
            cost(gram, wanted, q, scales).sum() for q in (codes, search(gram, wanted, scales, codes, allowed))
        )
        assert after < 0.95 * before

    def test_independent_taps_are_rounded_to_the_nearest(self):
        gram, wanted, scales, allowed = quadratic(6, 3, 3, np.random.default_rng(0))
        gram = np.eye(6)[None] * np.diagonal(gram[0])
        np.testing.assert_array_equal(settled(gram, wanted, scales, allowed), nearest(wanted, scales, allowed))

    def test_the_cost_is_the_one_written_out(self):
        gram, wanted, scales, allowed = quadratic(6, 3, 3, np.random.default_rng(0), groups=2)
        codes = nearest(wanted, scales, allowed)
        np.testing.assert_allclose(quadratic_cost(gram, wanted, codes, scales), cost(gram, wanted, codes, scales))

    @pytest.mark.parametrize("tied", [[[0, 1, 2]], [[0, 0, 0]], [[0, 1, 0]]])
    def test_of_codes_at_several_scales_those_that_share_one_take_the_cheapest(self, tied):
        gram, wanted, scales, allowed = quadratic(6, 3, 3, np.random.default_rng(2))
        tied, starts = np.array(tied), multiples(scales, 3)
        pairs = [(nearest(wanted, start, allowed), start) for start in starts]
        costs = np.stack([cost(gram, wanted, *pair)[0] for pair in pairs])
        codes, chosen = cheapest(gram, wanted, tied, iter(pairs))
        for number in range(tied.max() + 1):
            mine = tied[0] == number
            best = costs[:, mine].sum(1).argmin()
            np.testing.assert_array_equal(chosen[0, mine], starts[best][0, mine])
            np.testing.assert_array_equal(codes[0][:, mine], pairs[best][0][0][:, mine])
        ratios = np.array(starts)[:, 0] / starts[0][0]
        assert ratios[0] == pytest.approx(1)
        assert ratios.min() < 0.75  # a scale is sought well below
        assert ratios.max() > 1.25  # and above that of diag H

    @pytest.mark.parametrize("tied", [[[0, 1, 2]], [[0, 0, 0]], [[0, 1, 0]]])
    def test_scales_for_given_codes_are_the_best_there_are(self, tied):
        gram, wanted, scales, allowed = quadratic(6, 3, 3, np.random.default_rng(1))
        tied, codes = np.array(tied), nearest(wanted, scales, allowed)
        best = best_scales(gram, wanted, codes, scales, tied)
        for number in range(tied.max() + 1):
            assert np.unique(best[tied == number]).size == 1
            for factor in (0.99, 1.01):
                moved = np.where(tied == number, best * factor, best)
                assert cost(gram, wanted, codes, moved).sum() > cost(gram, wanted, codes, best).sum()


LIMITS = [(0.0, np.inf), (0.0, 6.0), (-1.0, 2.0), (-np.inf, 1.0)]


class TestMajorisation:
    @given(seed=st.integers(0, 10**6), limits=st.sampled_from(LIMITS), size=st.floats(0.1, 10))
    def test_targets_bound_the_loss_from_above_and_touch_it(self, seed, limits, size):
        problem = layer_problem(seed=seed % 50, rows=64)
        problem = dataclasses.replace(problem, targets=problem.targets * size, limits=limits)
        rows, rng = _Rows(problem), np.random.default_rng(seed)

        def drawn():
            codes = rng.integers(-3, 4, problem.matrix.shape).astype(np.int8)
            return Solution(codes, problem.scales * rng.uniform(0.2, 3, problem.scales.shape), problem.bias)

        present, other = drawn(), drawn()
        targets, (floor, ceiling) = rows.majorised(rows.fitted(present).outputs), limits

        def bound_and_loss(solution):
            y = rows.fitted(solution).outputs
            return np.square(y - targets), np.square(np.clip(y, floor, ceiling) - np.clip(rows.targets, floor, ceiling))

        bound, loss = bound_and_loss(other)
        assert (bound >= loss * (1 - 1e-5)).all()
        assert rows.fitted(other).loss == pytest.approx(loss.sum(dtype=np.float64), rel=1e-5)
        # it touches the loss wherever the clamp does not cut off more of y than of z
        y, z = rows.fitted(present).outputs, rows.targets
        touching = ((y >= floor) | (z <= floor)) & ((y <= ceiling) | (z >= ceiling))
        bound, loss = bound_and_loss(present)
        np.testing.assert_allclose(bound[touching], loss[touching], rtol=1e-5, atol=1e-9)

    @pytest.mark.parametrize("bits", [2, 3, 4, 8])
    def test_it_gains_where_the_clamp_cuts_much_off(self, bits):
        problem = layer_problem(taps=16, outputs=6, bits=bits, activation="relu", rows=1024)
        lower = problem.targets.mean(0) + problem.targets.std(0)
        problem = dataclasses.replace(problem, bias=problem.bias - lower, targets=problem.targets - lower)
        plain, clamped = (
            least_squares(dataclasses.replace(problem, limits=limits_of(activation)), dampings=(0.1,))
            for activation in (None, "relu")
        )
        assert fitted_errors(problem, clamped).sum() < 0.998 * fitted_errors(problem, plain).sum()

    def test_what_the_range_of_the_output_cuts_off_does_not_spoil_the_rest(self):
        """A few rows have inputs that their grid cuts off, and outputs beyond that of the output."""
        problem = layer_problem(taps=16, outputs=6, bits=4, rows=1024)
        targets = problem.targets.copy()
        targets[::20] *= 30
        problem = dataclasses.replace(problem, targets=targets)
        limits = float(np.quantile(problem.targets, 0.03)), float(np.quantile(problem.targets, 0.97))
        within = dataclasses.replace(problem, limits=limits)
        plain, clamped = (least_squares(p, dampings=(0.1,)) for p in (problem, within))
        assert fitted_errors(within, clamped).sum() < 0.5 * fitted_errors(within, plain).sum()


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("kind", KINDS)
class TestSolutions:
    @given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), damping=st.sampled_from([1e-3, 0.1, 1.0]))
    @settings(max_examples=12)
    def test_they_are_valid_and_never_worse_than_rounding_on_the_fitted_rows(
        self, kind, activation, seed, bits, damping
    ):
        problem = layer_problem(taps=6, bits=bits, rows=96, activation=activation, seed=seed, **KINDS[kind])
        found = least_squares(problem, dampings=(damping,))
        assert fitted_errors(problem, found).sum() <= fitted_errors(problem, problem.nearest()).sum() * (1 + 1e-4)
        assert found.codes.dtype == np.int8
        assert_within(found.codes, problem.codes.ends)
        assert (found.scales > 0).all()
        assert found.input_grid is None
        for number in range(problem.tied.max() + 1):
            assert np.unique(found.scales[problem.tied == number]).size == 1
        if not problem.has_bias:
            np.testing.assert_array_equal(found.bias, 0)

    def test_the_loss_is_that_of_the_solution_computed_from_the_inputs(self, kind, activation):
        problem = layer_problem(taps=6, rows=96, activation=activation, **KINDS[kind])
        found = least_squares(problem)
        loss = _Rows(problem).fitted(found).loss
        assert loss == pytest.approx(fitted_errors(problem, found).sum(), rel=1e-4)

    def test_it_gains_on_rows_that_it_has_not_seen(self, kind, activation):
        options = {"taps": 16, "outputs": 6} | KINDS[kind]
        problem = layer_problem(bits=3, rows=1024, activation=activation, **options)
        assert problem.error(least_squares(problem)) < 0.9 * problem.error(problem.nearest())


def test_at_8_bits_it_is_the_solution_of_least_squares():
    problem = layer_problem(taps=8, outputs=3, bits=8, rows=512, seed=3)
    found = least_squares(problem, dampings=(1e-5,))
    x = np.c_[problem.quantized_inputs()[:, 0], np.ones(len(problem.inputs))].astype(np.float64)
    weights = np.linalg.lstsq(x, problem.targets[:, 0].astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(found.matrix[0], weights[:-1], atol=found.scales.max())
    residual = np.square(x @ weights - problem.targets[:, 0]).sum()
    assert residual < fitted_errors(problem, found).sum() < 30 * residual + 1e-2 * np.square(problem.targets).sum()


def test_weights_held_without_end_are_those_of_the_layer():
    problem = layer_problem(taps=8, outputs=3, bits=8, rows=512, seed=3)
    problem = dataclasses.replace(problem, targets=problem.targets * 2)
    free, held = (least_squares(problem, dampings=(damping,)) for damping in (1e-5, np.inf))
    np.testing.assert_allclose(held.matrix, problem.matrix, atol=held.scales.max())
    np.testing.assert_allclose(free.matrix, 2 * problem.matrix, atol=0.2)
    np.testing.assert_allclose(  # the bias makes good what the mean lacks
        (np.einsum("ngk,gkc->ngc", problem.quantized_inputs(), held.matrix) + held.bias).mean(0),
        problem.targets.mean(0),
        atol=1e-3,
    )


@pytest.mark.parametrize("wanted", [1e-2, 1.0, np.inf])
def test_the_rows_to_choose_by_pick_the_damping(wanted):
    problem = layer_problem(taps=12, outputs=4, bits=8, rows=256, seed=5)
    noisy = problem.targets + 5 * np.random.default_rng(0).normal(size=problem.targets.shape).astype(np.float32)
    problem = dataclasses.replace(problem, targets=noisy, samples=10_000)
    x = np.c_[problem.held_inputs[:, 0], np.ones(128)].astype(np.float32)
    target = least_squares(problem, dampings=(wanted,))
    held = (x[:, :-1] @ target.matrix[0] + target.bias)[:, None]
    found = least_squares(dataclasses.replace(problem, held_targets=held.astype(np.float32)))
    np.testing.assert_array_equal(found.matrix, target.matrix)
    assert (found.matrix != least_squares(problem, dampings=(0.1,)).matrix).any()


def test_a_lost_mean_is_made_good_by_the_bias():
    """The inputs' grid cuts much off: the sequential objective makes the error of the inputs good."""
    problem = layer_problem(taps=8, bits=8, rows=512)
    grid = problem.input_grid
    narrow = dataclasses.replace(grid, scale=(grid.scale[0] / 4,))
    problem = dataclasses.replace(problem, input_grid=narrow)
    found = least_squares(problem)
    y = np.einsum("ngk,gkc->ngc", problem.quantized_inputs(), found.matrix) + found.bias
    np.testing.assert_allclose(y.mean(0), problem.targets.mean(0), atol=1e-3)
    assert problem.error(found) < 0.6 * problem.error(problem.nearest())


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_inputs_that_never_change_leave_weights_of_finite_size(value, activation, has_bias):
    problem = layer_problem(taps=6, activation=activation, has_bias=has_bias)
    inputs = np.full_like(problem.inputs, value)
    targets = np.einsum("ngk,gkc->ngc", inputs, problem.matrix) + problem.bias
    found = least_squares(dataclasses.replace(problem, inputs=inputs, targets=targets))
    assert np.isfinite(found.matrix).all()
    assert np.isfinite(found.bias).all()
    assert (found.scales > 0).all()
    if has_bias:  # it gives the constant, whatever the weights do
        y = np.einsum("ngk,gkc->ngc", reference_inputs(problem, inputs), found.matrix) + found.bias
        z = np.maximum(targets, 0) if activation else targets
        np.testing.assert_allclose(np.maximum(y, 0) if activation else y, z, atol=1e-2)
        assert np.abs(found.matrix - problem.matrix).max() < 0.6 * np.abs(problem.matrix).max()


def reference_inputs(problem, inputs):
    grid = problem.input_grid
    return reference.fake_quantize(inputs, grid.scale[0], grid.zero_point, *grid.integer_range)


def test_one_dead_input_among_others_keeps_its_weights_near():
    problem = layer_problem(taps=6, bits=8)
    inputs = problem.inputs.copy()
    inputs[..., 2] = 0
    targets = np.einsum("ngk,gkc->ngc", inputs, problem.matrix) + problem.bias
    found = least_squares(dataclasses.replace(problem, inputs=inputs, targets=targets.astype(np.float32)))
    np.testing.assert_allclose(found.matrix[0, 2], problem.matrix[0, 2], atol=0.02)


def test_a_channel_of_zeros_stays_zero():
    problem = layer_problem(taps=6)
    matrix, targets = problem.matrix.copy(), problem.targets.copy()
    matrix[..., 1], targets[..., 1] = 0, problem.bias[0, 1]
    found = least_squares(dataclasses.replace(problem, matrix=matrix, targets=targets))
    np.testing.assert_array_equal(found.codes[..., 1], 0)
    np.testing.assert_allclose(found.bias[0, 1], problem.bias[0, 1], rtol=1e-5)
    assert (found.scales > 0).all()


def test_float_inputs_are_taken_as_they_are():
    problem = dataclasses.replace(layer_problem(taps=6, bits=8), input_grid=None)
    found = least_squares(problem, dampings=(1e-6,))
    y = np.einsum("ngk,gkc->ngc", problem.inputs, found.matrix) + found.bias
    assert np.square(y - problem.targets).sum() < 1e-3 * np.square(problem.targets).sum()


def test_much_damping_holds_the_weights_where_they_are():
    problem = layer_problem(taps=8, bits=8, rows=256)
    scaled = dataclasses.replace(problem, targets=problem.targets * 1.5)
    found = [np.abs(least_squares(scaled, dampings=(d,)).matrix - problem.matrix).max() for d in (1e-3, 1e3)]
    assert found[1] < 0.1 * found[0]


def test_the_same_problem_gives_the_same_bytes():
    problem = layer_problem(taps=40, outputs=5, activation="relu6", with_offset=True)
    first, second = least_squares(problem), least_squares(problem)
    for name in ("codes", "scales", "bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("kind", KINDS)
def test_problems_that_differ_in_the_grid_alone_are_solved_together_as_each_alone(kind):
    problem = layer_problem(**{"taps": 20, "outputs": 5, "activation": "relu", **KINDS[kind]})
    given = dataclasses.replace(problem, scales=2 * problem.scales, scales_are_given=True)
    problems = [problem, given, dataclasses.replace(problem, bits=6, scales=problem.scales / 4)]
    for found, posed in zip(least_squares_of(problems), problems, strict=True):
        alone = least_squares(posed)
        for name in ("codes", "scales", "bias"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


@pytest.mark.parametrize("kind", KINDS)
def test_searching_lowers_the_error_on_the_fitted_rows(kind):
    problem = layer_problem(**{"taps": 40, "outputs": 6, "bits": 3, **KINDS[kind]})
    plain, found = (fitted_errors(problem, solution).sum() for solution in with_search(problem))
    assert found < plain


def test_the_search_follows_the_seed_of_the_run():
    problem = layer_problem(taps=160, outputs=64, bits=3, rows=512, seed=1)

    def searched(seed):
        plain, found = with_search(dataclasses.replace(problem, seed=seed))
        assert plain.codes.tobytes() == least_squares(problem).codes.tobytes()
        return found.codes.tobytes()

    found = [searched(seed) for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    assert len(set(found)) > 1
