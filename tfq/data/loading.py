"""From a source to the samples of one run: open, select, preprocess, check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from tfq.data.checks import check_shape, convert, warn_about
from tfq.data.samples import MEMORY_LIMIT, InputSignature, Samples, SampleWriter
from tfq.data.sources import open_source
from tfq.errors import UserError
from tfq.execution.progress import Progress, Silent

Embed = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def load_samples(
    source: str,
    signatures: Sequence[InputSignature],
    *,
    limit: int | None,
    selection: str = "first",
    preprocess: str = "none",
    seed: int = 0,
    require_labels: bool = False,
    embed: Embed | None = None,
    progress: Progress = Silent(),
    memory_limit: int = MEMORY_LIMIT,
) -> Samples:
    opened = open_source(source, signatures, preprocess=preprocess)
    wanted: Collection[int] | None = None if limit is None else range(limit)
    writer = SampleWriter(memory_limit)
    indices = []
    total = min(x for x in (limit, opened.count, 1 << 62) if x is not None)
    with progress.task(f"read {source}", total) as advance:
        for slot, sample in enumerate(opened.read(wanted)):
            if require_labels and sample.label is None:
                raise UserError(f"{source} has no labels; they belong in the array 'y'")
            inputs = {}
            for signature in signatures:
                where = sample.where[signature.name]
                check_shape(sample.inputs[signature.name].shape, signature, where)
                inputs[signature.name] = convert(sample.inputs[signature.name], signature, where)
            writer.write(slot, inputs, sample.label)
            indices.append(sample.index)
            advance(1)
    arrays, labels = writer.finish()
    samples = Samples(arrays, np.array(indices, np.int64), labels, memory_limit=memory_limit)
    return dataclasses.replace(samples, warnings=warn_about(samples) if limit is not None else ())
