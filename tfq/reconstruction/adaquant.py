"""AdaQuant: weights, scales, bias and the input's range of one layer, learned together.

Equation, for the float layer's output z and activation f:

    minimise over V, s, b, s_x, z_x   | f(z) - f( Q_s(W + V) * Q_sx,zx(x) + b ) |^2        (2, 3)
    Q_s(w) = s * clip(round(w / s), -k, k)         Q_sx,zx(x) = s_x * (clip(round(x / s_x) + z_x, n, p) - z_x)

x is the float layer's input (parallel) or what the quantised predecessors compute (sequential). Unlike AdaRound a
weight may move by any number of steps. Gradients pass through round unchanged, and through clip inside alone; the
range gets its own through both (as in LSQ: q - x / s_x inside, the end of the grid outside).
Weights are learned in steps of their grid, so that the gradient of a scale is that of s * q with the codes as they
are: LSQ's, q - w / s, vanishes for weights that have settled on their codes, and the scale drifts.

Learned with Adam from the present weights rounded to the nearest, with the scales of the smallest squared error
(`mse_scales`), each in its own unit, so that one set of rates serves all layers and all bits:

    W = s * u             u in steps of the grid             b = b_0 + sigma_z * v                 per output
    s = s_0 * exp(a)      per scale                          r = r_0 * exp(c), low = low_0 + r_0 * d

A weight whose best value lies between two codes ends up on the threshold between them and keeps jumping from one
to the other; where it is in the end is chance. Added to the loss, in units of the error of rounding to the nearest,
is therefore the dampening

    lambda * t^2 * mean over the weights (clip(u) - q)^2        t from 0 to 1 over the steps, q held fixed

which lets weights wander first and settle then. Published is none, at rates that hardly move a weight.

The input's range [low, low + r] is learned where it belongs to this layer alone (`Problem.input_is_free`); its
zero-point is rounded, straight through, so that 0.0 has a code. Published are rates in absolute units (1e-5 for
weights, which move by a fraction of a step at 4 bits), min-max scales to begin with and asymmetric weight grids;
TFLite's are symmetric.

Source: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer
Programming", 2020 (arXiv:2006.10518), section 3, equations 1-3; the activation inside the loss and the batches from
fresh permutations are those of the released code. The dampening is that of Nagel et al., "Overcoming Oscillations in
Quantization-Aware Training", 2022 (arXiv:2203.11086), equation 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from tfq.grid import Grid, activation_grid
from tfq.numerics import reference
from tfq.numerics.codebook import Codes
from tfq.reconstruction.descent import Arrays, Pull, minimise, rounding_noise, slope_by_matrix, slope_by_rows
from tfq.reconstruction.problem import Problem, Solution, product
from tfq.reconstruction.weight_scales import output_scales

STEPS, BATCH, DAMPENING = 1000, 256, 36.0


@dataclasses.dataclass(frozen=True)
class Rates:
    """Adam's rates.

    Attributes:
      weights: in steps of their grids.
      scales: relative; where they are not given.
      bias: in standard deviations of the output.
      range: for both ends of the input's range, relative to it.
    """

    weights: float = 2e-2
    scales: float = 1e-3
    bias: float = 1e-2
    range: float = 1e-3


_RATES = Rates()


def adaquant(
    problem: Problem,
    seed: int,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    rates: Rates = _RATES,
    penalty: float = DAMPENING,
) -> Solution:
    """Codes, scales, bias and, where it is free, the input's grid of a small error on the rows of `problem`.

    Args:
      problem: the layer.
      seed: of the choice of rows.
      steps, batch: number of steps, rows in each.
      rates: how far a step moves what is learned.
      penalty: lambda.
    """
    start, allowed = output_scales(problem), problem.codes
    grid = problem.input_grid if problem.input_is_free else None
    learned = {
        "weights": (problem.matrix / start[:, None], rates.weights),
        "scales": (np.zeros(problem.tied.max() + 1), 0.0 if problem.scales_are_given else rates.scales),
    }
    deviation = np.maximum(problem.targets.std(0, dtype=np.float64), 1e-9).astype(np.float32)
    inputs = problem.quantized_inputs()
    unit = rounding_noise(inputs, start)
    if problem.has_bias:
        learned["bias"] = (np.zeros(problem.bias.shape), rates.bias)
    if grid is not None:
        inputs = problem.inputs
        learned |= {name: (np.zeros(()), rates.range) for name in ("widening", "shift")}
    model = LearnedLayer(
        scales=start[:, None].astype(np.float32),
        tied=problem.tied,
        bias=problem.bias.astype(np.float32),
        deviation=deviation,
        allowed=allowed,
        dampening=penalty,
        grid=grid,
    )
    found = minimise(problem, model, learned, inputs=inputs, unit=unit, steps=steps, batch=batch, seed=seed)
    bias = problem.bias
    return Solution(
        allowed.nearest(found["weights"]).astype(np.int8),
        start * np.exp(found["scales"])[problem.tied],
        bias + found["bias"] * deviation if problem.has_bias else bias,
        None if grid is None else moved_grid(grid, float(found["widening"]), float(found["shift"])),
        problem.codebook,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedLayer:
    """Equation 2 and the dampening.

    Attributes:
      scales: s_0 [groups, 1, outputs].
      tied: int [groups, outputs]: which number of a each output takes.
      bias, deviation: b_0 and sigma_z [groups, outputs].
      allowed: the codes that weights may become.
      dampening: lambda.
      grid: of the inputs, whose range is learned; None: the rows are on their grid, or float.
    """

    scales: np.ndarray
    tied: np.ndarray
    bias: np.ndarray
    deviation: np.ndarray
    allowed: Codes
    dampening: float
    grid: Grid | None

    def outputs(self, learned: Arrays, rows: np.ndarray) -> tuple[np.ndarray, Pull]:
        """y of a batch, and the way back."""
        steps = learned["weights"]
        inside = np.clip(steps, *self.allowed.ends)
        codes = self.allowed.nearest(inside).astype(np.float32)
        scales = self.scales * np.exp(learned["scales"])[self.tied][:, None]
        matrix = scales * codes
        x = rows
        if self.grid is not None:
            x, to_range = on_learned_range(rows, self.grid, float(learned["widening"]), float(learned["shift"]))
        y = product(x, matrix) + self.bias
        if "bias" in learned:
            y += learned["bias"] * self.deviation

        def pull(slope: np.ndarray, progress: float) -> dict[str, np.ndarray]:
            to_matrix = slope_by_matrix(x, slope)
            found = {"scales": np.bincount(self.tied.ravel(), (to_matrix * matrix).sum(1).ravel())}
            to_steps = to_matrix * scales
            to_steps += (2 * self.dampening * progress**2 / steps.size) * (inside - codes)
            to_steps *= inside == steps
            found["weights"] = to_steps
            if "bias" in learned:
                found["bias"] = slope.sum(0) * self.deviation
            if self.grid is not None:
                found["widening"], found["shift"] = to_range(slope_by_rows(slope, matrix))
            return found

        return y, pull


def on_learned_range(
    values: np.ndarray, grid: Grid, widening: float, shift: float
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """The values on the grid of this range, and what takes the slope by them to those by `widening` and `shift`.

    With s = r / (p - n) and z = round(n - low / s), held within [n, p], for the range [low, low + r]:

        Q = s q,  q = round(clip(x / s, n - z, p - z)):   dQ/ds = q - x / s inside, q outside;   dQ/dz = 0, -s outside
    """
    lowest, highest = grid.integer_range
    low, scale, exact = _parameters(grid, widening, shift)
    zero_point = _held(exact, grid)
    ratios = values / np.float32(scale)
    clipped = np.clip(ratios, lowest - zero_point, highest - zero_point)
    codes = np.rint(clipped)

    def pull(slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outside = np.flatnonzero(clipped != ratios)
        beyond = slope.ravel()[outside]
        to_scale = float(np.vdot(slope, codes) - np.vdot(slope, ratios) + np.vdot(beyond, ratios.ravel()[outside]))
        to_zero_point = -scale * float(beyond.sum()) * (lowest <= exact <= highest)
        to_scale += to_zero_point * low / scale**2
        return np.array(to_scale * scale), np.array(-to_zero_point / scale * _width(grid))

    return codes * np.float32(scale), pull


def moved_grid(grid: Grid, widening: float, shift: float) -> Grid:
    """The grid of the same bits for c and d."""
    _, scale, exact = _parameters(grid, widening, shift)
    return activation_grid(float(reference.activation_scale(scale, grid.bits)), _held(exact, grid), grid.bits)


def _parameters(grid: Grid, widening: float, shift: float) -> tuple[float, float, float]:
    """low, s, and z before it is rounded."""
    lowest, highest = grid.integer_range
    low = grid.real_range[0] + _width(grid) * shift
    scale = _width(grid) * math.exp(widening) / (highest - lowest)
    return low, scale, lowest - low / scale


def _held(exact: float, grid: Grid) -> int:
    """The zero-point."""
    lowest, highest = grid.integer_range
    return round(min(max(exact, lowest), highest))


def _width(grid: Grid) -> float:
    """r_0."""
    low, high = grid.real_range
    return high - low
