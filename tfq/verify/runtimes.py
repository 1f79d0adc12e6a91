"""The finished file, metadata and all, opened and run by every runtime at hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfq.errors import UserError, VerificationError
from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.verify.contents import read

_WITHOUT_WIDENING = "tensorflow"


def verify_runtimes(content: bytes, samples: Mapping[str, np.ndarray], *, name: str) -> str:
    """Run one sample in ai-edge-litert and in tf.lite.

    The interpreter of TensorFlow (2.21) has no QUANTIZE from int8 to int16. A file with one needs LiteRT or TFLite
    Micro, which the line that comes back says; it is empty for all other files.

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
            if runtime == _WITHOUT_WIDENING and _widens(content):
                return (
                    f"{name} runs in LiteRT and TFLite Micro, and not in the interpreter of TensorFlow: that has no"
                    " QUANTIZE from int8 to int16, as stands in front of 16-bit layers among 8-bit ones"
                )
            raise VerificationError(f"{name} does not run in {runtime}: {error}") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise VerificationError(f"{name} gives NaN or Inf in {runtime} on the first calibration sample")
    return ""


def _widens(content: bytes) -> bool:
    contents = read(content)
    return any(
        operation.kind == "QUANTIZE"
        and [contents.type_of(index) for index in (operation.inputs[0], operation.outputs[0])] == ["int8", "int16"]
        for operation in contents.operations
    )
