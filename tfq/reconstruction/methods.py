"""The methods by which one layer can be reconstructed, by the names that recipes use.

nearest           present weights and scales, rounded to the nearest
mse               the same with scales of the smallest squared error          `weight_scales`
bias_correction   mse, and a bias that takes over the mean error              `bias_correction`
adaround          every weight down or up, the scales fixed                   `adaround`
adaquant          weights, scales, bias and input range learned together      `adaquant`
least_squares     closed form and a descent over the codes, no gradients      `least_squares`
best              the same with a search over the codes, then over active rows  `active_rows`
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfq.grid import activation_grid
from tfq.numerics import reference
from tfq.reconstruction.active_rows import is_affordable, refined
from tfq.reconstruction.adaquant import adaquant
from tfq.reconstruction.adaround import adaround
from tfq.reconstruction.bias_correction import with_corrected_bias
from tfq.reconstruction.least_squares import least_squares, with_search
from tfq.reconstruction.problem import Method, Problem, Solution
from tfq.reconstruction.weight_scales import output_scales

_DAMPING = 1e-2
_INPUT_RATIOS = (1.0, 0.7, 0.85, 1.15)
_AMPLE_BITS = 8  # of an input, at which its range hardly matters


def mse(problem: Problem) -> Solution:
    """The present weights on the grids of the smallest squared error."""
    return problem.nearest(output_scales(problem))


def bias_correction(problem: Problem) -> Solution:
    """The same with a corrected bias."""
    return with_corrected_bias(problem, mse(problem))


def best(problem: Problem) -> Solution:
    """Least squares, over all rows and then over those that count, as the rows to choose by favour.

    They choose the damping, for a few-bit input of its own the range, whether the codes are searched, and whether the
    active rows alone are better.
    """
    found = [solution for ratio in _input_ratios(problem) for solution in _tried(problem, ratio)]
    return found[0] if problem.choices is not None else min(found, key=problem.error)


def _input_ratios(problem: Problem) -> Sequence[float]:
    """How the range of the input may change: not at all, but where it has few bits and is no other layer's."""
    if problem.choices is not None:
        return (problem.choices.input_ratio,)
    grid = problem.input_grid
    few_bits = grid is not None and problem.input_is_free and grid.bits < _AMPLE_BITS
    return _INPUT_RATIOS if few_bits else (1.0,)


def _tried(problem: Problem, ratio: float) -> Iterator[Solution]:
    """The solution of every stage at this range of the input; of a problem whose choices are made, of that one."""
    grid, moved, made = problem.input_grid, None, problem.choices
    if grid is not None and ratio != 1:
        low, high = (ratio * end for end in grid.real_range)
        moved = grid = activation_grid(*reference.asymmetric_parameters(low, high, grid.bits), grid.bits)
    for stage, found in enumerate(_stages(dataclasses.replace(problem, input_grid=grid))):
        if made is None or made.stage == stage:
            assert found.choices is not None
            choices = dataclasses.replace(found.choices, stage=stage, input_ratio=ratio)
            yield dataclasses.replace(found, input_grid=moved, choices=choices)
        if made is not None and made.stage == stage:
            return


def _stages(problem: Problem) -> Iterator[Solution]:
    """Least squares, the search over its codes, and what the active rows make of that where they are affordable."""
    found = None
    for found in with_search(problem):
        yield found
    assert found is not None
    if problem.activation is not None and (problem.choices is not None or is_affordable(problem)):
        yield refined(problem, found, max(_DAMPING, 1 / problem.samples))


def _seedless(find: Callable[[Problem], Solution], problem: Problem, _: int) -> Solution:
    """A method that leaves nothing to chance."""
    return find(problem)


METHODS: Mapping[str, Method] = {
    "nearest": functools.partial(_seedless, Problem.nearest),
    "mse": functools.partial(_seedless, mse),
    "bias_correction": functools.partial(_seedless, bias_correction),
    "adaround": adaround,
    "adaquant": adaquant,
    "least_squares": functools.partial(_seedless, least_squares),
    "best": functools.partial(_seedless, best),
}
