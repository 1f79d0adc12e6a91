"""Many samples through a .tflite, on all cores."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import queue
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel, written
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import Arrays

_BATCH_BYTES = 4 << 20


def predict(
    model: bytes | Path,
    samples: Arrays | Iterable[Mapping[str, np.ndarray]],
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    delegate: bool = True,
    runtime: str = "litert",
    resources: Resources = DEFAULT,
    description: str = "predict",
) -> tuple[np.ndarray, ...]:
    """Outputs of many samples: one float32 array [n, ...] per output, in the order of the samples.

    Several interpreters of one thread each share the samples (an invocation releases the GIL). They run
    whole batches where the batch axis may be resized and a batch gives what its samples give one by one,
    which is tried on the first samples; elsewhere batches of the size fixed in the file.

    Args:
      model: the file's content, or its path.
      samples: arrays [n, ...] by input name, in real values; or batches [k, ...] of such arrays.
      batch_size: samples of one invocation; by default up to 32, and no more than 4 MB of inputs.
      threads: interpreters at work at once, by default one per core.
      resources: the activations of all batches at work fit into the memory.
    """
    total = None
    if isinstance(samples, Mapping):
        total = _sample_count(samples)
        samples = _slices(samples, batch_size or _suited_batch(samples, resources))
    workers = threads or available_cores()
    batches = iter(samples)
    first = next(batches, None)
    if first is None or not _sample_count(first):
        raise UserError("there are no samples to run the model on; give at least one")
    models = [TfliteModel(model, delegate=delegate, runtime=runtime)]
    batch_size = resources.batch(workers * models[0].arena_bytes, batch_size or _suited_batch(first, resources))
    step = batch_size if _batches_agree(models[0], first, min(4, batch_size)) else _fixed_batch(models[0])
    workers = min(workers, -(-total // batch_size)) if total else workers
    models += [TfliteModel(models[0].content, delegate=delegate, runtime=runtime) for _ in range(workers - 1)]
    free: queue.SimpleQueue[TfliteModel] = queue.SimpleQueue()
    for made in models:
        free.put(made)

    def work(batch: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        worker = free.get()
        try:
            return [_run_padded(worker, part, step) for part in _slices(batch, step)]
        finally:
            free.put(worker)

    done: list[tuple[np.ndarray, ...]] = []
    waiting: collections.deque[concurrent.futures.Future[list[tuple[np.ndarray, ...]]]] = collections.deque()
    with (
        resources.progress.task(description, total or 0) as advance,
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):

        def collect() -> None:
            outputs = waiting.popleft().result()
            done.extend(outputs)
            advance(sum(len(parts[0]) for parts in outputs))

        try:
            for batch in _chain(first, batches):
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * workers:
                    collect()
            while waiting:
                collect()
        finally:
            pool.shutdown(cancel_futures=True)
    return tuple(np.concatenate(parts) for parts in zip(*done, strict=True))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches_agree(model: TfliteModel, batch: Mapping[str, np.ndarray], count: int) -> bool:
    """Whether the batch axis may be resized and a batch of so many gives what its samples give one by one."""
    few = {name: np.asarray(values[:count]) for name, values in batch.items()}
    if any(not info.shape or info.shape[0] != -1 for info in model.inputs):
        return False
    single = [model.run(part) for part in _slices(few, 1)]
    try:
        together = model.run(few)
    except UserError:  # a constant inside the graph holds the batch size: the samples go one by one
        return False
    apart = [np.concatenate(parts) if parts[0].ndim else np.stack(parts) for parts in zip(*single, strict=True)]
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(a).max(initial=0.0)))
        for a, b in zip(apart, together, strict=True)
    )


def _suited_batch(samples: Arrays, resources: Resources) -> int:
    """Small inputs gain by a batch; large ones only cost memory, an arena for each interpreter."""
    bytes_each = sum(values.nbytes // max(1, len(values)) for values in samples.values())
    return resources.batch(bytes_each, max(1, min(32, _BATCH_BYTES // max(1, bytes_each))))


def _fixed_batch(model: TfliteModel) -> int:
    """Batch size that the file prescribes."""
    sizes = {info.shape[0] if info.shape else 0 for info in model.inputs}
    size = abs(sizes.pop())
    if sizes or not size:
        shapes = ", ".join(f"{info.name!r} {written(info.shape)}" for info in model.inputs)
        raise UserError(f"the model's inputs share no batch axis ({shapes}); it cannot be run sample by sample")
    return size


def _run_padded(model: TfliteModel, part: Mapping[str, np.ndarray], step: int) -> tuple[np.ndarray, ...]:
    """Outputs of at most `step` samples; a batch axis that cannot shrink is filled with the last sample."""
    count = _sample_count(part)
    missing = 0 if all(info.shape[0] == -1 for info in model.inputs) else step - count
    if missing:
        part = {name: np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for name, v in part.items()}
    outputs = model.run(part)
    for info, output in zip(model.outputs, outputs, strict=True):
        if not output.ndim or len(output) != count + missing:
            raise UserError(
                f"output {info.name!r} has the shape {written(output.shape)} for {count + missing} samples;"
                " its first axis must be the batch"
            )
    return tuple(output[:count] for output in outputs)


def _sample_count(batch: Arrays) -> int:
    counts = {name: len(values) for name, values in batch.items()}
    if len(set(counts.values())) != 1:
        raise UserError(f"every input needs the same number of samples, at least one input; got {counts or 'none'}")
    return next(iter(counts.values()))


def _slices(batch: Arrays, size: int) -> Iterator[Mapping[str, np.ndarray]]:
    for start in range(0, _sample_count(batch), size):
        yield {name: values[start : start + size] for name, values in batch.items()}


def _chain(first: Mapping[str, np.ndarray], rest: Iterator[Mapping[str, np.ndarray]]) -> Iterator[Any]:
    yield first
    yield from rest
