"""Small layers to be reconstructed, and their errors in plain NumPy."""

import numpy as np

from tfq.grid import activation_grid
from tfq.numerics import reference
from tfq.reconstruction.problem import Problem, clamp, limits_of


def layer_problem(
    *,
    taps=4,
    groups=1,
    outputs=3,
    bits=3,
    rows=256,
    activation=None,
    has_bias=True,
    per_channel=True,
    input_bits=8,
    outliers=0.0,
    with_offset=False,
    free=False,
    seed=0,
):
    """A layer on correlated, rectified inputs; `outliers` is the size of one row in fifty."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(rows + 128, groups, taps)) + rng.normal(size=(rows + 128, groups, 1)), 0)
    x[::50] += outliers * rng.uniform(size=x[::50].shape)
    x = x.astype(np.float32)
    matrix = rng.normal(size=(groups, taps, outputs)).astype(np.float32)
    bias = rng.normal(size=(groups, outputs)).astype(np.float32) * has_bias
    offset = rng.normal(size=(rows + 128, groups, outputs)).astype(np.float32) if with_offset else None
    z = np.einsum("ngk,gkc->ngc", x, matrix) + bias + (0 if offset is None else offset)
    if not per_channel:
        tied = np.zeros((groups, outputs), int)
    elif groups > 1:
        tied = np.tile(np.arange(groups)[:, None], (1, outputs))
    else:
        tied = np.arange(outputs)[None]
    largest = np.zeros(tied.max() + 1)
    np.maximum.at(largest, tied, np.abs(matrix).max(1))
    highest = reference.integer_range(bits, symmetric=True)[1]
    grid = activation_grid(*reference.asymmetric_parameters(0.0, float(x.max()), input_bits), input_bits)
    return Problem(
        name="layer",
        inputs=x[:rows],
        targets=z[:rows].astype(np.float32),
        held_inputs=x[rows:],
        held_targets=z[rows:].astype(np.float32),
        matrix=matrix,
        bias=bias,
        limits=limits_of(activation),
        bits=bits,
        samples=rows,
        held_samples=0,
        scales=(largest / highest)[tied],
        tied=tied,
        has_bias=has_bias,
        input_grid=grid,
        input_is_free=free,
        offset=None if offset is None else offset[:rows],
        held_offset=None if offset is None else offset[rows:],
    )


def assert_within(codes, ends):
    """No code lies beyond the lowest and the highest one."""
    low, high = ends
    assert low <= codes.min()
    assert codes.max() <= high


def fitted_errors(problem, solution):
    """Squared error on the rows that methods see, of every output [groups, outputs], in float64."""
    grid = solution.input_grid or problem.input_grid
    x = reference.fake_quantize(problem.inputs, grid.scale[0], grid.zero_point, *grid.integer_range)
    weights = solution.codes.astype(np.float64) * solution.scales[:, None]
    y = np.einsum("ngk,gkc->ngc", x.astype(np.float64), weights) + solution.bias
    if problem.offset is not None:
        y = y + problem.offset
    z = problem.targets
    y, z = clamp(y, problem.limits), clamp(z, problem.limits)
    return np.square(y - z).sum(0)
