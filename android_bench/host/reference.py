"""What this host computes: the outputs of the Python interpreter, to which a device's are compared.

The kernels are those that the device is asked for, since XNNPACK and the builtin ones differ by tens of steps in a deep
int8 model. XNNPACK's int8 results are the same on every processor; all others differ in the last digits.
"""

from __future__ import annotations

import concurrent.futures
import queue
from collections.abc import Sequence

import numpy as np

from tfq.execution.interpreter import TfliteModel
from tfq.execution.predict import available_cores
from tfq.execution.progress import SILENT, Progress

_TURNS = 16  # parts of the work a core does one after the other


def reference_outputs(
    content: bytes,
    inputs: Sequence[tuple[str, np.ndarray]],
    *,
    name: str,
    kernels: str = "xnnpack",
    progress: Progress = SILENT,
) -> list[np.ndarray]:
    """Elements of every output, [invocations, ...] each, one invocation at a time as on the device.

    Args:
      content: the .tflite.
      name, kernels: of the model, for the progress; "xnnpack" or "builtin".
      inputs: elements [invocations, *shape] by input name, as `read_tensors` gives them.

    Raises UserError for a model that does not run.
    """
    count = len(inputs[0][1])
    workers = min(available_cores(), count)
    free: queue.SimpleQueue[TfliteModel] = queue.SimpleQueue()
    for _ in range(workers):
        free.put(TfliteModel(content, delegate=kernels == "xnnpack"))

    def work(numbers: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        model = free.get()
        try:
            return [model.run_raw({name: np.asarray(array[i]) for name, array in inputs}) for i in numbers]
        finally:
            free.put(model)

    parts = np.array_split(np.arange(count), min(count, workers * _TURNS))
    done: list[tuple[np.ndarray, ...]] = []
    with (
        progress.task(f"reference of {name}", count) as advance,
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        for part in pool.map(work, parts):
            done += part
            advance(len(part))
    return [np.stack(outputs) for outputs in zip(*done, strict=True)]
