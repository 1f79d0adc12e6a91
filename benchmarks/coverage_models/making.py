"""What the models of the coverage benchmark are made of: a case, data with structure, weights as of a trained model."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SAMPLES, CALIBRATION = 192, 128
"""Samples of every case, and how many of them calibration takes; the others are for the measurements."""
_SCALE_OF_LAYERS = 0.1  # of LayerScale, which begins at 1e-6


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and its samples.

    Attributes:
      model: what the owner has: a live Keras model, or the path of a file or folder.
      samples: arrays [SAMPLES, ...] by input name.
      function: tensors by input name -> outputs, which TFLiteConverter is given; None: `model` itself.
    """

    model: Any
    samples: Mapping[str, np.ndarray]
    function: Callable[[Mapping[str, Any]], Any] | None = None


def live(model: Any, *arrays: np.ndarray) -> Case:
    """The case of a Keras model whose inputs take the arrays in their order, with weights as of a trained one."""
    names = input_names(model)
    samples = dict(zip(names, arrays, strict=True))
    season(model, samples)
    return Case(model, samples)


def input_names(model: Any) -> list[str]:
    """As tfq names the inputs of a live model, in their order; those of a subclassed one have no names."""
    given = getattr(model, "inputs", None)
    if not given:
        return ["x"]
    kept = "operation" if isinstance(model, keras.Model) else "layer"
    return [getattr(tensor._keras_history, kept).name for tensor in given]


def pack(model: Any, values: Mapping[str, Any]) -> Any:
    """Tensors by input name in the structure that the model is called with."""
    listed = [values[name] for name in input_names(model)]
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    if structure is None:
        return listed[0]
    library = keras if isinstance(model, keras.Model) else tf
    return getattr(library, "tree", tf.nest).pack_sequence_as(structure, listed)


def season(model: Any, samples: Mapping[str, np.ndarray]) -> None:
    """Biases other than 0, factors other than 1, and the statistics that batch normalisations have on the samples."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        name, value = str(getattr(variable, "path", variable.name)).lower(), np.asarray(variable)
        if value.dtype.kind != "f" or not value.size:
            continue
        if name.endswith(("bias", "beta", "bias:0", "beta:0")):
            variable.assign(value + 0.1 * rng.normal(size=value.shape))
        elif "layer_scale" in name or "layerscale" in name:
            variable.assign(np.full(value.shape, _SCALE_OF_LAYERS))
        elif name.endswith(("gamma", "scale", "gamma:0", "scale:0")) and np.all(value == 1):
            variable.assign(value * np.exp(0.2 * rng.normal(size=value.shape)))
    layers = list(model._flatten_layers(include_self=False))
    normalizations = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"]
    for layer in layers:
        if "Dropout" in type(layer).__name__ and hasattr(layer, "rate"):
            layer.rate = 0.0
    if normalizations:
        momenta = [layer.momentum for layer in normalizations]
        for layer in normalizations:
            layer.momentum = 0.0
        model(pack(model, samples), training=True)
        for layer, momentum in zip(normalizations, momenta, strict=True):
            layer.momentum = momentum


def folder() -> Path:
    """A new one, for a model that is a file; the process that measures removes it with its own temporary folder."""
    return Path(tempfile.mkdtemp())


# --- data ---------------------------------------------------------------------------------------------------------


def pictures(*shape: int, top: float = 1.0, seed: int = 0) -> np.ndarray:
    """Coloured noise whose amplitude falls with frequency, as in photographs: [SAMPLES, *shape] in 0 to `top`."""
    rng = np.random.default_rng(seed)
    axes = tuple(range(1, len(shape)))
    spectrum = np.fft.fftn(rng.normal(size=(SAMPLES, *shape)), axes=axes)
    squares = [np.square(np.fft.fftfreq(size) * size) for size in shape[:-1]]
    radius = np.sqrt(1.0 + sum(np.meshgrid(*squares, indexing="ij")))[..., None]
    smooth = np.fft.ifftn(spectrum / radius ** (len(shape) / 2), axes=axes).real
    smooth /= smooth.std(axis=(*axes, len(shape)), keepdims=True) + 1e-9
    lightness = 0.5 + 0.12 * rng.normal(size=(SAMPLES, *(1,) * len(shape)))
    contrast = rng.uniform(0.08, 0.25, (SAMPLES, *(1,) * len(shape)))
    return (top * np.clip(lightness + contrast * smooth, 0, 1)).astype(np.float32)


def waves(steps: int, channels: int, *, seed: int = 0) -> np.ndarray:
    """Sums of a few oscillations with a little noise: [SAMPLES, steps, channels]."""
    rng = np.random.default_rng(seed)
    time = np.arange(steps)[None, :, None, None]
    frequency = rng.uniform(0.01, 0.35, (SAMPLES, 1, channels, 3))
    phase, size = rng.uniform(0, 2 * np.pi, frequency.shape), rng.exponential(1.0, frequency.shape)
    found = (size * np.sin(2 * np.pi * frequency * time + phase)).sum(-1)
    return (found + 0.1 * rng.normal(size=found.shape)).astype(np.float32)


def tokens(length: int, vocabulary: int, *, padded: bool = False, seed: int = 0) -> np.ndarray:
    """Words of a Zipf law, of a topic each sample: [SAMPLES, length] int32 from 1 on; `padded`: 0 behind the text."""
    rng = np.random.default_rng(seed)
    ranks = np.minimum(rng.zipf(1.3, (SAMPLES, length)), vocabulary - 1)
    found = 1 + (ranks + rng.integers(0, 7, (SAMPLES, 1)) * (vocabulary // 8)) % (vocabulary - 1)
    if padded:
        found *= np.arange(length) < rng.integers(max(2, length // 3), length + 1, (SAMPLES, 1))
    return found.astype(np.int32)


def table(columns: int, *, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    """Columns that depend on three common causes: [SAMPLES, columns]; `spread`: ratio of the scales of the columns."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(SAMPLES, 3))
    found = causes @ rng.normal(size=(3, columns)) + 0.5 * rng.normal(size=(SAMPLES, columns))
    return (found * np.geomspace(1.0, spread, columns)).astype(np.float32)


def categories(*sizes: int, seed: int = 0) -> np.ndarray:
    """Whole numbers 0 to size - 1, low ones more often: [SAMPLES, len(sizes)] int32."""
    rng = np.random.default_rng(seed)
    return np.stack([(size * rng.beta(1, 2, SAMPLES)).astype(np.int32) for size in sizes], axis=1)


def columns(array: np.ndarray) -> Sequence[np.ndarray]:
    """[n, c] -> c arrays [n, 1]."""
    return [array[:, i : i + 1] for i in range(array.shape[1])]
