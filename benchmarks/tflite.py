"""TFLiteConverter unaided: what its documentation says to do with a trained Keras model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def convert(model: Path, calibration: Path, output: Path) -> dict[str, float]:
    """Write float.tflite and int8.tflite of the untouched Keras model; name -> seconds.

    int8 is full-integer post-training quantisation with int8 inputs and outputs.

    Args:
      model: an .h5 file (read by tf_keras) or a .keras file (read by Keras 3) of one input.
      calibration: an .npz whose array `x` [n, ...] float32 is the representative dataset, all of it.
    """
    import keras
    import tensorflow as tf
    import tf_keras

    from tfq.execution.terminal import silenced

    models = tf_keras.models if model.suffix == ".h5" else keras.models
    loaded = models.load_model(model, compile=False)
    with np.load(calibration, allow_pickle=False) as arrays:
        samples = arrays["x"]

    def representative_dataset() -> Iterator[list[np.ndarray]]:
        for sample in samples:
            yield [sample[None]]

    seconds = {}
    for name in ("float", "int8"):
        start = time.monotonic()
        converter = tf.lite.TFLiteConverter.from_keras_model(loaded)
        if name == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = representative_dataset
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        with silenced():
            content = converter.convert()
        seconds[name] = time.monotonic() - start
        (output / f"{name}.tflite").write_bytes(content)
    return seconds
