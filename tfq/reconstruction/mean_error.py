"""The bias of one layer takes over the mean error of its output.

Over sampled rows, with weights w~ on their grid and inputs x^ as the quantised network computes them:

    b = mean z - mean(x^) @ w~        so that  E[y] = E[z]  before the activation

Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", 2019
(arXiv:1906.04721), section 4.2, equation 17, with E[x] measured (appendix D) rather than derived from batch
normalisation. Since x^ holds the error of the inputs too, the correction covers both errors.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.reconstruction.problem import Problem, Solution, on_grid, product


def with_corrected_bias(problem: Problem, solution: Solution) -> Solution:
    """The solution with the bias of the equation; the same where the layer has none."""
    if not problem.has_bias:
        return solution
    inputs = on_grid(problem.inputs, solution.input_grid or problem.input_grid)
    wanted = problem.targets.mean(0, dtype=np.float64)
    if problem.offset is not None:
        wanted = wanted - problem.offset.mean(0, dtype=np.float64)
    given = product(inputs.mean(0, keepdims=True, dtype=np.float64), solution.matrix.astype(np.float64))[0]
    return dataclasses.replace(solution, bias=wanted - given)
