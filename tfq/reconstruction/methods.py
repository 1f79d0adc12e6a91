"""The methods by which one layer can be reconstructed, by the names that recipes use.

nearest           present weights and scales, rounded to the nearest
mse               the same with scales of the smallest squared error          `weight_scales`
bias_correction   mse, and a bias that takes over the mean error              `bias_correction`
adaround          every weight down or up, the scales fixed                   `adaround`
adaquant          weights, scales, bias and input range learned together      `adaquant`
least_squares     closed form and a descent over the codes, no gradients      `least_squares`
best              least_squares with the damping that held-back rows favour
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from tfq.reconstruction.adaquant import adaquant
from tfq.reconstruction.adaround import adaround
from tfq.reconstruction.bias_correction import with_corrected_bias
from tfq.reconstruction.least_squares import least_squares
from tfq.reconstruction.problem import Method, Problem, Solution
from tfq.reconstruction.weight_scales import output_scales

_DAMPINGS = (1e-2, 1e-1, 1.0)


def mse(problem: Problem) -> Solution:
    """The present weights on the grids of the smallest squared error."""
    return problem.nearest(output_scales(problem))


def bias_correction(problem: Problem) -> Solution:
    """The same with a corrected bias."""
    return with_corrected_bias(problem, mse(problem))


def best(problem: Problem) -> Solution:
    """Least squares with the damping of the smallest error on the rows held back."""
    return least_squares(problem, dampings=_DAMPINGS)


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
