"""TFLiteConverter unaided: what its documentation says to do with a trained Keras model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


def convert(model: Path, calibration: Path, output: Path, names: Sequence[str] = ("float", "int8")) -> dict[str, float]:
    """Write <name>.tflite of the untouched Keras model for every name; name -> seconds.

    int8 is full-integer post-training quantisation, with int8 inputs and outputs where the model's are float; dynamic
    has int8 weights and float activations.

    Args:
      model: an .h5 file (read by tf_keras) or a .keras file (read by Keras 3).
      calibration: an .npz whose arrays [n, ...], `x` of one input or called as the inputs, are the representative
        dataset, all of it.
      names: of "float", "int8" and "dynamic".
    """
    import keras
    import tensorflow as tf
    import tf_keras

    from tfq.execution.terminal import silenced

    models = tf_keras.models if model.suffix == ".h5" else keras.models
    loaded = models.load_model(model, compile=False)
    with np.load(calibration, allow_pickle=False) as arrays:
        inputs = ["x"] if "x" in arrays else [tensor.name for tensor in loaded.inputs]
        samples = [arrays[name] for name in inputs]

    def representative_dataset() -> Iterator[list[np.ndarray]]:
        for sample in zip(*samples, strict=True):
            yield [values[None] for values in sample]

    seconds = {}
    for name in names:
        start = time.monotonic()
        converter = tf.lite.TFLiteConverter.from_keras_model(loaded)
        if name != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "int8":
            converter.representative_dataset = representative_dataset
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            if all(values.dtype.kind == "f" for values in samples):
                converter.inference_input_type = converter.inference_output_type = tf.int8
        with silenced():
            content = converter.convert()
        seconds[name] = time.monotonic() - start
        (output / f"{name}.tflite").write_bytes(content)
    return seconds
