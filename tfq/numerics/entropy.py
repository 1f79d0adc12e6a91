"""Entropy of integers, and the step at which rounded weights have a given one.

    H(q) = -sum over the codes k of p_k log2 p_k                 p_k: share of the integers q that are k
    s(h):  H(round(w / s)) = h                                   one s for all of a layer's weights w

An ideal code for the integers one by one takes H bits each. Of all grids for the same H a uniform one without ends
(here: 8 bits) has nearly the smallest squared error, 0.25 bit above the bound for smooth densities; one of few levels
clips, and one scale for each channel spends as many bits on channels of small weights as on others.

Source: Gish and Pierce, "Asymptotically Efficient Quantizing", 1968.
"""

from __future__ import annotations

import numpy as np

from tfq.numerics import reference

_BISECTIONS = 40


def entropy(integers: np.ndarray) -> float:
    """H in bits per integer, of integers close together."""
    codes = np.asarray(integers).ravel().astype(np.int64)
    counts = np.bincount(codes - codes.min())  # sorting them would take ten times as long
    shares = counts[counts > 0] / codes.size
    return float(-(shares * np.log2(shares)).sum())


def scale_of_entropy(weights: np.ndarray, bits: float) -> float:
    """s for H = `bits`, but no smaller than what lets 8-bit codes hold the largest weight (any shape, finite)."""
    values = np.asarray(weights, np.float64).ravel()
    low = high = float(reference.symmetric_scales(values, 8)[0])
    while entropy(np.rint(values / high)) > bits:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if entropy(np.rint(values / middle)) > bits else (low, middle)
    return high
