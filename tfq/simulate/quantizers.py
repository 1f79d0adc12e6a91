"""tfmot quantizers and configs whose grids come from the `QuantizedModel`, and from nowhere else.

Grids are expressed as TensorFlow fake-quant ops, the form that TFLiteConverter understands:

    fake_quant(x) = scale * (clip(round(x / scale) + zero_point, low, high) - zero_point)

An activation's op has the bits of its grid; below 8 that is simulation only. Weights on a b-bit grid with
b < 8 pass through the 8-bit op of the same scale: their values lie on the narrower grid already
(`tfq.simulate.weights`), so the op changes nothing and the integers stay small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from tfq.grid import Grid
from tfq.numerics import reference

_STORED_BITS = 8
_SMALLEST = np.finfo(np.float32).tiny


def fake_quant(values: Any, grid: Grid) -> Any:
    """`values` on `grid`, any float32 shape; gradients pass straight through inside the range."""
    bits = _STORED_BITS if grid.symmetric else grid.bits
    low, high = reference.integer_range(bits, symmetric=grid.symmetric)
    lowest, highest = reference.real_range(np.asarray(grid.scale), grid.zero_point, low, high)
    options = {"num_bits": bits, "narrow_range": grid.symmetric}
    if grid.axis is None:
        return tf.quantization.fake_quant_with_min_max_vars(values, lowest[0], highest[0], **options)
    # The per-channel op takes the last axis; a depthwise kernel [h, w, channels, 1] needs only its last
    # axis dropped (the converter folds a reshape, but not a transpose).
    rank = len(values.shape)
    if grid.axis == rank - 1:
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(values, lowest, highest, **options)
    if grid.axis == rank - 2 and values.shape[-1] == 1:
        flat = tf.reshape(values, values.shape[:-1])
        flat = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, lowest, highest, **options)
        return tf.reshape(flat, values.shape)
    order = [i for i in range(rank) if i != grid.axis] + [grid.axis]
    moved = tf.transpose(values, order)
    moved = tf.quantization.fake_quant_with_min_max_vars_per_channel(moved, lowest, highest, **options)
    return tf.transpose(moved, np.argsort(order))


def rounded_rows(values: Any, *, whole: bool) -> Any:
    """float32 `values` [n, ...] as a dynamic-range kernel reads them: each row on an asymmetric 8-bit grid of its own.

        s = (high - low) / 255,  low = min(0, min x),  high = max(0, max x)

    Args:
      values: what the kernel reads.
      whole: a row is a whole sample, as for convolutions; else what lies along the last axis.
    """
    axes = list(range(1, len(values.shape))) if whole else [-1]
    low = tf.minimum(tf.reduce_min(values, axes, keepdims=True), 0.0)
    high = tf.maximum(tf.reduce_max(values, axes, keepdims=True), 0.0)
    least, most = map(float, reference.integer_range(_STORED_BITS, symmetric=False))
    scale = (high - low) / (most - least)
    scale = tf.where(scale >= _SMALLEST, scale, 1.0)  # smaller ones are zero to a processor
    from_least, from_most = least - low / scale, most - high / scale
    # of the two the one whose other end errs less
    zero_point = tf.round(tf.where((least + low / scale) + (most + high / scale) > 0, from_least, from_most))
    codes = tf.clip_by_value(tf.round(values / scale) + zero_point, least, most)
    return (codes - zero_point) * scale


def _grid(found: Mapping[str, Any]) -> Grid:
    """Of a config, whose tuples may have become lists."""
    return Grid(**{**found, "scale": tuple(found["scale"]), "codebook": tuple(found["codebook"])})


class FixedQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Puts a tensor on the grid it is given; learns nothing and has no variables."""

    def __init__(self, grid: Grid):
        self.grid = grid

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return fake_quant(inputs, self.grid)

    def get_config(self) -> dict[str, Any]:
        return {"grid": dataclasses.asdict(self.grid)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FixedQuantizer:
        return cls(_grid(config["grid"]))


class SpecQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """Quantises one layer: the weights named in `weights`, and the output if `output` is given."""

    def __init__(self, weights: Mapping[str, Grid], output: Grid | None):
        self.weights = dict(weights)
        self.output = output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, FixedQuantizer]]:
        return [(getattr(layer, name), FixedQuantizer(grid)) for name, grid in self.weights.items()]

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        for name, value in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, value)

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
        return []  # a fused activation is a layer of its own: see tfq.models.graph.make_layers

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[FixedQuantizer]:  # noqa: ARG002
        return [] if self.output is None else [FixedQuantizer(self.output)]

    def get_config(self) -> dict[str, Any]:
        return {
            "weights": {name: dataclasses.asdict(grid) for name, grid in self.weights.items()},
            "output": None if self.output is None else dataclasses.asdict(self.output),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SpecQuantizeConfig:
        output = config["output"]
        return cls({n: _grid(g) for n, g in config["weights"].items()}, None if output is None else _grid(output))
