"""Samples as a page shows them: small pictures of images, the first numbers of all else.

An input [height, width, 1 or 3] counts as an image. Its pictures have at most 64 pixels a side, and black and white are
the smallest and the largest number among those shown: an affine preprocessing does not show.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Collection, Mapping

import numpy as np

from tfq.data.samples import Samples

_SIDE, _NUMBERS, _SMALLEST = 64, 24, 4


@dataclasses.dataclass(frozen=True)
class Preview:
    """One sample.

    Attributes:
      sample: its position among the samples of the evaluation.
      index: its position in the source; `name`: its file there, "" where there is none.
      pictures: PNG as a data URL by input name, of images.
      numbers: as text by input name, of other inputs.
    """

    sample: int
    index: int
    name: str
    pictures: Mapping[str, str]
    numbers: Mapping[str, str]


def previews(samples: Samples, positions: Collection[int]) -> tuple[Preview, ...]:
    """Of the samples at these positions, in their order."""
    chosen = samples.take(list(positions))
    arrays = chosen.read()
    images = {name: values for name, values in arrays.items() if _is_image(values)}
    pictures = {name: _pictures(values) for name, values in images.items()} if positions else {}
    return tuple(
        Preview(
            position,
            int(chosen.indices[row]),
            chosen.names[row] if chosen.names else "",
            {name: drawn[row] for name, drawn in pictures.items()},
            {name: _text(values[row]) for name, values in arrays.items() if name not in images},
        )
        for row, position in enumerate(positions)
    )


def _is_image(values: np.ndarray) -> bool:
    return values.ndim == 4 and values.shape[-1] in (1, 3) and min(values.shape[1:3]) >= _SMALLEST


def _pictures(values: np.ndarray) -> list[str]:
    """Data URLs of images [n, height, width, 1 or 3]."""
    from PIL import Image

    low, high = float(values.min()), float(values.max())
    pixels = np.rint((values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    urls = []
    for image in pixels:
        drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        drawn.thumbnail((_SIDE, _SIDE))
        png = io.BytesIO()
        drawn.save(png, "PNG", optimize=True)
        urls.append(f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}")
    return urls


def _text(values: np.ndarray) -> str:
    flat = values.ravel()
    shown = ", ".join(f"{value:.4g}" for value in flat[:_NUMBERS].tolist())
    return shown + (f", ... ({flat.size:,} numbers)" if flat.size > _NUMBERS else "")
