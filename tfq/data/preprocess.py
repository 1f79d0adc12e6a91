"""The standard preprocessings of 8-bit images, x in 0..255, as float32.

    none           x as stored
    raw            x
    zero_one       x / 255
    minus_one_one  x / 127.5 - 1
    imagenet       (x / 255 - mean) / std, mean = (0.485, 0.456, 0.406), std = (0.229, 0.224, 0.225), RGB

These are the modes of `keras.applications.imagenet_utils.preprocess_input`: "tf" is minus_one_one,
"torch" is imagenet. Each is (x - mean) / std with the `Normalization` given here, which is also what
TFLite metadata records. In a model with several inputs it applies to the float inputs of three axes,
the images; a model's only input is always preprocessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfq.data.samples import InputSignature
from tfq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Normalization:
    """y = (x - mean) / std for x in 0..255; one value, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32, channels last."""
        return (x.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


NORMALIZATIONS = {
    "raw": Normalization((0.0,), (1.0,)),
    "zero_one": Normalization((0.0,), (255.0,)),
    "minus_one_one": Normalization((127.5,), (127.5,)),
    "imagenet": Normalization(
        tuple(255 * m for m in (0.485, 0.456, 0.406)), tuple(255 * s for s in (0.229, 0.224, 0.225))
    ),
}


def normalizations(signatures: Sequence[InputSignature], preprocess: str) -> dict[str, Normalization]:
    """Input name -> normalisation, for the inputs that get one.

    Raises:
      UserError: `preprocess` is unknown or no input of the model can take it.
    """
    if preprocess == "none":
        return {}
    if preprocess not in NORMALIZATIONS:
        raise UserError(f"preprocess is {preprocess!r}; it must be none, {', '.join(NORMALIZATIONS)}")
    chosen = [s for s in signatures if (len(signatures) == 1 or len(s.shape) == 3) and np.dtype(s.dtype).kind == "f"]
    if not chosen:
        listed = ", ".join(f"{s.name!r} {s.shape} {s.dtype}" for s in signatures)
        raise UserError(
            f"`preprocess='{preprocess}'` makes float images, but the model's inputs are {listed}; use none"
        )
    for signature in chosen:
        if preprocess == "imagenet" and signature.shape[-1:] != (3,):
            raise UserError(
                f"`preprocess='imagenet'` needs 3 channels, but input {signature.name!r} has shape {signature.shape};"
                " use zero_one or minus_one_one"
            )
    return {s.name: NORMALIZATIONS[preprocess] for s in chosen}
