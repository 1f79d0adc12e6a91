"""ai-edge-quantizer unaided: the float .tflite to few-bit weights with 8-bit activations, as its documentation says.

Every operation is quantised by min-max; the weights of convolutions and dense layers by the algorithm asked for.
Few-bit weights are stored as INT4 tensors, per output channel.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from tfq.errors import UserError

# As ai-edge-quantizer calls its algorithms.
ALGORITHMS = ("min_max_uniform_quantize", "OCTAV", "MSE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def check_installed() -> None:
    """Raises UserError where ai-edge-quantizer is not installed."""
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise UserError(
            "the method aeq needs ai-edge-quantizer, which is not installed: pip install -e '.[benchmark]', or leave"
            " aeq out of --methods"
        )


def quantize(model: Path, calibration: np.ndarray, *, weight_bits: int, algorithm: str) -> bytes:
    """The quantised .tflite.

    Args:
      model: the float .tflite, of one input.
      calibration: [n, ...] float32, all of it.
      weight_bits: of convolutions and dense layers; activations have 8.
      algorithm: one of ALGORITHMS.
    """
    from ai_edge_quantizer import qtyping, quantizer

    from tfq.execution.interpreter import TfliteModel

    def config(bits: int) -> qtyping.OpQuantizationConfig:
        return qtyping.OpQuantizationConfig(
            activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
            ),
            compute_precision=qtyping.ComputePrecision.INTEGER,
            skip_checks=True,  # else depthwise convolutions are refused 4 bits, and stay float
        )

    made = quantizer.Quantizer(model.read_bytes())
    made.update_quantization_recipe(".*", qtyping.TFLOperationName.ALL_SUPPORTED, config(8))
    for name in _WEIGHTED:
        made.update_quantization_recipe(".*", qtyping.TFLOperationName[name], config(weight_bits), algorithm)
    (info,) = TfliteModel(model).inputs
    feeds = [{info.name: sample[None]} for sample in calibration]  # a list: it is gone through twice
    result = made.calibrate({"serving_default": feeds})
    return bytes(made.quantize(result, enable_progress_bar=False, enable_progress_report=False).quantized_model)
