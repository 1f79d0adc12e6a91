"""The methods by which one layer can be reconstructed, by the names that recipes use.

nearest           present weights and scales, rounded to the nearest
mse               the same with scales of the smallest squared error          `weight_scales`
bias_correction   mse, and a bias that takes over the mean error              `bias_correction`
adaround          every weight down or up, the scales fixed                   `adaround`
adaquant          weights, scales, bias and input range learned together      `adaquant`
least_squares     closed form and a descent over the codes, no gradients      `least_squares`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfq.reconstruction.adaquant import adaquant
from tfq.reconstruction.adaround import adaround
from tfq.reconstruction.bias_correction import with_corrected_bias
from tfq.reconstruction.least_squares import least_squares
from tfq.reconstruction.problem import Problem, Solution
from tfq.reconstruction.reconstruct import Method
from tfq.reconstruction.weight_scales import output_scales


def mse(problem: Problem) -> Solution:
    """The present weights on the grids of the smallest squared error."""
    return problem.nearest(output_scales(problem))


def bias_correction(problem: Problem) -> Solution:
    """The same with a corrected bias."""
    return with_corrected_bias(problem, mse(problem))


def _seedless(find: Callable[[Problem], Solution]) -> Method:
    """A method that leaves nothing to chance."""
    return lambda problem, _seed: find(problem)


METHODS: Mapping[str, Method] = {
    "nearest": _seedless(Problem.nearest),
    "mse": _seedless(mse),
    "bias_correction": _seedless(bias_correction),
    "adaround": adaround,
    "adaquant": adaquant,
    "least_squares": _seedless(least_squares),
}
