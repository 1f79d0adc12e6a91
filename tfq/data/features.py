"""A cheap feature space for `coverage`: pooled inputs under a seeded Gaussian random projection.

An image is averaged over blocks down to at most 16 x 16, any other input over groups of neighbours
down to at most 4,096 numbers; the result x is projected to R x, R_ij ~ N(0, 1/64), 64 rows, which
keeps distances up to a small factor (Johnson and Lindenstrauss, 1984). With several inputs each
one's features are divided by their overall standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfq.data.samples import InputSignature

FEATURES = 64
_SIDE = 16
_NUMBERS = 4096


class PooledProjection:
    """Batches by input name -> [batch, features] float32; the same seed gives the same projection."""

    def __init__(self, signature: InputSignature, seed: int):
        self._name = signature.name
        size = pooled(np.zeros((1, *signature.shape), np.float32)).shape[1]
        generator = np.random.default_rng(seed)
        self._matrix = (
            None
            if size <= FEATURES
            else generator.standard_normal((size, FEATURES), np.float32) / np.float32(FEATURES**0.5)
        )

    def __call__(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        flat = pooled(batch[self._name].astype(np.float32))
        return flat if self._matrix is None else flat @ self._matrix


def pooled(batch: np.ndarray) -> np.ndarray:
    """[n, ...] float32 -> [n, d] with d at most 4,096, or 256 times the channels for [n, h, w, c]."""
    if batch.ndim == 4:
        batch = _group_means(_group_means(batch, 1, _SIDE), 2, _SIDE)
    return _group_means(batch.reshape(len(batch), -1), 1, _NUMBERS)


def _group_means(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Means of at most `groups` runs of neighbours along an axis, as equal in length as can be."""
    length = array.shape[axis]
    if length <= groups:
        return array
    edges = np.arange(groups + 1) * length // groups
    counts = np.diff(edges).astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = groups
    return np.add.reduceat(array, edges[:-1], axis=axis) / counts.reshape(shape)
