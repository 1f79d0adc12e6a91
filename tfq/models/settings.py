"""The settings of both Kerases that change what a layer computes, as tfq expects them."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import keras
import tf_keras

from tfq.errors import UserError

_OF_LIBRARIES = r"(tensorflow|tensorflow_model_optimization|keras|tf_keras)\b"
_TYPE, _FORMAT = "float32", "channels_last"


@contextlib.contextmanager
def standard_settings() -> Iterator[None]:
    """Layers that are made meanwhile are float32, channels last; the caller's own settings come back.

    Meanwhile TensorFlow does not tell of files that it writes, nor warn of functions that are traced often: a run makes
    many small models. Nor do it and its relatives warn of what tfq does on purpose.

    Raises UserError where Keras 3 does not run on TensorFlow, which nothing can change once it is imported.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UserError(
            f"Keras runs on {backend}; tfq needs its tensorflow backend: set the environment variable KERAS_BACKEND to"
            " tensorflow before Keras is imported"
        )
    old = tf_keras.backend
    found = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()
    found_old = old.floatx(), old.image_data_format(), tf_keras.mixed_precision.global_policy()
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_of_interest)
    try:
        _set(_TYPE, _FORMAT, _TYPE)
        _set_old(_TYPE, _FORMAT, _TYPE)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=_OF_LIBRARIES)
            yield
    finally:
        logger.removeFilter(_is_of_interest)
        _set(*found)
        _set_old(*found_old)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and "triggered tf.function retracing" not in record.getMessage()


def _set(floatx: str, data_format: str, policy: object) -> None:
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(data_format)
    keras.config.set_dtype_policy(policy)


def _set_old(floatx: str, data_format: str, policy: object) -> None:
    tf_keras.backend.set_floatx(floatx)
    tf_keras.backend.set_image_data_format(data_format)
    tf_keras.mixed_precision.set_global_policy(policy)
