"""Images that are not in the data but might be: shifted, and where they have colours mirrored.

    x'[r, c] = x[r + a, m (c + b)]      a, b uniform within a sixteenth of height and width, m = 1 or -1

What leaves the picture on one side is reflected at the other. It is for a network that learns from another one's
outputs, which are asked for x' too, so nothing that has a label is changed. A spectrogram has no colours; what it shows
does not run backwards, and so only pictures of three channels are mirrored.

Source: He et al. 2016 (arXiv:1512.03385), section 4.2, who shift by 4 of 32 pixels and mirror.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SHARE = 16  # of the height and the width: how far a picture moves at most
_COLOURS = 3


def varied(feeds: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The inputs [n, ...] of n samples, each sample changed in its own way; what is no picture [n, h, w, c] stays."""
    count = len(feeds[0])
    shifts, mirrors = rng.uniform(-1.0, 1.0, (count, 2)), rng.random(count) < 0.5
    return [_moved(feed, shifts, mirrors) if _shows_pictures(feed) else feed for feed in feeds]


def _shows_pictures(feed: np.ndarray) -> bool:
    return feed.ndim == 4 and np.issubdtype(feed.dtype, np.floating) and min(feed.shape[1:3]) >= _SHARE // 2


def _moved(feed: np.ndarray, shifts: np.ndarray, mirrors: np.ndarray) -> np.ndarray:
    """Pictures [n, h, w, c], shifted by shares [n, 2] of what they may be, mirrored where a flag [n] says so."""
    height, width, channels = feed.shape[1:]
    most = np.array([max(1, size // _SHARE) for size in (height, width)])
    corners = most + np.round(most * shifts).astype(int)
    margins = [(0, 0), *((m, m) for m in most), (0, 0)]
    wide = np.pad(feed, margins, mode="reflect")
    moved = np.empty_like(feed)
    for k, (top, left) in enumerate(corners):
        part = wide[k, top : top + height, left : left + width]
        moved[k] = part[:, ::-1] if mirrors[k] and channels == _COLOURS else part
    return moved
