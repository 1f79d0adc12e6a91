"""What a model built by `build_model` or `build_simulation` gives on many samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tf_keras

_BATCH = 8


def predict_list(model: tf_keras.Model, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a model built with `outputs`: one array [n, ...] for each, whatever their number.

    Args:
      feeds: arrays [n, ...] in the order of the model's inputs; the model's tensors are held in memory
        for a few samples at a time.
    """
    found = model.predict(list(feeds), batch_size=_BATCH, verbose=0)
    return found if isinstance(found, list) else [found]
