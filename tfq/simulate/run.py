"""Running a model built by `build_model` or `build_simulation` over many samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tf_keras

_BATCH = 8
_PART = 2  # samples whose every tensor is held at a time: 180 MB of EfficientNetB0


def predict_list(model: tf_keras.Model, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a model built with `outputs`: one array [n, ...] for each, whatever their number.

    Args:
      feeds: arrays [n, ...] in the order of the model's inputs; the model's tensors are held in memory
        for a few samples at a time.
    """
    found = model.predict(list(feeds), batch_size=_BATCH, verbose=0)
    return found if isinstance(found, list) else [found]


def predict_parts(model: tf_keras.Model, feeds: Sequence[np.ndarray]) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """As `predict_list`, a few samples at a time, for models with many large outputs: (which samples, outputs)."""
    for start in range(0, len(feeds[0]), _PART):
        part = slice(start, start + _PART)
        found = model.predict_on_batch([feed[part] for feed in feeds])
        yield part, found if isinstance(found, list) else [found]
