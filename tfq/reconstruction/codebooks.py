"""The codebook of a layer for which its output errs least: Hessian-weighted k-means, and what follows for H as a whole.

With H and W* of `least_squares`, for weights w = s * q whose codes q are k integers of the layer from -k to k,

    1. codebook and scales in turns by k-means, every weight's error weighted by its H_kk    `tfq.numerics.codebook`
    2. codes by GPTQ and coordinate descent among those of the codebook                      `lattice`
    3. s = q' H w* / q' H q of every output
    4. the codes' own values c, for given places Z (q = Z c), rounded to integers:

           c = (sum s^2 Z' H Z)^-1 sum s Z' H w*          sums over the outputs

and 2. to 4. again, as long as the error falls.

Sources: Choi et al. 2017 (arXiv:1612.01543), "Towards the Limit of Network Quantization", for k-means weighted by the
Hessian's diagonal; Stock et al. 2020 (arXiv:1907.05686) for codebooks that minimise the error of outputs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfq.numerics.codebook import clustered
from tfq.reconstruction.lattice import Ordered, best_scales, descend, quadratic_cost, rounded, stored_scales
from tfq.reconstruction.problem import Problem
from tfq.reconstruction.weight_scales import by_scale

_ROUNDS = 6
_WORTH = 1e-3  # a round that lowers the error by less is the last
_SMALLEST = 1e-9  # of the largest: added to the diagonal, for codes that no weight has
_NUMBERS = 2**24  # of products at a time


def fitted_codebook(problem: Problem, ordered: Ordered, gram: np.ndarray, wanted: np.ndarray) -> Problem:
    """The problem with another codebook, of as many codes, and other scales.

    Args:
      problem: its grid has a codebook.
      ordered, gram: H [g, k, k].
      wanted: W* [g, k, c].
    """
    tied = problem.tied
    importance = np.broadcast_to(np.diagonal(gram, axis1=1, axis2=2)[:, :, None], wanted.shape)
    scales, codebook = clustered(by_scale(wanted, tied), len(problem.codebook), 0, by_scale(importance, tied))
    best, lowest, scales = problem, np.inf, scales[tied]
    for _ in range(_ROUNDS):
        scales = stored_scales(scales, problem.bits)
        posed = dataclasses.replace(problem, codebook=codebook, scales=scales)
        codes = rounded(ordered, wanted, scales, posed.codes)
        codes = descend(gram, wanted, scales, codes, posed.codes)
        cost = float(quadratic_cost(gram, wanted, codes, scales).sum())
        if cost > (1 - _WORTH) * lowest:
            break
        best, lowest = posed, cost
        scales = best_scales(gram, wanted, codes, scales, tied)
        codebook = best_values(gram, wanted, codes, scales, codebook)
    return best


def best_values(
    gram: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scales: np.ndarray, codebook: tuple[int, ...]
) -> tuple[int, ...]:
    """Step 4.: the codebook for present codes [g, k, c] and scales [g, c]; where codes meet the present one."""
    count = len(codebook)
    places = np.searchsorted(codebook, codes)
    matrix, target = np.zeros((count, count)), np.zeros(count)
    groups, taps, outputs = codes.shape
    step = max(1, _NUMBERS // (groups * taps * count))
    for first in range(0, outputs, step):
        part = slice(first, first + step)
        chosen = (places[:, :, part, None] == np.arange(count)) * scales[:, None, part, None]  # s Z [g, k, c, codes]
        shape = chosen.shape
        projected = (gram @ chosen.reshape(groups, taps, -1)).reshape(shape)
        flat = chosen.transpose(0, 2, 1, 3).reshape(-1, taps, count)
        matrix += (flat.transpose(0, 2, 1) @ projected.transpose(0, 2, 1, 3).reshape(-1, taps, count)).sum(0)
        target += np.einsum("gkcm,gkc->m", projected, wanted[:, :, part], optimize=True)
    matrix += _SMALLEST * (np.trace(matrix) or 1.0) * np.eye(count)
    present = np.asarray(codebook, np.float64)
    moved = present + np.linalg.solve(matrix, target - matrix @ present)
    found = sorted(set(np.clip(np.rint(moved), -count, count).astype(int).tolist()))
    return tuple(found) if len(found) == count else codebook
