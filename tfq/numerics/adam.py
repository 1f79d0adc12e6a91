"""Adam in NumPy.

    m = 0.9 m + 0.1 g,   v = 0.999 v + 0.001 g^2,   w = w - share * rate * m' / (sqrt(v) + epsilon)

with the correction of the starts in m'. Steps do not depend on the size of the gradients g, as long as they are far
above epsilon.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1.
"""

from __future__ import annotations

import math

import numpy as np

_EPSILON, _MOMENTUM, _SQUARES = 1e-14, 0.9, 0.999


class Adam:
    """Moves an array of any shape in place; keeps the running means of its gradient and of the gradient's square.

    `rates` broadcast against it.
    """

    def __init__(self, values: np.ndarray, rates: np.ndarray | float):
        self._values, self._rates = values, rates
        self._mean, self._square, self._step = np.zeros_like(values), np.zeros_like(values), np.empty_like(values)
        self._count = 0

    def step(self, slope: np.ndarray, share: float) -> None:
        """One step against `slope`, at this share of the rates."""
        self._count += 1
        step = self._step
        np.subtract(slope, self._mean, out=step)
        step *= 1 - _MOMENTUM
        self._mean += step
        np.multiply(slope, slope, out=step)
        step -= self._square
        step *= 1 - _SQUARES
        self._square += step
        np.sqrt(self._square, out=step)
        step += _EPSILON
        np.divide(self._mean, step, out=step)
        step *= self._rates
        step *= share * math.sqrt(1 - _SQUARES**self._count) / (1 - _MOMENTUM**self._count)
        self._values -= step
