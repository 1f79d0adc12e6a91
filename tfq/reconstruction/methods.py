"""The methods by which one layer can be reconstructed, by the names that recipes use.

nearest           present weights and scales, rounded to the nearest
mse               the same with scales of the smallest squared error          `weight_scales`
bias_correction   mse, and a bias that takes over the mean error              `mean_error`
adaround          every weight down or up, the scales fixed                   `adaround`
adaquant          weights, scales, bias and input range learned together      `adaquant`
least_squares     closed form and a descent over the codes, no gradients      `least_squares`
best              the same with a search over the codes, then over active rows  `active_rows`
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfq.grid import Grid, activation_grid
from tfq.numerics import reference
from tfq.reconstruction.active_rows import is_affordable, refined
from tfq.reconstruction.adaquant import adaquant
from tfq.reconstruction.adaround import adaround
from tfq.reconstruction.least_squares import least_squares, least_squares_of, with_search
from tfq.reconstruction.mean_error import with_corrected_bias
from tfq.reconstruction.problem import UNLIMITED, Method, Problem, Solution
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
    return min((found for grid in _input_grids(problem) for found in _stages(problem, grid)), key=problem.error)


def _stages(problem: Problem, grid: Grid | None) -> Iterator[Solution]:
    """With the input on this grid: least squares, a search over its codes, and what the active rows make of that."""
    posed = dataclasses.replace(problem, input_grid=grid)
    found = list(with_search(posed))
    if problem.limits != UNLIMITED and is_affordable(problem):
        found.append(refined(posed, found[-1], max(_DAMPING, 1 / problem.samples)))
    moved = grid if problem.input_is_free else None
    yield from (dataclasses.replace(solution, input_grid=moved) for solution in found)


def _input_grids(problem: Problem) -> list[Grid | None]:
    """The input's grid; where it has few bits and is no other layer's, narrower and wider ones too."""
    grid = problem.input_grid
    if grid is None or not problem.input_is_free or grid.bits >= _AMPLE_BITS:
        return [grid]
    ends = [(ratio * grid.real_range[0], ratio * grid.real_range[1]) for ratio in _INPUT_RATIOS]
    return [activation_grid(*reference.asymmetric_parameters(low, high, grid.bits), grid.bits) for low, high in ends]


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


def solutions(name: str, problems: Sequence[Problem], seed: int) -> list[Solution]:
    """By this method those of problems that differ in the grid of their weights alone."""
    if name == "least_squares":  # most of its work hangs on no grid
        return list(least_squares_of(problems))
    return [METHODS[name](problem, seed) for problem in problems]
