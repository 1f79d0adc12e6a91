"""The finished file, metadata and all, opened and run by every runtime at hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfq.errors import UserError, VerificationError
from tfq.execution.interpreter import RUNTIMES, TfliteModel


def verify_runtimes(content: bytes, samples: Mapping[str, np.ndarray], *, name: str) -> None:
    """Run one sample in ai-edge-litert and in tf.lite.

    Args:
      samples: arrays [n, ...] by input name; the first sample is used.
      name: of the file, for the error.

    Raises:
      VerificationError: a runtime refuses the file, or gives values that are not finite.
    """
    for runtime in RUNTIMES:
        try:
            outputs = TfliteModel(content, runtime=runtime).run({n: a[:1] for n, a in samples.items()})
        except UserError as error:
            raise VerificationError(f"{name} does not run in {runtime}: {error}") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise VerificationError(f"{name} gives NaN or Inf in {runtime} on the first calibration sample")
