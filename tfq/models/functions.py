"""Functions that TFLite lacks or converts badly, in operations that it has; float32 throughout.

softplus      max(x, 0) + log(1 + exp(-|x|))       TensorFlow's log(1 + exp(x)) is infinite from x = 89 on
log_sigmoid   -softplus(-x)
log_softmax   x - (m + log(sum(exp(x - m)))), m the largest x. TFLite's own operation is always given a grid that
              ends at -16
erf           e(x) - e(-x), e(x) = 1 - (a1 t + ... + a5 t^5) exp(-z^2), t = 1 / (1 + p z), z = max(x, 0);
              its error is at most 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

_P = 0.3275911
_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def _softplus(x: Any) -> Any:
    return tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))


def _log_softmax(x: Any) -> Any:
    largest = tf.reduce_max(x, -1, keepdims=True)
    # in another order the converter would make its LOG_SOFTMAX of it
    return x - (largest + tf.math.log(tf.reduce_sum(tf.exp(x - largest), -1, keepdims=True)))


def _right_half(x: Any) -> Any:
    """erf(x) for x above 0, and 0 (to 1e-9) below."""
    z = tf.nn.relu(x)
    t = 1.0 / (1.0 + _P * z)
    sum_ = _A[-1] * t
    for a in _A[-2::-1]:
        sum_ = (sum_ + a) * t
    return 1.0 - sum_ * tf.exp(-z * z)


FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "softplus": _softplus,
    "log_sigmoid": lambda x: -_softplus(-x),
    "log_softmax": _log_softmax,
    "erf": lambda x: _right_half(x) - _right_half(-x),
    # a square of a difference would be made one operation, and the difference vanish from the file
    "square": lambda x: x * x,
}
