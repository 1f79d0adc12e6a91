"""The algebra of kernels against einsum, for every row of the table that multiplies."""

import math

import numpy as np
import pytest

from tfq.operations.table import OPERATORS

SHAPES = {"hwio": (3, 2, 5, 4), "hwoi": (3, 2, 4, 5), "io": (5, 4), "hwcm": (3, 2, 5, 2)}
KINDS = {kind: row.matrix for kind, row in OPERATORS.items() if row.matrix is not None}


@pytest.fixture(params=KINDS)
def drawn(request):
    """(how a kernel multiplies, a kernel)."""
    matrix = KINDS[request.param]
    return matrix, np.random.default_rng(0).normal(size=SHAPES[matrix.axes])


def test_a_kernel_is_its_matrix(drawn):
    matrix, kernel = drawn
    groups, taps, outputs = matrix.shape(kernel.shape)
    found = matrix.of(kernel)
    assert found.shape == (groups, taps, outputs)
    np.testing.assert_array_equal(matrix.kernel(found, kernel.shape), kernel)
    window = math.prod(kernel.shape[axis] for axis in matrix.window_axes)
    order = {"hwio": "hwio", "hwoi": "hwio", "io": "io", "hwcm": "chwm"}[matrix.axes]
    expected = np.einsum(f"{matrix.axes}->{order}", kernel).reshape(found.shape)
    np.testing.assert_array_equal(found, expected)
    assert taps == window * (1 if matrix.is_depthwise else kernel.shape[matrix.input_axis])


def test_an_input_that_is_the_same_everywhere_goes_through(drawn):
    matrix, kernel = drawn
    values = np.random.default_rng(1).normal(size=kernel.shape[matrix.input_axis])
    outputs = "cm" if matrix.is_depthwise else "o"
    expected = np.einsum(f"{matrix.axes},{matrix.axes[matrix.input_axis]}->{outputs}", kernel, values).ravel()
    np.testing.assert_allclose(matrix.through(kernel, values), expected)


def test_factors_meet_their_channels(drawn):
    matrix, kernel = drawn
    rows = matrix.of_outputs(kernel)
    factors = np.arange(1.0, 1 + len(rows))
    scaled = kernel * matrix.along_outputs(factors, kernel.shape)
    np.testing.assert_allclose(matrix.of_outputs(scaled), rows * factors[:, None])
    rows = matrix.of_inputs(kernel)
    factors = np.arange(1.0, 1 + len(rows))
    np.testing.assert_allclose(matrix.of_inputs(kernel * matrix.along_inputs(factors)), rows * factors[:, None])


def test_outputs_come_first_in_a_file_and_last_of_a_depthwise_convolution(drawn):
    matrix, kernel = drawn
    stored = matrix.tflite(kernel)
    if matrix.is_depthwise:
        assert stored.shape == (1, *kernel.shape[:2], kernel.shape[2] * kernel.shape[3])
        np.testing.assert_array_equal(stored[0, 1, 1], kernel[1, 1].ravel())
    else:
        outputs = np.moveaxis(stored, matrix.tflite_axis, 0)
        np.testing.assert_array_equal(outputs.reshape(len(outputs), -1), matrix.of(kernel)[0].T)
