"""The integer references against small converted models in the real interpreter, bit by bit."""

from __future__ import annotations

import integer_kernels
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from tfq.numerics import reference

INPUT_GRID = reference.asymmetric_parameters(-1.3, 2.1, 8)
OUTPUT_GRID = reference.asymmetric_parameters(-2.5, 3.3, 8)
CASES = {
    "conv": ((3, 3, 5, 7), 3, (1, 9, 10, 5)),
    "depthwise": ((3, 3, 5, 1), 2, (1, 9, 10, 5)),
    "dense": ((24, 6), None, (1, 24)),
}


def activation_fake_quant(x, grid):
    low, high = reference.real_range(*grid, -128, 127)
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high)


def convert(kind, kernel, scales, bias, shape, strides, padding):
    low, high = reference.real_range(scales, 0, -127, 127)

    def weights():
        if kind == "dense":
            return tf.quantization.fake_quant_with_min_max_vars(kernel, low[0], high[0], narrow_range=True)
        folded = kernel[..., 0] if kind == "depthwise" else kernel
        quantised = tf.quantization.fake_quant_with_min_max_vars_per_channel(folded, low, high, narrow_range=True)
        return tf.reshape(quantised, kernel.shape)

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
        def call(self, x):
            x = activation_fake_quant(x, INPUT_GRID)
            if kind == "conv":
                y = tf.nn.conv2d(x, weights(), strides, padding)
            elif kind == "depthwise":
                y = tf.nn.depthwise_conv2d(x, weights(), [1, *strides, 1], padding)
            else:
                y = tf.linalg.matmul(x, weights())
            return activation_fake_quant(tf.nn.bias_add(y, bias), OUTPUT_GRID)

    model = Model()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.call.get_concrete_function()], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.mark.parametrize(
    ("kind", "strides", "padding"),
    [
        ("conv", (1, 1), "SAME"),
        ("conv", (2, 2), "SAME"),
        ("conv", (1, 1), "VALID"),
        ("depthwise", (1, 1), "SAME"),
        ("depthwise", (2, 2), "VALID"),
        ("dense", (1, 1), "VALID"),
    ],
)
def test_integers_equal_the_interpreters_to_the_bit(kind, strides, padding):
    kernel_shape, axis, shape = CASES[kind]
    rng = np.random.default_rng(len(kind) + strides[0])
    kernel = (rng.normal(size=kernel_shape) * 0.3).astype(np.float32)
    bias = (rng.normal(size=kernel_shape[axis or -1]) * 0.3).astype(np.float32)
    scales = reference.symmetric_scales(kernel, 8, axis)
    # weights in the middle between two codes: the converter's rounding shows
    middles = np.abs(kernel) < np.quantile(np.abs(kernel), 0.5)
    step = reference.along_axis(scales, kernel.ndim, axis) if axis is not None else scales[0]
    kernel = np.where(middles, (np.floor(kernel / step) + np.float32(0.5)) * step, kernel)
    content = convert(kind, kernel, scales, bias, shape, strides, padding)
    runner = litert.Interpreter(
        model_content=content, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
    )
    runner.allocate_tensors()

    x = rng.integers(-128, 128, shape).astype(np.int8)
    codes = reference.quantize(kernel, scales, 0, -127, 127, axis)
    bias_codes = integer_kernels.quantize_bias(bias, INPUT_GRID[0], scales)
    zero_point = INPUT_GRID[1]
    if kind == "conv":
        sums = integer_kernels.conv2d_accumulate(
            x, codes, bias_codes, zero_point=zero_point, strides=strides, padding=padding
        )
    elif kind == "depthwise":
        sums = integer_kernels.depthwise_accumulate(
            x, codes, bias_codes, zero_point=zero_point, strides=strides, padding=padding
        )
    else:
        sums = integer_kernels.dense_accumulate(x, codes, bias_codes, zero_point=zero_point)
    expected = integer_kernels.requantize(sums, INPUT_GRID[0], scales, *OUTPUT_GRID)

    runner.set_tensor(runner.get_input_details()[0]["index"], x)
    runner.invoke()
    np.testing.assert_array_equal(runner.get_tensor(runner.get_output_details()[0]["index"]), expected)
    assert len(np.unique(expected)) > 5

    details = runner.get_tensor_details()
    stored = next(d for d in details if sorted(d["shape"]) == sorted(kernel_shape) and "fake" in d["name"].lower())
    layout = {"conv": (3, 0, 1, 2), "depthwise": (3, 0, 1, 2), "dense": (1, 0)}[kind]
    np.testing.assert_array_equal(runner.get_tensor(stored["index"]), codes.transpose(layout))
    np.testing.assert_array_equal(stored["quantization_parameters"]["scales"], scales)
    stored_bias = next(d for d in details if d["dtype"] is np.int32 and list(d["shape"]) == list(bias.shape))
    np.testing.assert_array_equal(runner.get_tensor(stored_bias["index"]), bias_codes)
    np.testing.assert_array_equal(
        stored_bias["quantization_parameters"]["scales"], reference.bias_scale(INPUT_GRID[0], scales)
    )
    for details, grid in ((runner.get_input_details(), INPUT_GRID), (runner.get_output_details(), OUTPUT_GRID)):
        assert details[0]["quantization"] == grid
