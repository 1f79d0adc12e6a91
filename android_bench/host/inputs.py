"""What a model is fed: samples in real values as the elements of its inputs, one invocation after the other.

Inputs are quantised as `TensorInfo.to_raw` does it for the Python interpreter. An invocation takes one sample, or as
many as a fixed batch in the file prescribes; the last one is then filled up with the last sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tfq_bench.tensors import Column, write_tensors

from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError
from tfq.execution.interpreter import TensorInfo, TfliteModel

RANDOM_SAMPLES = 8
_BLOCK_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class Feed:
    """The inputs of a model; two models with equal feeds take the same container.

    Attributes:
      inputs: as the interpreter describes them, without what tells files apart (their number in the file).
      batch: samples of one invocation.
    """

    inputs: tuple[TensorInfo, ...]
    batch: int

    def invocations(self, samples: int) -> int:
        return -(-samples // self.batch)


def feed_of(model: TfliteModel) -> Feed:
    """Raises UserError for a model whose inputs share no batch axis."""
    sizes = {abs(info.shape[0]) if info.shape else 0 for info in model.inputs}
    if len(sizes) > 1 or 0 in sizes:
        shapes = ", ".join(f"{info.name!r} {list(info.shape)}" for info in model.inputs)
        raise UserError(f"the model's inputs share no batch axis ({shapes}); it cannot be run sample by sample")
    return Feed(tuple(dataclasses.replace(info, index=0) for info in model.inputs), sizes.pop())


def random_samples(signatures: Sequence[InputSignature], count: int = RANDOM_SAMPLES, seed: int = 0) -> Samples:
    """Inputs for times alone: floats of -1..1; zeros where an input holds whole numbers, whose limits are unknown."""
    rng = np.random.default_rng(seed)
    return Samples.of(
        {
            s.name: rng.uniform(-1, 1, (count, *s.shape)).astype(s.dtype)
            if np.dtype(s.dtype).kind == "f"
            else np.zeros((count, *s.shape), s.dtype)
            for s in signatures
        }
    )


def write_inputs(path: Path, feed: Feed, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the container of samples [n, ...] in real values by input name.

    Raises UserError for values that an integer input cannot take.
    """
    samples = len(next(iter(arrays.values())))
    columns = [
        Column(
            info.name,
            info.dtype,
            (feed.batch, *arrays[info.name].shape[1:]),
            lambda info=info: _blocks(info, arrays[info.name], feed.batch),
        )
        for info in feed.inputs
    ]
    write_tensors(path, feed.invocations(samples), columns)


def per_sample(outputs: np.ndarray, feed: Feed, samples: int) -> np.ndarray:
    """Outputs [invocations, batch, ...] as [samples, ...], without those of the filling."""
    if outputs.ndim < 2 or outputs.shape[1] != feed.batch:
        raise UserError(
            f"an output has the shape {list(outputs.shape[1:])} for {feed.batch} samples; its first axis must be the"
            " batch"
        )
    return outputs.reshape(len(outputs) * feed.batch, *outputs.shape[2:])[:samples]


def _blocks(info: TensorInfo, array: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    one = max(1, array[:1].nbytes) * batch
    step = max(1, _BLOCK_BYTES // one) * batch
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if missing := -len(part) % batch:
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        yield info.to_raw(part).reshape(len(part) // batch, batch, *part.shape[1:])
